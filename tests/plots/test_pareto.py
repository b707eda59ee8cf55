"""The front is what no other model beats, and names do not cover each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.pareto import HEIGHT, LETTER, WIDTH, front_of, pareto, place_names
from workbench.published.benchmarks import mean_scores

TABLE = pd.DataFrame(
    {
        "model": ["small", "wasteful", "good", "same", "large"],
        "compute": [1e8, 5e8, 1e9, 1e9, 1e10],
        "mean": [10.0, 9.0, 20.0, 20.0, 30.0],
        "status": ["read", "read", "digitised", "read", "digitised"],
    }
)


def test_the_front_holds_the_models_that_no_other_beats():
    assert list(front_of(TABLE, x="compute", y="mean")["model"]) == ["small", "good", "large"]


def test_the_front_does_not_depend_on_the_order_of_the_rows():
    shuffled = TABLE[TABLE["model"] != "same"].sample(frac=1, random_state=1)
    assert list(front_of(shuffled, x="compute", y="mean")["model"]) == ["small", "good", "large"]


def test_digitised_points_are_open_and_highlighted_ones_large():
    figure = pareto(TABLE, status="status", highlight=("good", "small"))
    front, exact, read_off, marked = figure.data
    assert front.line.shape == "hv"
    assert [trace.customdata[:, 0].tolist() for trace in (exact, read_off)] == [["wasteful", "same"], ["large"]]
    assert set(exact.marker.symbol) == {"circle"}
    assert set(read_off.marker.symbol) == {"circle-open"}
    assert list(marked.marker.symbol) == ["circle", "circle-open"]
    assert marked.marker.size > exact.marker.size


def test_a_model_without_a_number_is_left_out_and_one_model_is_a_figure():
    figure = pareto(TABLE.assign(mean=[10.0, np.nan, np.nan, np.nan, np.nan]))
    assert list(figure.data[1].x) == [1e8]
    with pytest.raises(ValueError, match="no row has both"):
        pareto(TABLE.assign(mean=np.nan))


def test_names_that_are_shown_do_not_meet():
    scores = mean_scores()
    names = place_names(scores["compute"], scores["mean"], scores["model"], first=["MiniMA-3B"])
    assert "MiniMA-3B" in names.texts
    assert sum(map(bool, names.texts)) > len(scores) / 2
    logs = np.log10(scores["compute"])
    across = WIDTH * (0.06 + 0.88 * (logs - logs.min()) / np.ptp(logs))
    up = HEIGHT * (0.06 + 0.88 * (scores["mean"] - scores["mean"].min()) / np.ptp(scores["mean"]))
    sides = [
        (left + 7, left + 7 + LETTER * len(text), low)
        for left, low, text, where in zip(across, up, *reversed(names), strict=True)
        if text and where == "middle right"
    ]
    for index, (start, stop, low) in enumerate(sides):
        for other_start, other_stop, other_low in sides[index + 1 :]:
            assert stop <= other_start or other_stop <= start or abs(low - other_low) >= 13


def test_models_on_one_spot_keep_one_name_unless_they_are_asked_for():
    spot = {"x": [1.0] * 12, "y": [1.0] * 12, "names": [f"model number {index}" for index in range(12)]}
    assert 1 <= sum(map(bool, place_names(**spot).texts)) < 12
    assert all(place_names(**spot, first=spot["names"]).texts)


def test_wrong_names_are_refused():
    with pytest.raises(UnknownName, match="Did you mean 'large'"):
        pareto(TABLE, highlight=("larg",))
    with pytest.raises(UnknownName, match="Did you mean 'compute'"):
        pareto(TABLE, x="computes")
