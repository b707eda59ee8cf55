"""What one press of the bench asks for, and a student trained, stopped, and taken up again."""

import math

import numpy as np
import pytest
import torch

from workbench.losses import LOSSES
from workbench.models.pretrained import load_pretrained
from workbench.telemetry import Stopped, Watcher, watched
from workbench.training.bench_run import StudentRun, check_teacher, loss_names, objective_named, plan_runs
from workbench.training.bench_student import save_student, train_student
from workbench.training.bench_teacher import bench_text, load_teacher, measure_teacher
from workbench.training.objective import NO_TEACHER, DistillationLoss

RECIPE = {
    "corpus": "shakespeare", "vocabulary": "characters", "context": 16, "steps": 20, "batch_size": 4,
    "teacher_steps": 10,
}  # fmt: skip


def planned(teachers=("32x1",), student="16x1", losses=("forward_kl",), seeds=(0,), **options):
    return plan_runs(teachers, student, losses, seeds, **RECIPE | options)


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """A corpus of one file, long enough to hold four blocks out."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    lines = [f"{line} and {line * line} make {line * (line + 1)}.\n\n" for line in range(3000)]
    (tmp_path / "sums.txt").write_text("".join(lines))
    return str(tmp_path / "sums.txt")


def test_every_teacher_meets_every_loss_and_seed_and_the_reference_is_trained_once_per_vocabulary():
    runs = planned(("32x1", "64x1", "smollm2-135m"), losses=("cross_entropy", "forward_kl"), seeds=(0, 1))
    taught = [run for run in runs if run.teacher != NO_TEACHER]
    alone = [run for run in runs if run.teacher == NO_TEACHER]
    assert len(taught) == 3 * 2
    assert {(run.vocabulary, run.seed) for run in alone} == {
        ("characters", 0), ("characters", 1), ("smollm2-135m", 0), ("smollm2-135m", 1),
    }  # fmt: skip
    assert len(alone) == 4
    assert {run.vocabulary for run in taught if run.teacher == "smollm2-135m"} == {"smollm2-135m"}
    # What a teacher's training has no part in must not make two runs of one.
    assert {run.teacher_steps for run in alone} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teachers": ()}, "teachers is empty"),
        ({"losses": ()}, "losses is empty"),
        ({"seeds": (1, 1)}, "seeds holds 1 twice"),
        ({"seeds": ("a",)}, "seeds"),
        ({"teachers": ("smollm2-136m",)}, "Did you mean 'smollm2-135m'"),
        ({"teachers": ("minilm",)}, "A teacher is a size"),
        ({"teachers": ("48x0",)}, "layers"),
        ({"student": "small"}, "width x layers"),
        ({"losses": ("forward_lk",)}, "Did you mean 'forward_kl'"),
        ({"vocabulary": "words"}, "vocabulary='words' must be"),
        ({"steps": 0}, "steps"),
        ({"teacher_steps": 0}, "teacher_steps"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        planned(**options)


def test_hub_names_and_folders_are_teachers(tmp_path):
    for name in ("owner/name", str(tmp_path), "64x2", "smollm2-135m"):
        check_teacher(name)


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_that_is_offered_pulls_a_student(name):
    objective = objective_named(name, steps=10)
    loss = DistillationLoss.of(objective, total_steps=10)
    student = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1))
    value = loss(student, teacher, torch.zeros(2, 3, dtype=torch.long))
    value.backward()
    assert value.dim() == 0
    assert student.grad.abs().sum() > 0


def test_the_losses_on_two_sets_of_logits_are_all_offered():
    assert {"forward_kl", "reverse_kl", "jeffreys", "symmetric_kl", "generalized_jsd", "taid"} <= set(loss_names())
    assert set(loss_names()) <= {*LOSSES, "cross_entropy", "taid_linear", "minima"}


def test_a_student_stopped_and_taken_up_again_ends_as_one_that_was_not_and_shows_its_whole_curve(blocks, tmp_path):
    (run,) = planned(corpus=blocks, losses=("taid",))
    text, teacher = bench_text(run), load_teacher(run)
    facts = measure_teacher(run, teacher, text)
    whole = train_student(run, teacher, facts, text)
    file, watcher = tmp_path / "checkpoint.pt", Watcher()
    with watched(watcher), pytest.raises(Stopped):
        train_student(
            run, teacher, facts, text, checkpoint=file, on_step=lambda step: watcher.stop() if step == 7 else None
        )
    assert torch.load(file, weights_only=True)["step"] == 7
    points = []
    parts = train_student(run, teacher, facts, text, checkpoint=file, on_point=points.append)
    measured = ["nats", "accuracy", "kl_to_teacher"]
    assert [parts.row[name] for name in measured] == [whole.row[name] for name in measured]
    assert all(map(torch.equal, parts.model.parameters(), whole.model.parameters()))
    assert parts.curve[["step", "nats"]].equals(whole.curve[["step", "nats"]])
    assert [point.step for point in points] == list(range(1, 21))  # those before the stop are told again
    assert np.all(np.diff(parts.curve["seconds"]) > 0)
    assert parts.row["seconds"] == parts.curve["seconds"].iloc[-1]


def test_the_reference_learns_without_a_teacher_and_its_columns_are_empty(blocks):
    (run,) = planned(corpus=blocks, losses=("cross_entropy",), steps=60)
    text = bench_text(run)
    assert load_teacher(run) is None
    found = train_student(run, None, None, text)
    assert found.row["teacher"] == NO_TEACHER
    assert math.isnan(found.row["teacher_parameters"])
    assert math.isnan(found.row["kl_to_teacher"])
    assert found.curve["nats"].iloc[-1] < found.curve["nats"].iloc[0] - 0.5
    assert found.row["nats"] == found.curve["nats"].iloc[-1]  # one text, one number


def test_a_trained_student_is_a_pretrained_model_that_can_teach_the_next_one(blocks, tmp_path):
    (run,) = planned(corpus=blocks, losses=("cross_entropy",))
    text = bench_text(run)
    found = train_student(run, None, None, text)
    folder = tmp_path / "model"
    save_student(found, run, text, folder)
    model, tokenizer = load_pretrained(folder)
    windows = text.windows[:2]
    with torch.no_grad():
        torch.testing.assert_close(model(windows[:, :-1]).logits, found.model(windows[:, :-1]), atol=1e-4, rtol=0)
    assert tokenizer.decode(tokenizer("7 and 49 make 56.")["input_ids"]) == "7 and 49 make 56."

    (second,) = planned((str(folder),), corpus=blocks, steps=3)
    assert second.vocabulary == str(folder)
    teacher, again = load_teacher(second), bench_text(second)
    facts = measure_teacher(second, teacher, again)
    assert facts.parameters == found.row["student_parameters"]
    taught = train_student(second, teacher, facts, again)
    assert taught.row["kl_to_teacher"] > 0
    assert taught.row["student_parameters"] == found.row["student_parameters"]


def test_a_changed_text_or_teacher_is_another_run(blocks, tmp_path):
    (run,) = planned(corpus=blocks)
    before = run.files()
    assert run.files() == before
    with open(blocks, "a") as file:
        file.write("One more line.\n")
    assert run.files() != before
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (other,) = planned((str(folder),), corpus=blocks)
    first = other.files()
    (folder / "config.json").write_text('{"hidden_size": 8}')
    assert other.files() != first


def test_runs_of_one_teacher_and_text_share_them_and_others_do_not():
    runs = planned(("32x1", "64x1"), losses=("forward_kl", "taid"))
    assert len({run.teacher_key for run in runs}) == 2
    assert len({run.label for run in runs}) == 4
    assert StudentRun(**runs[0].parameters()) == runs[0]
