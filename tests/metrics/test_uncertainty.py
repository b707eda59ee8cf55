"""Intervals cover what they should, and pairing takes the seeds' spread out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench.metrics.uncertainty import (
    Effect,
    bootstrap_interval,
    mean_and_error,
    paired_difference,
    summarise,
    t_interval,
)


def test_the_standard_error_of_1_2_3_is_one_over_root_three():
    effect = mean_and_error([1.0, 2.0, 3.0])
    assert (effect.estimate, effect.n) == (2.0, 3)
    assert effect.high - 2.0 == pytest.approx(1 / np.sqrt(3))


def test_one_value_has_a_mean_but_no_error():
    for function in (mean_and_error, bootstrap_interval, t_interval):
        effect = function([4.0])
        assert effect.estimate == 4.0
        assert np.isnan(effect.low)
        assert not effect.is_exact


def test_nothing_to_estimate_from_is_refused():
    with pytest.raises(ValueError, match="empty"):
        mean_and_error([])


def test_the_t_interval_is_scipys():
    values = [1.0, 2.0, 4.0, 7.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    effect = t_interval(values, level=0.9)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(60, 20))
    covered = [effect.low < 0 < effect.high for effect in (bootstrap_interval(row, level=0.9) for row in draws)]
    assert 0.78 <= np.mean(covered) <= 0.99


def test_the_bootstrap_takes_any_statistic_and_repeats_by_seed():
    values = [1.0, 2.0, 3.0, 50.0, 4.0]
    first = bootstrap_interval(values, np.median, seed=3)
    assert first.estimate == 3.0
    assert first == bootstrap_interval(values, np.median, seed=3)
    assert bootstrap_interval([2.0, 2.0]) == Effect(2.0, 2.0, 2.0, 2)


def rows():
    spread = [10.0, -5.0, 3.0, 0.0, 7.0]  # what the seed does to both sides
    return pd.DataFrame(
        [
            {"loss": loss, "seed": seed, "nats": base + move + seed * 0.01 * (loss == "taid")}
            for loss, base in (("taid", 1.0), ("skew", 2.0))
            for seed, move in enumerate(spread)
        ]
    )


def test_pairing_removes_what_the_seed_does_to_both_sides():
    effect = paired_difference(rows(), "taid", "skew", value="nats", by="loss")
    assert effect.estimate == pytest.approx(-0.98)
    assert effect.n == 5
    assert effect.high - effect.low < 0.1
    mirrored = paired_difference(rows(), "skew", "taid", value="nats", by="loss")
    assert (mirrored.low, mirrored.high) == pytest.approx((-effect.high, -effect.low))


def test_pairing_needs_both_sides_one_row_each_and_a_seed_in_common():
    with pytest.raises(ValueError, match="Did you mean 'taid'"):
        paired_difference(rows(), "tiad", "skew", value="nats", by="loss")
    with pytest.raises(ValueError, match="one row each"):
        paired_difference(pd.concat([rows(), rows()]), "taid", "skew", value="nats", by="loss")
    strangers = rows().assign(seed=range(10))
    with pytest.raises(ValueError, match="nothing to pair"):
        paired_difference(strangers, "taid", "skew", value="nats", by="loss")


def test_summarise_gives_one_row_per_group_and_measure():
    table = summarise(rows().assign(share=0.5), by=["loss"], measures=["nats", "share"])
    assert table[["loss", "measure"]].to_numpy().tolist() == [
        ["taid", "nats"], ["skew", "nats"], ["taid", "share"], ["skew", "share"],
    ]  # fmt: skip
    assert table["n"].eq(5).all()
