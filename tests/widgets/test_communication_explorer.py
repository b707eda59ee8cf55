"""The explorer of talking models shows what the run stored, and says what it shows."""

import numpy as np
import pandas as pd
import pytest

from workbench.metrics.uncertainty import t_interval
from workbench.widgets.communication_explorer import CommunicationExplorer


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    cells = [("labels only", 1), ("hint", 1), ("talk", 1), ("talk", 2)]
    return pd.DataFrame(
        {"task": task, "method": method, "rounds": rounds, "labels": labels, "seed": seed, "accuracy": random.random()}
        for task in ("parity", "genre")
        for method, rounds in cells
        for labels in (20, 80)
        for seed in range(5)
    )


@pytest.fixture
def messages():
    return pd.DataFrame(
        {"task": task, "step": step, "model": model, "label": label, "first": 0.1 * label, "second": 0.2}
        for task, classes in (("parity", 2), ("genre", 3))
        for step in (10, 20)
        for model in ("student", "teacher")
        for label in range(classes)
    )


def test_it_draws_the_interval_over_seeds_of_what_is_chosen(rows):
    explorer = CommunicationExplorer(rows)
    explorer.task.value, explorer.labels.value = "genre", 80
    chosen = rows.query("task == 'genre' and labels == 80 and method == 'hint'")["accuracy"]
    effect = t_interval(chosen)
    shown = explorer.shown.set_index("method").loc["hint"]
    assert (shown["estimate"], shown["high"], shown["n"]) == pytest.approx((effect.estimate, effect.high, 5))
    assert list(explorer.figure.data[0].y) == explorer.shown["method"].tolist()


def test_rounds_change_the_talk_and_leave_the_others(rows):
    explorer = CommunicationExplorer(rows)
    before = explorer.shown.set_index("method")["estimate"]
    explorer.rounds.value = 2
    after = explorer.shown.set_index("method")["estimate"]
    assert after["talk"] != before["talk"]
    assert after["hint"] == before["hint"]


def test_methods_are_switched_on_and_off_and_nothing_is_an_answer_too(rows):
    explorer = CommunicationExplorer(rows)
    explorer.methods["hint"].value = False
    assert explorer.shown["method"].tolist() == ["labels only", "talk"]
    assert "Talking gains" in explorer.sentence.value
    for button in explorer.methods.values():
        button.value = False
    assert explorer.shown.empty
    assert "Nothing is chosen" in explorer.sentence.value


def test_the_planes_follow_the_task(rows, messages):
    explorer = CommunicationExplorer(rows, messages)
    explorer.task.value = "genre"
    drawn = explorer.planes.children[0]
    assert len(drawn.data) == 2 * 2 * 3  # steps, models, classes
    assert {trace.name for trace in drawn.data} >= {"student, class 2", "teacher, class 2"}


def test_a_headless_run_keeps_still_figures(rows, messages, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUN", "somewhere")
    explorer = CommunicationExplorer(rows, messages)
    assert type(explorer.figure).__name__ == "Figure"
    assert type(explorer.planes).__name__ == "Figure"


def test_a_table_without_its_columns_is_refused(rows):
    with pytest.raises(ValueError, match="accuracy"):
        CommunicationExplorer(rows.drop(columns="accuracy"))
