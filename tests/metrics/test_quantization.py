"""What quantising costs: pairs, matches and correlations worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.metrics.quantization import (
    NOT_QUANTISED,
    difference,
    one_row_a_variant,
    paired_questions,
    paired_share,
    proxies,
    rank_correlation,
    ratio_of_speed,
    same_bits,
    same_bytes,
    share_kept,
)

# model, variant, method, bits per weight, bytes, nats, accuracy
CELLS = [
    ("small", NOT_QUANTISED, NOT_QUANTISED, 32.0, 100, 2.0, 0.50),
    ("small", "GPTQ, 4 bits", "GPTQ", 4.5, 20, 2.1, 0.45),
    ("large", NOT_QUANTISED, NOT_QUANTISED, 32.0, 400, 1.5, 0.60),
    ("large", "GPTQ, 8 bits", "GPTQ", 8.5, 110, 1.5, 0.60),
    ("large", "GPTQ, 4 bits", "GPTQ", 4.5, 60, 1.6, 0.57),
    ("large", "GPTQ, 3 bits", "GPTQ", 3.5, 45, 1.7, 0.54),
    ("large", "SpQR, 2 bits", "SpQR", 4.0, 52, 1.65, 0.55),
]


@pytest.fixture
def rows():
    return pd.DataFrame(
        [
            {
                "model": model, "parameters": size, "seed": seed, "variant": variant, "method": method,
                "bits": round(bits), "group": "64", "bits_per_weight": bits, "bytes": size, "outlier_share": 0.0,
                "dimension": "knowledge", "measure": measure, "value": value + shift,
            }
            for model, variant, method, bits, size, nats, accuracy in CELLS
            for seed, shift in ((0, 0.0), (1, 0.25))
            for measure, value in (("nats", nats), ("accuracy", accuracy), ("bytes", float(size)))
        ]
    ).assign(parameters=lambda table: table["model"].map({"small": 25, "large": 100}))  # fmt: skip


def test_what_is_added_is_over_the_same_model_and_seed(rows):
    wide = one_row_a_variant(rows)
    assert len(wide) == 2 * len(CELLS)
    four = wide[(wide["variant"] == "GPTQ, 4 bits") & (wide["model"] == "small")].set_index("seed")
    assert four["added"].tolist() == pytest.approx([0.1, 0.1])
    assert four["rise"].tolist() == pytest.approx([0.1 / 2.0, 0.1 / 2.25])
    assert (wide.loc[wide["variant"] == NOT_QUANTISED, "added"] == 0).all()


def test_a_difference_is_paired_over_seeds_and_so_has_no_width_here(rows):
    effect = difference(one_row_a_variant(rows), "GPTQ, 3 bits", "GPTQ, 8 bits")
    assert (effect.estimate, effect.low, effect.high) == pytest.approx((0.2, 0.2, 0.2))
    with pytest.raises(UnknownName, match="Did you mean 'GPTQ, 3 bits'"):
        difference(one_row_a_variant(rows), "GPTQ 3 bits", "GPTQ, 8 bits")


def test_a_share_kept_of_itself_is_one(rows):
    effect = share_kept(one_row_a_variant(rows), NOT_QUANTISED, value="accuracy")
    assert (effect.low, effect.high) == (1.0, 1.0)


def test_the_larger_model_is_given_the_most_bits_that_fit_into_the_bytes_of_the_smaller(rows):
    wide = one_row_a_variant(rows)
    whole = same_bytes(wide, method="GPTQ")
    assert set(whole["variant"]) == {"GPTQ, 4 bits"}  # 110 bytes at 8 bits are more than 100
    assert whole["gain"].tolist() == pytest.approx([0.4, 0.4])
    half = same_bytes(wide, method="GPTQ", share=0.5)
    assert set(half["variant"]) == {"GPTQ, 3 bits"}
    assert half["small_bytes"].tolist() == [50.0, 50.0]
    assert same_bytes(wide, method="GPTQ", share=0.1).empty


def test_equal_bits_are_the_nearest_grids_on_both_sides(rows):
    wide = one_row_a_variant(rows[rows["model"] == "large"])
    assert same_bits(wide, "SpQR, 2 bits", ["GPTQ"]) == ["GPTQ, 3 bits", "GPTQ, 4 bits"]
    assert same_bits(wide, "GPTQ, 8 bits", ["SpQR"]) == ["SpQR, 2 bits"]
    with pytest.raises(ValueError, match="no variant of"):
        same_bits(wide, "SpQR, 2 bits", ["HQQ"])


def test_a_rising_relation_has_rank_correlation_one_whatever_its_shape():
    x = np.arange(12.0)
    effect = rank_correlation(x, np.exp(x))
    assert (effect.estimate, effect.low, effect.high) == pytest.approx((1.0, 1.0, 1.0))
    assert rank_correlation(x, -x).estimate == pytest.approx(-1.0)


def test_the_rank_correlation_is_that_of_scipy_with_ties():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    effect = rank_correlation(x, y)
    assert effect.estimate == pytest.approx(spearmanr(x, y).statistic)
    assert effect.low < effect.estimate < effect.high


def test_what_does_not_differ_predicts_nothing():
    effect = rank_correlation([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    assert np.isnan([effect.estimate, effect.low, effect.high]).all()
    with pytest.raises(ValueError, match="at least three"):
        rank_correlation([1.0, 2.0], [1.0, 2.0])


def test_accuracy_that_falls_with_nats_is_predicted(rows):
    found = proxies(one_row_a_variant(rows), ["accuracy", "unknown"]).set_index("model")
    assert set(found["benchmark"]) == {"accuracy"}
    assert found.loc["large", "estimate"] == pytest.approx(1.0)
    assert "small" not in found.index  # two variants are no relation


def test_equal_answers_to_few_questions_leave_doubt():
    same = paired_share(np.zeros(40))
    assert same.estimate == 0
    assert same.low == pytest.approx(-same.high)
    assert 0.02 < same.high < 0.1
    assert paired_share(np.zeros(1000)).high < same.high / 5
    worse = paired_share([-1.0] * 30 + [0.0] * 70)
    assert worse.high < 0
    with pytest.raises(ValueError, match="no question"):
        paired_share([])


def test_questions_are_paired_by_model_seed_and_number():
    answers = pd.DataFrame(
        [
            {"model": "a", "seed": 0, "variant": variant, "benchmark": "truth", "question": question, "value": value}
            for variant, values in (("x", (1.0, 0.0, 1.0)), ("y", (0.0, 0.0, 1.0)))
            for question, value in enumerate(values)
        ]
    )
    assert paired_questions(answers, "x", "y", "truth").tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(UnknownName, match="Did you mean 'truth'"):
        paired_questions(answers, "x", "y", "thruth")


def test_a_path_of_half_the_time_is_twice_as_fast_in_every_round():
    speed = pd.DataFrame(
        [
            {"path": path, "phase": phase, "round": turn, "cpu_ms": cost * (1 + turn)}
            for path, cost in (("float32", 10.0), ("int4", 5.0))
            for phase in ("prefill", "decode")
            for turn in range(3)
        ]
    )
    assert ratio_of_speed(speed, "int4", "float32").tolist() == [2.0, 2.0, 2.0]
