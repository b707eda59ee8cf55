"""t over steps, and where the straight line is what holds it up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.schedules import binding, shaded, t_curves


def walk(schedule="adaptive", steps=10, lead=0.0, **more) -> pd.DataFrame:
    way = np.arange(steps + 1) / steps
    line = 0.2 + 0.8 * way
    t = line + lead * np.where(way <= 0.5, way * (1 - line), 0.0)
    return pd.DataFrame({"schedule": schedule, "step": np.arange(steps + 1), "t": t, "line": line} | more)


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_the_ground_is_shaded_exactly_where_t_is_the_line():
    (ground,) = named(t_curves(walk(lead=0.5)), "the line carries t")
    xs = [x for x in ground.x if x is not None]
    assert (min(xs), max(xs)) == (0.0, 10.0)
    assert 3.0 not in xs
    assert 6.0 in xs


def test_runs_of_the_line_become_closed_outlines():
    xs, ys = shaded(np.arange(6), np.array([True, False, True, True, False, True]), high=1.0)
    assert xs == [0, 0, 0, 0, None, 2, 2, 3, 3, None, 5, 5, 5, 5, None]
    assert set(ys) == {0.0, 1.0, None}
    assert shaded(np.arange(3), np.zeros(3, dtype=bool), high=1.0) == ([], [])


def test_rounding_does_not_lift_t_off_its_line():
    assert binding(np.array([0.3 + 1e-12, 0.31]), np.array([0.3, 0.3])).tolist() == [True, False]


def test_a_length_of_training_gets_its_own_panel_and_steps():
    table = pd.concat([walk(steps=400).assign(steps=400), walk(steps=16000).assign(steps=16000)])
    figure = t_curves(table)
    assert [note.text for note in figure.layout.annotations[:2]] == ["400 steps", "16,000 steps"]
    assert [max(trace.x) for trace in named(figure, "adaptive")] == [400, 16000]
    assert figure.layout.xaxis.matches is None


def test_several_schedules_get_strips_and_each_its_colour_for_every_course():
    table = pd.concat(
        [
            walk(name, lead=lead, course=course)
            for name, lead in (("slow", 0.0), ("fast", 0.5))
            for course in ("falling", "rising")
        ]
    )
    figure = t_curves(table)
    assert not named(figure, "the line carries t")
    (strip,) = named(figure, "slow, loss falling is on the line")
    assert np.isfinite(strip.y).all()
    (strip,) = named(figure, "fast, loss falling is on the line")
    assert np.isnan(strip.y[3])
    curves = [named(figure, f"{name}, loss rising")[0] for name in ("slow", "fast")]
    assert curves[0].line.color != curves[1].line.color
    assert curves[0].line.dash != curves[1].line.dash


def test_without_a_line_there_is_nothing_to_shade():
    (curve,) = t_curves(walk().drop(columns="line")).data
    assert curve.name == "adaptive"


def test_a_misspelt_column_or_an_empty_table_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'schedule'"):
        t_curves(walk(), group="schedul")
    with pytest.raises(ValueError, match="no rows"):
        t_curves(walk().head(0))
