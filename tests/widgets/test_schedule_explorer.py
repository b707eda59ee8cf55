"""The schedule under the hand, without kernel or browser."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import UnknownName
from workbench.losses import TAIDSchedule
from workbench.widgets.schedule_explorer import COURSES, LENGTHS, ScheduleExplorer


def test_the_walk_is_that_of_the_schedule_itself():
    explorer = ScheduleExplorer()
    explorer.steps.value, explorer.alpha.value, explorer.t_start.value = 400, 0.02, 0.3
    schedule = TAIDSchedule(t_start=0.3, alpha=0.02, beta=0.99)
    losses = COURSES["falling"](np.arange(401) / 400)
    by_hand = [0.3] + [schedule.update(losses[step], step, 400) for step in range(1, 401)]
    np.testing.assert_allclose(explorer.trace["t"], by_hand, atol=1e-12)
    assert explorer.figure.data[2].y[-1] == pytest.approx(1.0)


def test_with_the_papers_alpha_a_short_run_is_the_straight_line_and_the_sentence_says_so():
    explorer = ScheduleExplorer()
    explorer.steps.value = 4000
    assert explorer.lead < 0.005
    assert "is the straight line" in explorer.sentence.value
    assert "2.0e-03" in explorer.sentence.value
    explorer.scale.click()
    assert explorer.alpha.value == pytest.approx(8 / 4000)
    assert explorer.lead > 0.2
    assert f"{explorer.lead:.3f} ahead" in explorer.sentence.value


def test_the_longest_run_is_far_ahead_of_its_line():
    explorer = ScheduleExplorer()
    explorer.steps.value = LENGTHS[-1]
    assert explorer.lead == pytest.approx(float((explorer.trace["t"] - explorer.trace["line"]).max()))
    assert explorer.lead > 0.3
    assert len(explorer.figure.data[2].x) <= 400  # what is drawn is thinned, not what is computed
    assert explorer.figure.data[2].x[-1] == LENGTHS[-1]


def test_a_falling_and_a_rising_loss_hardly_differ():
    explorer = ScheduleExplorer()
    falling = explorer.trace["t"].to_numpy()
    explorer.course.value = "rising"
    assert 0 < np.abs(explorer.trace["t"].to_numpy() - falling).max() < 0.01


def test_a_recorded_loss_is_followed_from_its_first_step_to_its_last():
    steps = np.arange(10, 110, 10)
    recorded = pd.DataFrame({"step": np.tile(steps, 2), "value": np.concatenate([3 - steps / 50, 5 - steps / 50])})
    explorer = ScheduleExplorer(recorded)
    assert explorer.course.value == "recorded"
    explorer.steps.value, explorer.beta.value, explorer.alpha.value = 100, 0.0, 0.1
    schedule = TAIDSchedule(t_start=0.2, alpha=0.1, beta=0.0)
    means = np.interp(np.arange(101) / 100, (steps - 10) / 90, 4 - steps / 50)
    by_hand = [0.2] + [schedule.update(means[step], step, 100) for step in range(1, 101)]
    np.testing.assert_allclose(explorer.trace["t"], by_hand, atol=1e-12)


def test_the_shading_goes_where_the_line_binds():
    explorer = ScheduleExplorer()
    explorer.steps.value = 400
    assert max(x for x in explorer.figure.data[0].x if x is not None) == 400
    assert "less than" not in explorer.sentence.value
    explorer.alpha.value = 0.3
    ground = [x for x in explorer.figure.data[0].x if x is not None]
    assert 200 not in ground


def test_a_recorded_table_that_cannot_be_followed_is_refused():
    with pytest.raises(UnknownName, match="value"):
        ScheduleExplorer(pd.DataFrame({"step": [1], "loss": [2.0]}))
    with pytest.raises(ValueError, match="no finite value"):
        ScheduleExplorer(pd.DataFrame({"step": [1], "value": [np.nan]}))


def test_without_anybody_looking_the_figure_is_a_plain_one(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    explorer = ScheduleExplorer()
    assert type(explorer.figure) is go.Figure
    explorer.steps.value = 400
    assert explorer.figure.to_json()
