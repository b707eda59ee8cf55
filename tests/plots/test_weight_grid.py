"""The figure of a quantised layer holds the numbers it was given, whatever the kind of grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import UnknownName
from workbench.plots.weight_grid import weight_grid

HISTOGRAM = pd.DataFrame({"position": [0.0, 1.0, 2.0], "width": 1.0, "density": [0.25, 0.5, 0.25]})
LEVELS = pd.DataFrame({"level": [0.0, 1.0], "density": [0.4, 0.6]})
CELLS = np.array([[0.0, 0.1, 0.2], [0.3, 0.0, 0.0]])
OUTPUTS = pd.DataFrame({"output": [16.0, 48.0], "error": [0.01, 0.03]})


def figure(**changes) -> go.Figure:
    tables = {"histogram": HISTOGRAM, "levels": LEVELS, "cells": CELLS, "outputs": OUTPUTS} | changes
    return weight_grid(**tables, shape=(64, 96))


def test_bars_and_stems_have_the_densities_that_were_given():
    bars, stems, *_ = figure().data
    assert list(bars.y) == [0.25, 0.5, 0.25]
    np.testing.assert_array_equal(stems.y, [0.0, 0.4, np.nan, 0.0, 0.6, np.nan])
    np.testing.assert_array_equal(stems.x, [0, 0, 0, 1, 1, 1])


def test_the_map_has_its_cells_at_their_place_in_the_weight_and_outputs_from_above():
    heat = figure().data[2]
    np.testing.assert_allclose(heat.z, 100 * CELLS)
    assert list(heat.x) == [16, 48, 80]
    assert list(heat.y) == [16, 48]
    assert figure().layout.yaxis2.range == (64, 0) == figure().layout.yaxis3.range


def test_the_profile_tells_outputs_in_per_cent_beside_the_map():
    profile = figure().data[3]
    assert list(profile.x) == [1.0, 3.0]
    assert list(profile.y) == [16.0, 48.0]


def test_every_axis_is_titled_with_its_unit():
    layout = figure().layout
    titles = [layout[axis].title.text for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2", "xaxis3")]
    assert titles == ["weight, in steps of its group's grid", "share of weights per step", "input", "output",
                      "of its size (%)"]  # fmt: skip
    assert "weight (grid of" in weight_grid(
        HISTOGRAM, LEVELS, CELLS, OUTPUTS, shape=(64, 96), axis="weight"
    ).layout.xaxis.title.text  # fmt: skip


def test_256_levels_are_one_line_that_leaves_the_bars_to_be_seen():
    many = pd.DataFrame({"level": np.arange(256.0), "density": 1 / 256})
    stems = figure(levels=many).data[1]
    assert stems.mode == "lines"
    assert list(stems.x) == list(range(256))
    assert min(stems.y) > 0


def test_a_misspelt_or_empty_table_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'densities'"):
        figure(histogram=HISTOGRAM.rename(columns={"density": "densities"}))
    with pytest.raises(ValueError, match="levels has no rows"):
        figure(levels=LEVELS.iloc[:0])
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        weight_grid(HISTOGRAM, LEVELS, CELLS, OUTPUTS, shape=(64, 96), axis="step")
