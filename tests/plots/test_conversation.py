"""Figures of talking models: who is drawn how, and that zero inside an interval is seen."""

import pandas as pd
import pytest

from workbench.plots.conversation import gains, message_planes


def test_the_fill_tells_who_speaks_and_shape_and_colour_the_class():
    table = pd.DataFrame(
        {"step": step, "model": model, "label": label, "first": 0.0, "second": 1.0}
        for step in (5, 10)
        for model in ("student", "teacher")
        for label in (0, 1)
    )
    figure = message_planes(table)
    looks = {trace.name: (trace.marker.symbol, trace.marker.color) for trace in figure.data}
    assert looks["teacher, class 1"][0] == f"{looks['student, class 1'][0]}-open"
    assert looks["student, class 0"] != looks["student, class 1"]
    assert [note.text for note in figure.layout.annotations] == ["step 5", "step 10"]


def test_a_gain_is_filled_only_where_its_interval_leaves_zero_out():
    table = pd.DataFrame(
        [{"task": "parity", "method": "sure", "seed": seed, "gain": 0.1 + 0.001 * seed} for seed in range(5)]
        + [{"task": "parity", "method": "unsure", "seed": seed, "gain": 0.1 * (seed - 2)} for seed in range(5)]
    )
    (bars,) = gains(table).data
    assert list(bars.y) == ["sure", "unsure"]
    assert bars.x == pytest.approx([0.102, 0.0])
    # t with 4 degrees of freedom: 2.7764; the standard error of 0 to 4 thousandths is 0.7071 of them
    assert bars.error_x.array[0] == pytest.approx(2.7764 * 0.0007071, rel=1e-3)
    assert bars.marker.color[0] != bars.marker.color[1] == "rgba(0,0,0,0)"


def test_what_is_not_there_is_not_drawn():
    with pytest.raises(ValueError, match="no rows"):
        gains(pd.DataFrame())
    with pytest.raises(ValueError, match="'gain'"):
        gains(pd.DataFrame({"task": ["a"], "method": ["b"], "gains": [0.1]}))
