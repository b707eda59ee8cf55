"""A student of the bench is trained: watched point by point, stopped within a step, taken up where it stood."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from workbench.losses.row_kernels import ROW_KERNELS
from workbench.metrics.language import LanguageScores, held_out_scores
from workbench.models.next_token import logits_of, next_token_loss
from workbench.models.pretrained import find_pretrained
from workbench.models.small_lm import ModelSize, initial_weights, named_size
from workbench.models.stacked_lm import LeanLM
from workbench.training.batches import random_windows
from workbench.training.bench_run import StudentRun, objective_named
from workbench.training.bench_teacher import BenchText, TeacherFacts, bench_device
from workbench.training.checkpoints import save_weights
from workbench.training.distil import distil
from workbench.training.ladder import default_lr
from workbench.training.loop import History, fit
from workbench.training.objective import Objective

POINTS = 20  # evaluations of a run
LARGE_VOCABULARY = 8192  # words
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
WARMUP, WEIGHT_DECAY = 0.05, 0.1  # as the teachers of the ladder


class LivePoint(NamedTuple):
    """One evaluation of a student in training."""

    step: int
    nats: float  # per byte of held-out text
    seconds: float  # of training until then, evaluations left out, over all sittings
    tokens_per_second: float  # since the point before


class Meter:
    """Time and speed of a training through stops; hands every point on, those before a stop again."""

    def __init__(self, tokens_per_step: int, publish: Callable[[LivePoint], None]) -> None:
        self.tokens_per_step, self.publish = tokens_per_step, publish
        self.points: list[LivePoint] = []
        self.seconds = 0.0
        self._mark = time.perf_counter()

    def tick(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now

    def point(self, step: int, nats: float) -> None:
        """An evaluation has ended, whose time is not counted."""
        before = self.points[-1] if self.points else LivePoint(0, math.nan, 0.0, math.nan)
        spent = max(self.seconds - before.seconds, 1e-9)
        speed = (step - before.step) * self.tokens_per_step / spent
        self.points.append(LivePoint(step, nats, self.seconds, speed))
        self.publish(self.points[-1])
        self._mark = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """All points and the time so far."""
        return {"points": [tuple(point) for point in self.points], "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; whoever watches sees the points again."""
        self.points, self.seconds = [LivePoint(*point) for point in state["points"]], state["seconds"]
        for point in self.points:
            self.publish(point)
        self._mark = time.perf_counter()


@dataclass(frozen=True)
class TrainedStudent:
    """What a run found."""

    row: dict[str, Any]  # one observation
    curve: pd.DataFrame  # one evaluation a row: step, nats, seconds, tokens_per_second
    model: LeanLM
    size: ModelSize


def train_student(
    run: StudentRun,
    teacher: nn.Module | None,
    facts: TeacherFacts | None,
    text: BenchText,
    *,
    on_point: Callable[[LivePoint], None] = lambda point: None,
    on_step: Callable[[int], None] = lambda step: None,
    checkpoint: Path | None = None,
) -> TrainedStudent:
    """Train the student of ``run``; a checkpoint that a stop left is gone on from and ends equal bit for bit.

    Args:
        teacher, facts: of the run's teacher; None where its loss asks none.
        on_point: called with each of about twenty evaluations on held-out text.
        on_step: called with the number of each step that is done.

    Raises:
        Stopped: whoever watches (:mod:`workbench.telemetry`) asked for the end; the checkpoint is written.
        TrainingDiverged: the loss became infinite.
    """
    size, prepared = named_size(run.student), text.text
    weights = initial_weights(text.vocab_size, size, seed=run.seed)
    where = bench_device(run)
    student = LeanLM(weights, size, context=run.context).to(where)
    objective = objective_named(run.loss, steps=run.steps)
    # The logits of a large vocabulary are better never made; small ones are quicker as they are.
    chunked = teacher is not None and text.vocab_size >= LARGE_VOCABULARY and objective.loss in ROW_KERNELS
    most = run.batch_size if chunked else min(run.batch_size, text.at_once)
    at_once = max(part for part in range(1, most + 1) if run.batch_size % part == 0)
    batches = random_windows(prepared.training, context=run.context, batch_size=at_once, seed=run.seed)
    meter, step_now = Meter(run.batch_size * run.context, on_point), [0]

    def after(step: int, _known: dict[str, float]) -> None:
        meter.tick()
        step_now[0] = step
        on_step(step)

    def evaluate(model: nn.Module) -> dict[str, float]:
        bytes_per_token = prepared.bytes_per_token
        found = held_out_scores(model, text.windows, bytes_per_token=bytes_per_token, batch_size=text.at_once)
        meter.point(step_now[0], found["nats"])
        return {"nats": found["nats"]}

    every = max(1, run.steps // POINTS)
    options = {
        "steps": run.steps, "lr": default_lr(size), "warmup": WARMUP, "weight_decay": WEIGHT_DECAY,
        "accumulate": run.batch_size // at_once, "evaluate": evaluate, "evaluate_every": every, "on_step": after,
        "seed": run.seed, "label": None, "checkpoint": checkpoint, "checkpoint_every": every, "state": {"meter": meter},
    }  # fmt: skip
    _train(objective, chunked, student, teacher, (batch.to(where) for batch in batches), options)
    scores = _score(student, teacher, text, where)
    row = {
        "teacher": run.source if facts is None else facts.name,
        "teacher_parameters": math.nan if facts is None else float(facts.parameters),
        "teacher_parameters_without_embeddings": (
            math.nan if facts is None else float(facts.parameters_without_embeddings)
        ),
        "teacher_nats": math.nan if facts is None else facts.nats,
        "student": run.student,
        "student_parameters": size.parameters(text.vocab_size),
        "student_parameters_without_embeddings": size.parameters(text.vocab_size, embeddings=False),
        "vocabulary": run.vocabulary,
        "loss": run.loss,
        "seed": run.seed,
        **{name: scores[name] for name in ("nats", "accuracy", "kl_to_teacher")},
        "seconds": meter.seconds,
        "tokens_per_second": run.steps * meter.tokens_per_step / meter.seconds,
    }
    return TrainedStudent(row, pd.DataFrame(meter.points, columns=LivePoint._fields), student, size)


def save_student(student: TrainedStudent, run: StudentRun, text: BenchText, folder: Path) -> None:
    """Write the student with its tokenizer as ``from_pretrained`` of transformers reads both.

    The folder can be given wherever a pretrained model is named, as the next student's teacher, too.
    """
    save_weights(student.model.cpu().replica(0), student.size, folder, context=run.context)
    source = find_pretrained(run.vocabulary) if run.pretrained else text.text.folder / "tokenizer"
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _train(
    objective: Objective,
    chunked: bool,
    student: LeanLM,
    teacher: nn.Module | None,
    batches: Any,
    options: dict[str, Any],
) -> History:
    if teacher is None:

        def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            return objective.ce_weight * next_token_loss(model, batch)

        return fit(student, batches, loss, **options)
    return distil(
        student, teacher, batches, objective.loss, loss_options=dict(objective.options),
        ce_weight=objective.ce_weight, kd_weight=objective.kd_weight, chunked=chunked, **options,
    )  # fmt: skip


@torch.no_grad()
def _score(student: LeanLM, teacher: nn.Module | None, text: BenchText, where: torch.device) -> dict[str, float]:
    scores = LanguageScores(text.text.bytes_per_token)
    student.eval()
    for part in text.windows.split(text.at_once):
        inputs, labels = part[:, :-1].to(where), part[:, 1:].to(where)
        answers = None if teacher is None else torch.log_softmax(logits_of(teacher, inputs).float(), dim=-1)
        scores.add(logits_of(student, inputs), labels, answers)
    return scores.result()
