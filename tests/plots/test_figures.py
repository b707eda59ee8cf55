"""Figures hold the numbers of the table that was given."""

import numpy as np
import pandas as pd
import pytest

from workbench.claim import Claim, Effect
from workbench.errors import UnknownName
from workbench.plots import curves, verdicts, with_errors
from workbench.plots.axes import compact, log_ticks
from workbench.plots.verdicts import LOOKS, SIGNS
from workbench.runs.gallery import words

ROWS = pd.DataFrame(
    [
        {"loss": loss, "size": size, "seed": seed, "nats": nats + 0.1 * seed}
        for loss, size, nats in (("kl", 100, 2.0), ("kl", 10, 3.0), ("mse", 100, 2.5))
        for seed in range(3)
    ]
)


def test_a_point_is_the_mean_over_seeds_and_its_bar_the_standard_error():
    line = with_errors(ROWS, x="size", y="nats", group="loss").data[0]
    assert list(line.x) == [10, 100]
    assert list(line.y) == pytest.approx([3.1, 2.1])
    assert list(line.error_y.array) == pytest.approx([0.1 / np.sqrt(3)] * 2)


def test_names_on_the_x_axis_stay_in_the_tables_order():
    rows = pd.DataFrame({"loss": ["skew", "kl", "adaptive"], "nats": [1.0, 2.0, 3.0]})
    assert list(with_errors(rows, x="loss", y="nats").data[0].x) == ["skew", "kl", "adaptive"]


def test_one_seed_has_no_error_bar_and_no_band():
    rows = ROWS[ROWS["seed"] == 0]
    assert np.isnan(with_errors(rows, x="size", y="nats", group="loss").data[0].error_y.array).all()
    assert all(trace.fill is None for trace in curves(rows, x="size", y="nats", group="loss").data)


def test_a_recalled_number_is_an_open_grey_star_and_a_read_one_has_its_groups_colour():
    published = pd.DataFrame(
        {"size": [10, 100], "loss": ["kl", "mse"], "published": [3.0, 2.4], "status": ["recalled", "read"]}
    )
    first, second, recalled, read = with_errors(ROWS, x="size", y="nats", group="loss", published=published).data
    assert (recalled.marker.symbol, read.marker.symbol) == ("star-open", "star")
    assert read.marker.color[0] == second.marker.color != first.marker.color
    assert recalled.name == "published (recalled)"


def test_the_band_of_range_goes_from_the_lowest_to_the_highest_seed():
    band, line = curves(ROWS[ROWS["loss"] == "kl"], x="size", y="nats", band="range").data
    assert list(band.y) == pytest.approx([3.2, 2.2, 2.0, 3.0])
    assert list(line.y) == pytest.approx([3.1, 2.1])


def test_a_misspelt_column_or_band_is_asked_about():
    with pytest.raises(UnknownName, match="Did you mean 'nats'"):
        with_errors(ROWS, x="size", y="nat")
    with pytest.raises(UnknownName, match="Did you mean 'range'"):
        curves(ROWS, x="size", y="nats", band="rang")
    with pytest.raises(ValueError, match="no rows"):
        curves(ROWS.head(0), x="size", y="nats")


def test_a_logarithmic_axis_has_round_ticks_inside_the_data():
    assert log_ticks([20, 60, 600]) == [20, 50, 100, 200, 500]
    assert log_ticks([1e4, 1e9]) == [1e4, 1e5, 1e6, 1e7, 1e8, 1e9]
    assert 2 <= len(log_ticks([1.9, 2.1])) <= 9
    with pytest.raises(ValueError, match="above 0"):
        log_ticks([-1.0, 0.0])


def test_a_figure_of_many_groups_grows_by_what_its_legend_needs():
    heights = [
        with_errors(ROWS.assign(loss=ROWS.index % groups), x="size", y="nats", group="loss").layout.height
        for groups in (1, 4, 9)
    ]
    assert heights[0] == heights[1] < heights[2]


def test_large_numbers_are_short_on_an_axis():
    shown = [compact(value) for value in (0.02, 1500, 20_000, 1.5e6, 7e9)]
    assert shown == ["0.02", "1500", "20k", "1.5M", "7B"]


CLAIMS = pd.DataFrame(
    [
        claim.as_dict()
        for claim in (
            Claim("Larger is better", Effect(0.2, 0.1, 0.3, 5), above=0.0),
            Claim("Smaller is better", Effect(0.2, 0.1, 0.3, 5), below=0.0),
            Claim("It makes no difference", Effect(0.01, -0.1, 0.12, 5), above=-0.05, below=0.05),
            Claim("One seed tells", Effect(0.2, float("nan"), float("nan"), 1), above=0.0),
        )
    ]
)


def test_the_verdict_is_told_by_a_sign_and_a_marker_not_by_colour_alone():
    figure = verdicts(CLAIMS)
    assert [trace.marker.symbol for trace in figure.data] == ["circle", "x", "diamond-open", "diamond-open"]
    assert [note.text[0] for note in figure.layout.annotations] == ["✓", "✗", "~", "~"]
    assert len({symbol for symbol, _ in LOOKS.values()}) == len({*SIGNS.values()}) == len(SIGNS)


def test_intervals_and_thresholds_stand_where_the_claim_says():
    figure = verdicts(CLAIMS)
    first, last = figure.data[0], figure.data[-1]
    assert (first.x[0] - first.error_x.arrayminus[0], first.x[0] + first.error_x.array[0]) == pytest.approx((0.1, 0.3))
    assert last.error_x.array is None  # one seed: no interval is drawn
    edges = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert edges == [0.0, 0.0, -0.05, 0.05, 0.0]


def test_figures_and_pages_use_the_same_signs():
    assert words.SIGNS == SIGNS
