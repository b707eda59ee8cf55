"""Figures of compression hold the numbers of the table that was given."""

import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.compression import (
    effects,
    metric_against_loss,
    norm_spectrum,
    published_against_loss,
    time_against_width,
)

SPECTRUM = pd.DataFrame(
    {"kind": ["column norm"] * 3 + ["singular value"] * 3, "rank": [1, 2, 3] * 2, "value": [3.0, 2.0, 1.0, 4.0, 1.0, 0]}
)
LADDER = pd.DataFrame(
    [
        {"model": model, "state": state, "seed": seed, "loss": loss + seed, "mnn_over_bound": 0.9, "entropy": loss / 9}
        for model in ("64x1", "64x3")
        for state, loss in (("untrained", 4.0), ("80 steps", 2.0))
        for seed in range(3)
    ]
)
PUBLISHED = pd.DataFrame(
    [
        {"family": family, "dataset": dataset, "model": model, "loss": loss, "mnn": 0.5, "matrix_entropy": 0.4,
         "suspicious": model == "13B"}
        for family in ("cerebras", "pythia")
        for dataset, loss in (("dolly", 2.0), ("piqa", None))
        for model in ("1B", "13B")
    ]
)  # fmt: skip


def test_both_spectra_stand_on_one_logarithmic_axis_and_zeros_are_left_out():
    figure = norm_spectrum(SPECTRUM, top=2)
    columns, singular = figure.data
    assert (list(columns.y), list(singular.y)) == ([3, 2, 1], [4, 1])
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.shapes[0].x0 == 2
    assert not norm_spectrum(SPECTRUM).layout.shapes


def test_a_model_is_a_line_through_the_means_of_its_states():
    figure = metric_against_loss(LADDER)
    assert len(figure.data) == 4
    line = figure.data[2]
    assert list(line.x) == [5.0, 3.0]
    assert list(line.y) == pytest.approx([4 / 9, 2 / 9])
    assert list(line.error_x.array) == pytest.approx([1 / 3**0.5] * 2)
    assert list(figure.data[0].text) == ["untrained", "80 steps"]


def test_suspicious_cells_are_open_and_data_sets_without_loss_have_no_panel():
    figure = published_against_loss(PUBLISHED, metrics={"mnn": "norm", "matrix_entropy": "entropy"})
    assert len(figure.data) == 4
    norm, entropy = figure.data[:2]
    assert [symbol.endswith("-open") for symbol in norm.marker.symbol] == [False, True]
    assert not any(symbol.endswith("-open") for symbol in entropy.marker.symbol)
    assert norm.customdata[1] == "13B (suspicious)"


def test_an_effect_that_covers_zero_is_an_open_point():
    table = pd.DataFrame(
        [
            {"operation": "shuffle", "measure": "mnn", "estimate": 0.1, "low": -0.1, "high": 0.3, "n": 9},
            {"operation": "reverse", "measure": "mnn", "estimate": 0.2, "low": 0.1, "high": 0.4, "n": 9},
        ]
    )
    (points,) = effects(table, measures={"mnn": "norm"}).data
    assert list(points.marker.symbol) == ["circle-open", "circle"]
    assert points.x[1] - points.error_x.arrayminus[1] == pytest.approx(0.1)
    assert points.x[1] + points.error_x.array[1] == pytest.approx(0.4)


def test_the_line_of_memory_is_two_reads():
    rows = [{"what": what, "width": width, "cpu_ms": time * width}
            for what, time in (("ours", 4.0), ("one read", 0.5)) for width in (64, 128)]  # fmt: skip
    ours, memory = time_against_width(pd.DataFrame(rows)).data
    assert list(ours.y) == [256, 512]
    assert list(memory.y) == [64, 128]
    assert memory.line.dash == "dash"


def test_a_misspelt_or_empty_table_is_refused():
    with pytest.raises(UnknownName, match="value"):
        norm_spectrum(SPECTRUM.drop(columns="value"))
    with pytest.raises(UnknownName, match="Did you mean 'entropy'"):
        metric_against_loss(LADDER, metrics=("entrpy",))
    with pytest.raises(ValueError, match="no rows"):
        published_against_loss(PUBLISHED[PUBLISHED["loss"].isna()], metrics={"mnn": "norm"})
    with pytest.raises(ValueError, match="no rows"):
        effects(pd.DataFrame(), measures={"mnn": "norm"})
