"""Talking models: every method starts from the same student, controls are what they say, claims pair seeds."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.errors import AssetError
from workbench.experiments import talking_models as experiment
from workbench.training.downstream import DIGIT_TASKS, digit_accuracy, digit_teacher, digits_task, task_and_teacher
from workbench.training.interactive_grid import METHODS, UNTRAINED, Cell, Setting, make_model, train_cell


@pytest.fixture(scope="module")
def config():
    return experiment.Config.of("smoke")


@pytest.fixture(scope="module")
def prepared(config):
    return experiment.prepare(config)


@pytest.fixture(scope="module")
def found(config, prepared):
    return experiment.teach_students(config, prepared)


@pytest.fixture(scope="module")
def result(config, found):
    return experiment.conclude(config, found)


def test_every_method_teaches_every_seed_once(config, result):
    cells = result.rows.groupby(["task", "method", "rounds", "labels"])["seed"].apply(tuple)
    assert set(cells) == {config.seeds}
    wanted = {(task, method) for task in config.tasks for method, _ in experiment.methods_of(config, task)}
    assert set(zip(result.rows["task"], result.rows["method"], strict=True)) == wanted


def test_all_methods_of_a_seed_begin_with_the_same_student(config):
    task = digits_task("parity", (3,))
    students = [make_model(method, task, 8, 1, 3).student.state_dict() for method in METHODS[:-1]]
    for student in students[1:]:
        assert all(torch.equal(student[name], weight) for name, weight in students[0].items())


def test_what_is_deployed_answers_as_what_was_trained(result):
    assert result.rows["deployment_gap"].max() == 0


def test_talk_and_its_control_have_the_same_added_parameters(result):
    added = result.rows.groupby(["task", "method"])["added_parameters"].first()
    for task in ("parity", "genre"):
        assert added[task, "talk"] == added[task, "hint, same modules"] == added[task, "labels only, same modules"]
    assert added["parity", "labels only"] == 0
    # student 16 <-> 32 and teacher 128 <-> 32, each with biases
    assert added["parity", "talk"] == 16 * 32 * 2 + 32 + 16 + 128 * 32 * 2 + 32 + 128
    sizes = result.rows.groupby("task")["parameters"].unique()
    assert 64 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2 in sizes["parity"]


def test_test_inputs_are_never_trained_on_and_labels_are_nested():
    for name in DIGIT_TASKS:
        for draw in digits_task(name, (0, 1)).draws:
            assert not set(draw.pool.tolist()) & set(draw.test.tolist())
            first = draw.labels[draw.pool[:20]]
            assert first.bincount().tolist() == [10, 10]


def test_a_task_of_plays_shares_no_play(config, prepared):
    task = experiment.load_task(config, prepared, "genre")
    texts = prepared["genre"].texts
    for draw in task.draws:
        plays = [{texts[row].group for row in part.tolist()} for part in (draw.pool, draw.test)]
        assert not plays[0] & plays[1]


def test_the_negative_control_has_no_unlabelled_inputs_and_the_untrained_teacher_knows_nothing():
    assert not digits_task("halves", (0,)).unlabelled
    assert digits_task("parity", (0,)).unlabelled
    assert digit_accuracy(digit_teacher()) > 0.9
    assert digit_accuracy(digit_teacher(trained=False)) < 0.3


def test_students_side_by_side_learn_what_each_learns_alone():
    setting = Setting(steps=5, batch_size=8, message_dim=8)
    together = train_cell(Cell("parity", UNTRAINED, 1, (20,), (0, 1), setting)).rows
    alone = train_cell(Cell("parity", UNTRAINED, 1, (20,), (1,), setting)).rows
    # The scale of messages is one for all seeds of a cell, so the trajectories are near, not equal.
    assert together.query("seed == 1")["accuracy"].item() == pytest.approx(alone["accuracy"].item(), abs=0.03)


def test_two_runs_are_equal(config, prepared, found):
    again = experiment.teach_students(config, prepared)
    pd.testing.assert_frame_equal(again.rows, found.rows)
    pd.testing.assert_frame_equal(again.messages, found.messages)


def test_curves_hold_every_term_of_a_talk(config, found):
    terms = set(found.curves.query("method == 'talk'")["term"])
    assert terms == {"task", "interact", "message", "state"}
    assert set(found.curves.query("method == 'talk without message'")["term"]) == terms - {"message"}
    assert set(found.messages["model"]) == {"student", "teacher"}
    assert set(found.messages["task"]) == set(config.tasks)


def test_differences_pair_seeds_over_label_counts():
    rows = pd.DataFrame(
        {"task": "parity", "method": method, "rounds": 1, "labels": labels, "seed": seed, "teacher_accuracy": np.nan,
         "accuracy": base + 0.01 * labels + 0.1 * seed}
        for method, base in (("labels only", 0.1), ("talk", 0.3)) for labels in (1, 2) for seed in (0, 1)
    )  # fmt: skip
    gained = experiment.differences(rows)
    assert gained["method"].unique().tolist() == ["talk"]
    assert gained["gain"].to_numpy() == pytest.approx([0.2, 0.2])


def test_smoke_judges_nothing_and_every_claim_names_its_source(result):
    assert set(result.check()["verdict"]) == {"not judged"}
    assert all(claim.source for claim in result.claims)
    assert all(claim.published is None for claim in result.claims)  # no number of the paper was read


def test_only_what_needs_no_luck_gates(result):
    gating = [claim.statement for claim in result.claims if claim.gating]
    assert all("teacher knows more" in statement or "deployed" in statement for statement in gating)


def test_a_teacher_of_texts_is_named_behind_the_task():
    assert task_and_teacher("genre@smollm2-135m") == ("genre", "smollm2-135m")
    assert task_and_teacher("speaker") == ("speaker", "minilm")
    assert task_and_teacher("parity") == ("parity", "")


def test_ones_own_folder_is_a_task(tmp_path):
    for label, words in (("sea", "wave foam sail "), ("land", "hill stone plough ")):
        (tmp_path / label).mkdir()
        for name in ("one", "two", "three"):
            (tmp_path / label / f"{name}.txt").write_text(words * 200)
    config = experiment.Config.of("smoke", tasks=["parity", str(tmp_path)], texts=24)
    rows = experiment.run(config).rows
    assert set(rows["task"]) == {"parity", str(tmp_path)}
    assert rows["accuracy"].between(0, 1).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"tasks": ("genre",)}, "lacks 'parity'"),
        ({"tasks": ("parity", "genr")}, "Did you mean 'genre'"),
        ({"tasks": ("parity", "halves@minilm")}, "digits have their own teacher"),
        ({"tasks": ("parity", "genre@minilmm")}, "Did you mean 'minilm'"),
        ({"label_counts": (80, 20)}, "must rise"),
        ({"rounds": (2, 3)}, "begin with 1"),
        ({"seeds": ()}, "seeds"),
        ({"batch_size": 1}, "at least 2"),
        ({"text_steps": 0}, "text_steps"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)


def test_the_papers_own_setting_says_at_once_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = time.process_time()
    with pytest.raises(AssetError, match="lacks here: a GPU"):
        experiment.run(experiment.Config.of("paper"))
    assert time.process_time() - before < 5
