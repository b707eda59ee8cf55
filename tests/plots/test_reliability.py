"""Reliability figures hold the numbers of the bins that were given."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.metrics.calibration import reliability_curve, softmax
from workbench.plots.reliability import accuracy_against_error, bin_means, entropy_histograms, reliability_diagrams


def bins(seeds=3, adaptive=False):
    tables = []
    for method, scale in (("dml", 1.0), ("bd_kd", 2.0)):
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            logits = scale * random.normal(size=(200, 4))
            labels = logits.argmax(1) * (random.random(200) < 0.8)
            curve = reliability_curve(softmax(logits), labels, adaptive=adaptive)
            tables.append(curve.assign(method=method, seed=seed))
    return pd.concat(tables, ignore_index=True)


def test_a_point_is_the_mean_over_the_seeds_that_filled_the_bin():
    table = bins()
    means = bin_means(table, by="method").query("method == 'dml'").set_index("bin")
    tenth = table[(table["method"] == "dml") & (table["low"] > 0.59) & (table["low"] < 0.61)]
    assert len(tenth) == 3
    assert means.loc[9, "accuracy"] == pytest.approx(tenth["accuracy"].mean())
    assert means.loc[9, "error"] == pytest.approx(tenth["accuracy"].sem())
    assert means.loc[9, "share"] == pytest.approx((tenth["count"] / 200).mean())


def test_bins_that_nobody_filled_are_not_drawn():
    means = bin_means(bins(), by="method")
    assert (means["n"] > 0).all()
    assert means["confidence"].notna().all()
    assert means["low"].min() >= 0.2  # the top of four classes is never below a quarter


def test_shares_of_all_bins_add_up_to_one():
    for adaptive in (False, True):
        totals = bin_means(bins(seeds=1, adaptive=adaptive), by="method").groupby("method")["share"].sum()
        assert totals.tolist() == pytest.approx([1, 1])


def test_there_is_a_panel_for_each_method_on_one_scale():
    figure = reliability_diagrams(bins())
    assert [note.text for note in figure.layout.annotations] == ["dml", "bd_kd"]
    assert len(figure.data) == 6
    diagonal, bars, points = figure.data[:3]
    assert list(diagonal.x) == list(diagonal.y) == [0, 1]
    assert max(max(trace.y) for trace in (bars, figure.data[4])) == pytest.approx(0.22)
    assert len(points.error_y.array) == len(points.x)
    assert sum(bool(trace.showlegend) for trace in figure.data) == 3


def test_one_seed_has_no_error_bar():
    assert np.isnan(reliability_diagrams(bins(seeds=1)).data[2].error_y.array).all()


def test_a_cloud_of_seeds_has_its_mean_in_the_middle():
    rows = pd.DataFrame({"method": ["dml"] * 3, "ece": [0.1, 0.2, 0.3], "accuracy": [0.7, 0.8, 0.9]})
    seeds, mean = accuracy_against_error(rows).data
    assert list(seeds.x) == [0.1, 0.2, 0.3]
    assert (mean.x[0], mean.y[0]) == pytest.approx((0.2, 0.8))
    assert mean.error_x.array[0] == pytest.approx(rows["ece"].sem())


def test_histograms_are_shares_of_each_network():
    table = pd.DataFrame({"method": "dml", "network": ["student"] * 3 + ["teacher"], "entropy": [0.0, 0.0, 1.0, 0.5]})
    student, teacher = entropy_histograms(table, bins=2).data
    assert sorted(set(student.y)) == pytest.approx([1 / 3, 2 / 3])
    assert list(teacher.y) == [0, 0, 1, 1]
    assert list(student.x) == [0, 0.5, 0.5, 1]


def test_a_misspelt_or_empty_table_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'method'"):
        reliability_diagrams(bins(), by="methods")
    with pytest.raises(UnknownName, match="ece"):
        accuracy_against_error(pd.DataFrame({"method": ["a"], "accuracy": [1.0]}))
    with pytest.raises(ValueError, match="no rows"):
        entropy_histograms(pd.DataFrame({"method": [], "network": [], "entropy": []}))
