"""A grid of students: every teacher, size, objective and seed, paired by seed and batch.

The students of one teacher, size and seed are trained side by side as one stacked model on the same
batches: they start equal and differ in the objective alone, and the teacher is asked once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench import telemetry
from workbench.errors import check_choice, check_positive
from workbench.files import data_folder
from workbench.models.small_lm import ModelSize
from workbench.training.grid_task import Settings, StudentTask, TeacherTask, ask_teacher, train_students
from workbench.training.ladder import EVALUATION_WINDOWS, TrainedModel, default_lr
from workbench.training.objective import NO_TEACHER, Objective
from workbench.training.parallel import run_tasks
from workbench.training.text_task import TextTask

STACK = 5  # students side by side; more save little, and leave less to share out among the cores


@dataclass(frozen=True)
class DistilGrid:
    """``rows``: one student a row. ``curves``: ``quantity`` (loss, t) over ``step``, tidy."""

    rows: pd.DataFrame
    curves: pd.DataFrame


def distil_grid(
    teachers: Sequence[TrainedModel],
    students: Sequence[ModelSize],
    objectives: Sequence[Objective],
    seeds: Sequence[int],
    task: TextTask,
    *,
    steps: int,
    batch_size: int = 8,
    lr: float | None = None,
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    init: str = "random",
    transfer_windows: int | None = 2048,
    evaluation_windows: int = EVALUATION_WINDOWS // 2,
    calibration_batches: int = 8,
    record_every: int = 10,
    cores: int | None = None,
    stop: Callable[[], bool] | None = None,
    on_rows: Callable[[pd.DataFrame], None] | None = None,
    label: str = "students",
) -> DistilGrid:
    """Distil every teacher into every student size by every objective, once per seed.

    A seed decides a student's first weights and the order of its batches. Objectives that need no teacher
    are trained once per size and seed, with teacher ``none``. A student whose loss becomes infinite has
    ``nats`` NaN and does not disturb its neighbours.

    Args:
        steps: optimiser steps of each student.
        lr: highest learning rate; ``None`` takes :func:`default_lr` of the student's width.
        init: ``random``, or ``pruned``: heads, neurons and channels of the teacher
            (:func:`workbench.models.pruning.structured_prune`); then a teacher must be no smaller than a student.
        transfer_windows: the students learn from so many windows of the training text, drawn once for the
            whole grid, on which each teacher is asked once; ``None`` draws fresh windows and asks the teacher
            at every step.
        evaluation_windows: held-out windows for the numbers in ``rows``.
        stop: asked whenever a task is done; what is left then is missing from the rows.
        on_rows: called with the rows of every task as it finishes.

    Returns:
        Rows with ``nats`` (held-out nats per byte), ``kl_to_teacher`` and ``reverse_kl_to_teacher``
        (nats per token), ``seconds`` (CPU seconds, shared evenly by students trained side by side), ...

    Raises:
        UnknownName: an unknown loss or ``init``.
        ValueError: empty lists, equal names or seeds, or a teacher of another vocabulary.
    """
    check_positive(steps=steps, batch_size=batch_size, evaluation_windows=evaluation_windows, record_every=record_every)
    check_choice("init", init, ("random", "pruned"))
    _check_grid(teachers, students, objectives, seeds, init)
    text = task.prepare()
    with tempfile.TemporaryDirectory(prefix="teachers-", dir=_scratch(), ignore_cleanup_errors=True) as scratch:
        settings = Settings(
            text=text, steps=steps, batch_size=batch_size, warmup=warmup, weight_decay=weight_decay, init=init,
            transfer_windows=transfer_windows, evaluation_windows=evaluation_windows,
            calibration_batches=calibration_batches, record_every=record_every, scratch=Path(scratch),
        )  # fmt: skip
        pulled = tuple(objective for objective in objectives if objective.needs_teacher)
        alone = tuple(objective for objective in objectives if not objective.needs_teacher)
        asked = sorted(teachers, key=lambda teacher: -teacher.parameters) if pulled else []
        answers = run_tasks(
            ask_teacher,
            [TeacherTask(settings, teacher) for teacher in asked],
            cores=cores,
            stop=stop,
            label="teachers asked",
        )
        ready = [teacher for teacher, answer in zip(asked, answers, strict=True) if answer is not None]
        tasks = [
            StudentTask(settings, teacher, size, default_lr(size) if lr is None else lr, wanted, together)
            for size in students
            for teacher, wanted in [*((teacher, pulled) for teacher in ready), *([(None, alone)] if alone else [])]
            for together in _groups(seeds, len(wanted))
        ]
        if stop is not None and stop():
            tasks = []

        def on_done(_index: int, outcome: tuple[pd.DataFrame, pd.DataFrame]) -> None:
            _announce(*outcome)
            if on_rows is not None:
                on_rows(outcome[0])

        done = run_tasks(train_students, tasks, cores=cores, stop=stop, label=label, on_done=on_done)
    finished = [outcome for outcome in done if outcome is not None]
    if not finished:
        return DistilGrid(pd.DataFrame(), pd.DataFrame())
    rows, curves = (pd.concat(tables, ignore_index=True) for tables in zip(*finished, strict=True))
    order = {teacher.name: place for place, teacher in enumerate(teachers)} | {NO_TEACHER: -1}
    rows = rows.sort_values(["teacher", "student", "objective", "seed"], kind="stable", ignore_index=True)
    rows = rows.sort_values("teacher", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return DistilGrid(rows, curves)


def one_pass(*, steps: int, batch_size: int) -> int:
    """``transfer_windows`` that a student reads about once, at most 8192 so that teachers' answers stay small."""
    return min(8192, steps * batch_size)


def _announce(rows: pd.DataFrame, curves: pd.DataFrame) -> None:
    """Tell whoever watches what one task found; its own process could not."""
    if not telemetry.is_watched():
        return
    for row in rows.to_dict("records"):
        telemetry.publish_row(row)
    for (teacher, student, objective, seed), curve in curves[curves["quantity"] == "loss"].groupby(
        ["teacher", "student", "objective", "seed"]
    ):
        for step, value in zip(curve["step"], curve["value"], strict=True):
            telemetry.publish(f"{teacher} to {student}, {objective}, seed {seed}", step, value)


def _groups(seeds: Sequence[int], objectives: int) -> list[tuple[int, ...]]:
    """Seeds that are trained in one stack: with their objectives about ``STACK`` students, whatever the cores."""
    count = max(1, STACK // objectives)
    return [tuple(seeds[start : start + count]) for start in range(0, len(seeds), count)]


def _scratch() -> Path:
    folder = data_folder() / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_grid(
    teachers: Sequence[TrainedModel],
    students: Sequence[ModelSize],
    objectives: Sequence[Objective],
    seeds: Sequence[int],
    init: str,
) -> None:
    for name, values in {"students": students, "objectives": objectives, "seeds": seeds}.items():
        if not values:
            raise ValueError(f"{name} is empty: the grid would have no student.")
    if not teachers and any(objective.needs_teacher for objective in objectives):
        raise ValueError("teachers is empty, but an objective needs one: give at least one TrainedModel.")
    named = {
        "teachers": [teacher.name for teacher in teachers],
        "objectives": [objective.name for objective in objectives],
        "students": [size.name for size in students],
        "seeds": list(seeds),
    }
    for name, values in named.items():
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"{name} holds {twice[0]!r} twice: rows could not be told apart.")
    for objective in objectives:
        objective.check()
    for teacher in teachers if init == "pruned" else ():
        for size in students:
            if size.width > teacher.size.width or size.layers > teacher.size.layers:
                raise ValueError(
                    f"init='pruned': the student {size.name} does not fit into the teacher {teacher.name}."
                )
