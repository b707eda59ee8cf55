"""Fits of one Gaussian to a mixture: what is drawn is where they ended."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.gaussians import count_ends, fit_paths, fitted_gaussians

X = np.linspace(-8, 8, 801)
MIXTURE = pd.DataFrame({"x": X, "density": np.exp(-((np.abs(X) - 3) ** 2)) / (2 * np.sqrt(np.pi))})


def fits(objectives=("forward KL", "reverse KL"), starts=("left", "right")) -> pd.DataFrame:
    """Forward KL ends in the middle from everywhere, others in the mode on their side."""
    rows = []
    for objective in objectives:
        for sign, start in zip((-1, 1), starts, strict=False):
            end = (0.0, 3.0) if objective == "forward KL" else (3.0 * sign, 0.7)
            rows += [(objective, start, step, *place, 0.1) for step, place in ((0, (sign, 1.0)), (100, end))]
    return pd.DataFrame(rows, columns=["objective", "start", "step", "mean", "sd", "value"])


def lines(figure, start):
    return [trace for trace in figure.data if trace.name == start]


def test_each_panel_shows_the_mixture_and_the_last_gaussian_of_every_start():
    figure = fitted_gaussians(fits().sample(frac=1, random_state=0), MIXTURE)
    assert sum(trace.fill == "tozeroy" for trace in figure.data) == 2
    for trace in lines(figure, "left") + lines(figure, "right"):
        assert np.trapezoid(trace.y, trace.x) == pytest.approx(1, abs=0.02)
    assert {round(float(trace.x[np.argmax(trace.y)]), 2) for trace in lines(figure, "left")} == {0.0, -3.0}


def test_panel_titles_count_the_ends():
    titles = [note.text for note in fitted_gaussians(fits(), MIXTURE).layout.annotations]
    assert titles == ["forward KL: 2 starts, 1 end", "reverse KL: 2 starts, 2 ends"]


def test_ends_count_as_one_only_while_both_mean_and_sd_agree():
    ends = pd.DataFrame({"mean": [0.0, 0.01, 0.0], "sd": [1.0, 1.0, 2.0]})
    assert count_ends(ends) == 2
    assert count_ends(ends.head(2)) == 1


def test_every_line_of_a_start_is_named_once_in_the_legend_and_looks_the_same_everywhere():
    figure = fitted_gaussians(fits(), MIXTURE)
    for start in ("left", "right"):
        assert sum(trace.showlegend is not False for trace in lines(figure, start)) == 1
        assert len({(trace.line.color, trace.line.dash) for trace in lines(figure, start)}) == 1
    assert len({trace.line.dash for trace in figure.data if trace.name in ("left", "right")}) == 2


def test_one_objective_and_one_start_still_make_a_figure():
    figure = fitted_gaussians(fits(("forward KL",), ("left",)), MIXTURE)
    assert figure.layout.annotations[0].text == "forward KL: 1 start"
    assert len(figure.data) == 2


def test_paths_hold_the_means_over_steps_in_order():
    figure = fit_paths(fits().iloc[::-1], marks={"a mode": 3.0})
    first = next(trace for trace in figure.data if trace.name == "left")
    assert (list(first.x), list(first.y)) == ([0, 100], [-1.0, -3.0])  # the reversed table begins with reverse KL
    assert [shape.y0 for shape in figure.layout.shapes] == [3.0, 3.0]


def test_a_misspelt_column_or_an_empty_table_is_refused():
    with pytest.raises(UnknownName, match="density='density' is not one of 'x', 'densities'"):
        fitted_gaussians(fits(), MIXTURE.rename(columns={"density": "densities"}))
    with pytest.raises(UnknownName, match="Did you mean 'objective'"):
        fit_paths(fits(), group="objectives")
    with pytest.raises(ValueError, match="fits has no rows"):
        fitted_gaussians(fits().head(0), MIXTURE)
