"""The two kinds of work of a distillation grid, each done in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.metrics.language import LanguageScores, head_and_tail, log_probabilities
from workbench.models.pruning import structured_prune
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import StackedLM
from workbench.runtime import measure
from workbench.training.batches import fixed_windows, random_windows
from workbench.training.ladder import TrainedModel
from workbench.training.objective import NO_TEACHER, DistillationLoss, Objective
from workbench.training.replicas import DIVERGED, fit_many
from workbench.training.text_task import PreparedText

LARGEST_ANSWER = 2**31  # bytes of one teacher's stored log-probabilities


@dataclass(frozen=True)
class Settings:
    """What all tasks of a grid share."""

    text: PreparedText
    steps: int
    batch_size: int
    warmup: float
    weight_decay: float
    init: str
    transfer_windows: int | None
    evaluation_windows: int
    calibration_batches: int
    record_every: int
    scratch: Path  # folder of the teachers' stored answers

    def transfer(self) -> Tensor:
        """The windows that students learn from, ``[windows, context + 1]``, the same in every process."""
        windows = random_windows(
            self.text.training, context=self.text.context, batch_size=int(self.transfer_windows or 1), seed=0
        )
        return next(windows)

    def held_out(self) -> Tensor:
        """The windows that students are judged on."""
        return fixed_windows(self.text.held_out, context=self.text.context, count=self.evaluation_windows)


@dataclass(frozen=True)
class TeacherTask:
    """A teacher is asked once for its log-probabilities on all windows of the grid."""

    settings: Settings
    teacher: TrainedModel


@dataclass(frozen=True)
class StudentTask:
    """All objectives of one teacher (or none) and student size, for one seed or a few: one stack of students."""

    settings: Settings
    teacher: TrainedModel | None
    size: ModelSize
    lr: float
    objectives: tuple[Objective, ...]
    seeds: tuple[int, ...]

    @property
    def cells(self) -> list[tuple[int, Objective]]:
        """Seed and objective of every replica, in the order of the stack."""
        return [(seed, objective) for seed in self.seeds for objective in self.objectives]


def ask_teacher(task: TeacherTask) -> bool:
    """Store the teacher's log-probabilities on the held-out and the transfer windows.

    Raises:
        ValueError: another vocabulary than the text's, or answers too large to store.
    """
    settings, model = task.settings, task.teacher.lean()
    vocabulary = model.weights[0].shape[1]
    if vocabulary != settings.text.vocab_size:
        raise ValueError(
            f"the teacher {task.teacher.name} has a vocabulary of {vocabulary}, the task's text one of "
            f"{settings.text.vocab_size}: train teachers and students on one TextTask."
        )
    parts = {"held_out": settings.held_out()}
    if settings.transfer_windows is not None:
        parts["transfer"] = settings.transfer()
    for name, windows in parts.items():
        size = windows[:, 1:].numel() * vocabulary * 4
        if size > LARGEST_ANSWER:
            raise ValueError(
                f"the answers of teacher {task.teacher.name} would take {size / 2**30:.1f} GiB: "
                "lower transfer_windows or evaluation_windows, or set transfer_windows to None."
            )
        np.save(_answers(settings, task.teacher, name), log_probabilities(model, windows).numpy())
    return True


def train_students(task: StudentTask) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and curves of the students of one task."""
    settings = task.settings
    with measure() as cost:
        first = [_first_student(task, seed) for seed in task.seeds]
        starts = [weights for weights in first for _ in task.objectives]
        stack = StackedLM(starts, task.size, context=settings.text.context)
        losses = [DistillationLoss.of(objective, total_steps=settings.steps) for _, objective in task.cells]
        curves = _train(task, stack, losses)
        scores = _score(task, stack)
    student = {
        "student": task.size.name,
        "student_parameters": task.size.parameters(settings.text.vocab_size),
        "student_parameters_without_embeddings": task.size.parameters(settings.text.vocab_size, embeddings=False),
    }
    rows = []
    for (seed, objective), alive, found in zip(task.cells, curves.alive, scores, strict=True):
        if not alive:
            found = dict.fromkeys(found, math.nan)
        rows.append(
            {
                **_teacher_columns(task.teacher),
                **student,
                "ratio": math.nan if task.teacher is None else task.teacher.parameters / student["student_parameters"],
                "objective": objective.name,
                "init": settings.init if task.teacher is not None else "random",
                "seed": seed,
                **found,
                "seconds": cost.cpu_seconds / len(task.cells),
            }
        )
    keys = {name: rows[0][name] for name in ("teacher", "student", "init")}
    return pd.DataFrame(rows), curves.table(keys)


class _Curves:
    """Loss and ``t`` of every replica over the steps, and which replicas are still alive."""

    def __init__(self, cells: list[tuple[int, Objective]]) -> None:
        self.cells, self.alive = cells, [True] * len(cells)
        self.observations: list[tuple[int, str, int, str, float]] = []

    def record(self, replica: int, step: int, quantity: str, value: float) -> None:
        seed, objective = self.cells[replica]
        self.observations.append((seed, objective.name, step, quantity, value))

    def table(self, keys: dict[str, Any]) -> pd.DataFrame:
        found = pd.DataFrame(self.observations, columns=["seed", "objective", "step", "quantity", "value"])
        return pd.DataFrame({**keys, **{name: found[name] for name in found}})


def _train(task: StudentTask, stack: StackedLM, losses: list[DistillationLoss]) -> _Curves:
    settings, each = task.settings, len(task.objectives)
    curves = _Curves(task.cells)

    def loss(model: StackedLM, batch: tuple[Tensor, Tensor | None]) -> Tensor:
        windows, teacher = batch
        everything = model(windows[..., :-1].repeat_interleave(each, dim=0))
        return torch.stack(
            [
                one(logits, None if teacher is None else teacher[place // each], windows[place // each, :, 1:])
                for place, (one, logits) in enumerate(zip(losses, everything, strict=True))
            ]
        )

    def on_step(step: int, known: dict[str, Any]) -> None:
        record = step % settings.record_every == 0 or step in (1, settings.steps)
        for replica, (one, value) in enumerate(zip(losses, known["loss"].tolist(), strict=True)):
            if record:
                curves.record(replica, step, "loss", value)
                for quantity, found in one.walking.items():
                    curves.record(replica, step, quantity, found)
            one.advance()

    histories = fit_many(
        stack, _batches(task), loss, steps=settings.steps, lr=task.lr, warmup=settings.warmup,
        weight_decay=settings.weight_decay, on_step=on_step, seed=task.seeds[0], label=None,
    )  # fmt: skip
    curves.alive = [history.stopped != DIVERGED for history in histories]
    return curves


def _batches(task: StudentTask) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Windows ``[seeds, batch, context + 1]`` and the teacher's log-probabilities; each order is its seed's."""
    settings, text, answers = task.settings, task.settings.text, None
    if settings.transfer_windows is None:
        model = None if task.teacher is None else task.teacher.lean()
        streams = [
            random_windows(text.training, context=text.context, batch_size=settings.batch_size, seed=seed)
            for seed in task.seeds
        ]
        while True:
            fresh = torch.stack([next(stream) for stream in streams])
            if model is not None:
                answers = log_probabilities(model, fresh.flatten(0, 1)).unflatten(0, fresh.shape[:2])
            yield fresh, answers
    windows, orders = settings.transfer(), [np.random.default_rng(seed) for seed in task.seeds]
    stored = None if task.teacher is None else np.load(_answers(settings, task.teacher, "transfer"), mmap_mode="r")
    while True:
        chosen = np.stack([order.integers(0, len(windows), size=settings.batch_size) for order in orders])
        yield windows[chosen], None if stored is None else torch.from_numpy(stored[chosen])


@torch.no_grad()
def _score(task: StudentTask, stack: StackedLM) -> list[dict[str, float]]:
    settings, windows = task.settings, task.settings.held_out()
    answers = None if task.teacher is None else np.load(_answers(settings, task.teacher, "held_out"), mmap_mode="r")
    scores = [LanguageScores(settings.text.bytes_per_token) for _ in task.cells]
    for start in range(0, len(windows), 32):
        part = windows[start : start + 32]
        teacher = None if answers is None else torch.from_numpy(answers[start : start + 32].copy())
        ranks = None if teacher is None else head_and_tail(teacher)
        for one, logits in zip(scores, stack(part[:, :-1]), strict=True):
            one.add(logits, part[:, 1:], teacher, ranks)
    wanted = ("nats", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher", "head_mass", "tail_mass")
    return [{name: found[name] for name in wanted} for found in (one.result() for one in scores)]


def _first_student(task: StudentTask, seed: int) -> dict[str, Tensor]:
    text = task.settings.text
    if task.settings.init == "random" or task.teacher is None:
        return initial_weights(text.vocab_size, task.size, seed=seed)
    windows = random_windows(text.training, context=text.context, batch_size=task.settings.batch_size, seed=seed)
    calibration = [next(windows) for _ in range(task.settings.calibration_batches)]
    smaller = structured_prune(task.teacher.load(), task.size, calibration)
    return {name: weight.detach() for name, weight in smaller.named_parameters()}


def _teacher_columns(teacher: TrainedModel | None) -> dict[str, Any]:
    if teacher is None:
        return {
            "teacher": NO_TEACHER, "teacher_parameters": math.nan, "teacher_parameters_without_embeddings": math.nan,
            "teacher_nats": math.nan,
        }  # fmt: skip
    return {
        "teacher": teacher.name,
        "teacher_parameters": float(teacher.parameters),
        "teacher_parameters_without_embeddings": float(teacher.parameters_without_embeddings),
        "teacher_nats": teacher.held_out_nats,
    }


def _answers(settings: Settings, teacher: TrainedModel, part: str) -> Path:
    return settings.scratch / f"{teacher.name}-{part}.npy"
