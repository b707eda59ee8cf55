"""Figures of the quantization paper hold the numbers of the tables that were given."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.bits import loss_by_bits
from workbench.plots.dimensions import dimension_panels
from workbench.plots.proxy import proxy_panels
from workbench.plots.speed_memory import speed_memory

VARIANTS = pd.DataFrame(
    [
        {"model": "a", "variant": name, "method": method, "bits_per_weight": bits, "perplexity": value + 0.1 * seed}
        for name, method, bits, value in (
            ("not quantised", "not quantised", 32.0, 5.0),
            ("RTN, 4 bits", "RTN", 4.5, 6.0),
            ("RTN, 2 bits", "RTN", 2.5, 50.0),
            ("GPTQ, 4 bits", "GPTQ", 4.5, 5.5),
        )
        for seed in range(3)
    ]
)


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_a_marker_is_the_mean_over_seeds_and_the_dashed_line_the_model_as_it_was():
    found = traces(loss_by_bits(VARIANTS))
    assert list(found["RTN"].y) == pytest.approx([6.1, 50.1])
    assert list(found["RTN"].error_y.array) == pytest.approx([0.1 / np.sqrt(3)] * 2)
    assert list(found["not quantised"].y) == pytest.approx([5.1, 5.1])
    assert 32.0 not in found["RTN"].x


def test_the_front_of_losses_leaves_out_what_another_beats_with_as_few_bits():
    front = traces(loss_by_bits(VARIANTS))["front"]
    assert list(zip(front.x, front.y, strict=True)) == [(2.5, pytest.approx(50.1)), (4.5, pytest.approx(5.6))]


def test_a_collapse_beyond_the_ceiling_is_a_triangle_at_it_without_an_error_bar():
    found = traces(loss_by_bits(VARIANTS, ceiling=10.0))["RTN"]
    assert list(found.y) == pytest.approx([6.1, 10.0])
    assert list(found.marker.symbol)[1] == "triangle-up-open"
    assert np.isnan(found.error_y.array[1])
    assert found.customdata[1][1] == pytest.approx(50.1)  # what it really is stands in the hover text


def test_a_table_of_float_models_alone_is_refused():
    with pytest.raises(ValueError, match="no quantised model"):
        loss_by_bits(VARIANTS[VARIANTS["method"] == "not quantised"])
    with pytest.raises(UnknownName, match="Did you mean 'perplexity'"):
        loss_by_bits(VARIANTS, y="perplexty")


def test_every_benchmark_has_a_panel_whose_title_says_rho():
    table = pd.DataFrame(
        {
            "benchmark": ["cloze"] * 3 + ["truth"] * 3, "model": "a", "variant": list("xyz") * 2,
            "perplexity": [5.0, 6.0, 9.0] * 2, "score": [0.5, 0.4, 0.3, 0.6, 0.6, 0.5],
            "chance": [0.25] * 3 + [None] * 3,
        }
    )  # fmt: skip
    rho = pd.DataFrame({"benchmark": ["cloze"], "estimate": [1.0], "low": [0.5], "high": [1.0]})
    figure = proxy_panels(table, rho)
    assert [note.text for note in figure.layout.annotations[:2]] == ["cloze<br>ρ = 1.00 [0.50, 1.00]", "truth"]
    assert len(figure.layout.shapes) == 1  # the line of chance, where there is one
    assert list(figure.data[1].y) == [0.6, 0.6, 0.5]


def test_dimensions_show_every_measure_with_its_own_scale_and_the_reference_as_a_line():
    table = pd.DataFrame(
        [
            {
                "dimension": kind,
                "measure": name,
                "variant": variant,
                "value": value,
                "low": value - 1,
                "high": value + 2,
            }
            for kind, name in (("knowledge", "nats"), ("efficiency", "bytes"))
            for variant, value in (("not quantised", 3.0), ("RTN, 4 bits", 4.0))
        ]
    )
    figure = dimension_panels(table)
    assert [list(trace.x) for trace in figure.data] == [[3.0, 4.0]] * 2
    assert list(figure.data[0].error_x.array) == [2.0, 2.0]
    assert list(figure.data[0].error_x.arrayminus) == [1.0, 1.0]
    assert [shape.x0 for shape in figure.layout.shapes] == [3.0, 3.0]
    assert figure.data[0].marker.color != figure.data[1].marker.color


def test_memory_and_speed_join_what_is_one_model_and_mark_what_was_not_read_at_its_source():
    table = pd.DataFrame(
        {
            "model": ["a", "a", "b"], "precision": ["BF16", "Int4", "BF16"], "memory": [100.0, 30.0, 900.0],
            "speed": [10.0, 8.0, 2.0], "status": ["read", "secondary", "read"],
        }
    )  # fmt: skip
    figure = speed_memory(table, status="status")
    assert [trace.name for trace in figure.data] == ["b", "a"]
    found = traces(figure)["a"]
    assert list(found.x) == [100.0, 30.0]
    assert found.text[1] == "Int4 §"
    with pytest.raises(UnknownName, match="Did you mean 'speed'"):
        speed_memory(table, y="sped")
