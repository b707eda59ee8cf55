"""Curves grow as points come, and a real training loop feeds them."""

import pytest
import torch

from workbench.telemetry import Point, Stopped, Watcher, watched
from workbench.training.loop import fit
from workbench.widgets.live_curves import POINTS_SHOWN, SERIES_SHOWN, LiveCurves


def quadratic(model, _batch):
    return (model.weight**2).sum()


@pytest.fixture
def model():
    return torch.nn.Linear(3, 1, bias=False)


def test_points_of_one_series_make_one_curve_in_their_order():
    curves = LiveCurves()
    curves.add([Point("loss", 1, 3.0), Point("other", 1, 9.0)])
    curves.add([Point("loss", 2, 2.0)])
    drawn = {trace.name: (list(trace.x), list(trace.y)) for trace in curves.figure.data}
    assert drawn == {"loss": ([1, 2], [3.0, 2.0]), "other": ([1], [9.0])}


def test_the_figure_appears_with_the_first_point_and_goes_when_cleared():
    curves = LiveCurves()
    assert curves.figure in curves.children
    assert curves.layout.display == "none"
    curves.add([Point("loss", 1, 3.0)])
    assert not curves.layout.display
    curves.clear()
    assert curves.layout.display == "none"
    assert not curves.points


def test_a_long_curve_is_thinned_but_ends_at_its_latest_point():
    curves = LiveCurves()
    curves.add([Point("loss", step, -step) for step in range(10 * POINTS_SHOWN)])
    (trace,) = curves.figure.data
    assert len(trace.x) <= POINTS_SHOWN
    assert trace.x[-1] == 10 * POINTS_SHOWN - 1


def test_of_many_series_the_latest_are_shown_and_all_are_kept():
    curves = LiveCurves()
    for index in range(2 * SERIES_SHOWN):
        curves.add([Point(f"seed {index}", 1, index)])
    assert len(curves.points) == 2 * SERIES_SHOWN
    assert [trace.name for trace in curves.figure.data] == [f"seed {i}" for i in range(SERIES_SHOWN, 2 * SERIES_SHOWN)]


def test_a_training_loop_publishes_the_losses_that_its_history_records(model):
    with watched(Watcher()) as watcher:
        history = fit(model, [None], quadratic, steps=30, lr=0.01, label="linear")
    recorded = history.table[history.table["quantity"] == "loss"]
    points = watcher.take_points()
    assert {point.series for point in points} == {"linear"}
    assert [point.value for point in points] == recorded["value"].tolist()
    assert [point.step for point in points] == recorded["step"].tolist()


@pytest.mark.parametrize("label", ["linear", None])
def test_a_training_loop_ends_at_the_step_where_it_is_stopped(model, label):
    steps = []
    with watched(Watcher()) as watcher, pytest.raises(Stopped):

        def on_step(step, _known):
            steps.append(step)
            if step == 3:
                watcher.stop()

        fit(model, [None], quadratic, steps=30, lr=0.01, label=label, on_step=on_step)
    assert steps == [1, 2, 3]
