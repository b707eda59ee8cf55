"""The paper's protocol: what each step promises, and that bad settings are refused before any training."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import AssetError
from workbench.experiments import matrix_nuclear_norm as experiment
from workbench.metrics.mnn_timing import ENTROPY, GRAM, OURS
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import TextTask


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Starting others takes longer than these tasks do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CORES", "1")
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A tiny Llama in a folder reads the texts in the place of SmolLM2, so that this is quick."""
    folder = tmp_path_factory.mktemp("reader") / "tiny"
    text = TextTask(vocabulary=300).prepare()
    small_lm(text.vocab_size, ModelSize(48, 2, 3), context=512, seed=5).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def config(reader):
    return experiment.Config.of("smoke", model=reader)


@pytest.fixture(scope="module")
def ladder(config):
    return experiment.measure_ladder(config)


@pytest.fixture(scope="module")
def texts(config):
    return experiment.read_texts(config)


@pytest.fixture(scope="module")
def result(config, ladder, texts):
    checks, times = experiment.check_formulas(texts), experiment.measure_times(config, texts)
    return experiment.conclude(config, ladder, texts, checks, times)


def test_every_size_has_every_stage_once_a_seed_and_one_bound(config, ladder):
    rungs = ladder.query("part == 'ladder' and length == 'whole'")
    cells = rungs.groupby(["model", "state"])["seed"].apply(list)
    assert len(cells) == len(config.sizes) * (1 + len(config.steps))
    assert {tuple(seeds) for seeds in cells} == {config.seeds}
    assert set(rungs["bound"]) == {1.0}
    assert set(rungs["tokens"]) == {config.context}


def test_training_lowers_the_loss_that_the_metrics_are_held_against(ladder):
    means = ladder.query("part == 'ladder'").groupby("state")["loss"].mean()
    assert means["untrained"] > means["5 steps"] > means["20 steps"]


def test_narrow_models_are_bound_by_their_width(config, ladder):
    narrow = ladder.query("part == 'widths' and model == '16x1'").set_index("length")["bound"]
    assert narrow["whole"].unique() == pytest.approx(np.sqrt(16 / config.context))
    assert narrow["half"].unique() == pytest.approx(1.0)
    assert (ladder["mnn_over_bound"] <= 1).all()


def test_a_reordered_text_has_as_many_tokens_and_a_cut_one_half(texts):
    tokens = texts.reading.rows.pivot(index="text", columns="operation", values="tokens")
    assert (tokens["shuffle"] == tokens["none"]).all()
    assert (tokens["reverse"] == tokens["none"]).all()
    assert (tokens["truncate"] == (tokens["none"] + 1) // 2).all()


def test_effects_are_the_mean_of_paired_differences(texts):
    wide = texts.reading.rows.pivot(index="text", columns="operation", values="mnn")
    row = texts.effects.set_index(["operation", "measure"]).loc[("shuffle", "mnn")]
    assert row["estimate"] == pytest.approx((wide["shuffle"] - wide["none"]).mean())
    assert row["n"] == 3
    assert row["low"] <= row["estimate"] <= row["high"]


def test_lengths_double_and_every_text_has_each(texts):
    counts = texts.lengths.groupby("tokens")["text"].count()
    assert list(counts.index) == [16 * 2**power for power in range(len(counts))]
    assert (counts == counts.iloc[0]).all()


def test_the_formulas_agree_on_texts_and_on_matrices_made_up(texts):
    checks = experiment.check_formulas(texts).set_index("matrix")
    assert {"text 0", "rank 4", "more tokens than width"} <= set(checks.index)
    assert checks["gap"].max() < 1e-5
    assert checks["columns_over_true"].min() > 1 - 1e-5
    assert checks.loc["rank 4", "columns_over_true"] > 3  # what the norm cannot see


def test_with_the_forward_every_way_is_slower_and_their_ratio_nearer_to_one(config, texts):
    times = experiment.measure_times(config, texts)
    assert {"forward", OURS, ENTROPY, GRAM} <= set(times.query("place == 'text'")["what"])
    table = experiment.speed(times)
    assert (table["with_forward"] < table["alone"]).all()
    assert set(table["baseline"]) == {ENTROPY, GRAM}


def test_rows_are_one_observation_each_and_curves_have_their_names(result):
    assert not result.rows.duplicated(["part", "model", "state", "length", "seed"]).any()
    assert set(result.rows["part"]) == {"ladder", "widths", "texts"}
    assert set(result.curves["curve"]) == {"layers", "lengths"}
    assert set(result.table().columns) >= {"part", "model", "state", "length", "measure", "mean", "error", "n"}


def test_smoke_judges_nothing_and_every_claim_names_its_source(result):
    assert set(result.check()["verdict"]) == {"not judged"}
    assert all(claim.source for claim in result.claims)
    statements = [claim.statement for claim in result.claims]
    assert len(set(statements)) == len(statements)


def test_what_is_arithmetic_gates_and_what_time_decides_does_not(result):
    gating = [claim for claim in result.claims if claim.gating]
    assert len(gating) == 4
    assert not [claim.statement for claim in gating if "faster" in claim.statement]
    assert all(claim.verdict == "supported" for claim in gating if claim.effect.is_exact)


def test_published_contradictions_are_shown(result):
    verdicts = {claim.statement: claim.verdict for claim in result.claims if claim.statement.startswith("Published")}
    assert len(verdicts) == 5
    assert sorted(verdicts.values()) == ["contradicted"] * 3 + ["supported"] * 2
    assert all("entropy" in statement for statement, verdict in verdicts.items() if verdict == "supported")


def test_the_ladder_may_be_ones_own_models(reader):
    config = experiment.Config.of("smoke", sizes=[reader, reader], model=reader, other_widths=())
    table = experiment.measure_ladder(config)
    assert set(table["state"]) == {"pretrained"}
    assert (table["tokens"] <= config.context).all()
    assert table["loss"].notna().all()


def test_the_papers_setting_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = experiment.Config.of("paper")
    for step in (experiment.measure_ladder, experiment.read_texts, experiment.run):
        with pytest.raises(AssetError, match="a GPU"):
            step(config)


def test_full_has_all_operations_and_a_hundred_texts_at_least():
    config = experiment.Config.of("full")
    assert config.texts >= 100
    assert len(config.operations) == 6
    assert len(config.seeds) >= 5
    assert pd.Index(config.sizes).is_unique


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"operations": ("shuffle", "revers")}, "Did you mean 'reverse'"),
        ({"operations": ("shuffle",)}, "lacks .*reverse"),
        ({"steps": (20, 5)}, "must rise"),
        ({"seeds": ()}, "seeds"),
        ({"sizes": ("32x1",)}, "no ladder"),
        ({"sizes": ("32x1", "64x1")}, "one width"),
        ({"context": 33}, "at least context=33"),
        ({"sizes": ("32x1", "smollm2-135m")}, "different vocabularies"),
        ({"other_widths": ("smollm2-135m",)}, "sizes to train here"),
        ({"texts": 0}, "texts"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)
