"""Students of one downstream task, taught by every method, label count and seed; those of one method train at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench import telemetry
from workbench.errors import check_choice
from workbench.losses import forward_kl
from workbench.models.splits import SplitModel, split_mlp
from workbench.runtime import seeded
from workbench.training.communication_controls import Alone, Hint, SameModules
from workbench.training.downstream import (
    DIGIT_TASKS,
    Downstream,
    Draw,
    PreparedTexts,
    digit_accuracy,
    digits_task,
    text_task,
)
from workbench.training.interactive import TERMS, UNLABELLED, InteractiveDistiller, term_values, total
from workbench.training.parallel import run_tasks
from workbench.training.replicas import fit_many

LABELS, HINT, KD, TALK, PROBE = "labels only", "hint", "label KD", "talk", "probe of the teacher"
WITHOUT = {term: f"talk without {term}" for term in TERMS}
HINT_MODULES, SELF_TALK = "hint, same modules", "labels only, same modules"
UNTRAINED, TRAINED = "talk, untrained teacher", "talk, teacher trained"
METHODS = (LABELS, HINT, KD, TALK, *WITHOUT.values(), HINT_MODULES, SELF_TALK, UNTRAINED, TRAINED, PROBE)
DIGITS_ONLY = (UNTRAINED, TRAINED)  # they need a teacher of known training, with a task of its own
STUDENT_HIDDEN = {"digits": 16, "text": 64}
STUDENT_LR = 3e-3
WEIGHT_DECAY = 1e-2
SHOWN = 150  # inputs whose messages are kept
SNAPSHOTS = 4  # times in a run at which they are


@dataclass(frozen=True)
class Setting:
    """What all cells of a grid share."""

    steps: int
    batch_size: int  # half with labels, half without
    message_dim: int


@dataclass(frozen=True)
class Cell:
    """One method on one task; its label counts and seeds train side by side."""

    task: str
    method: str
    rounds: int
    label_counts: tuple[int, ...]
    seeds: tuple[int, ...]
    setting: Setting
    texts: PreparedTexts | None = None  # of a task about text

    @property
    def places(self) -> list[tuple[int, int]]:
        """``(labels, seed)`` of every student, in their order."""
        return list(product(self.label_counts, self.seeds))


@dataclass(frozen=True)
class Found:
    """Observations of students: ``rows``, ``curves`` of the terms, ``messages`` while they learn."""

    rows: pd.DataFrame
    curves: pd.DataFrame
    messages: pd.DataFrame


def talk_grid(cells: Sequence[Cell], *, cores: int | None = None) -> Found:
    """Train and judge the students of ``cells``.

    Returns:
        ``rows``: ``task, method, rounds, labels, seed``, the deployed student's accuracy (test), the weights it has
        and those that only training had, and the teacher's accuracy on its own task (digits). ``curves``: value of
        each term along the steps. ``messages``: the two main axes of the messages of one talk, by step and model.
    """
    found = [one for one in run_tasks(train_cell, list(cells), cores=cores, label="methods") if one is not None]
    for one in found:
        for row in one.rows.to_dict("records"):
            telemetry.publish_row(row)
    parts = ([getattr(one, name) for one in found] for name in ("rows", "curves", "messages"))
    return Found(*(pd.concat([table for table in tables if len(table)], ignore_index=True) for tables in parts))


def load_task(cell: Cell) -> Downstream:
    """The task of a cell with its teacher."""
    if cell.task in DIGIT_TASKS:
        return digits_task(cell.task, cell.seeds, trained_teacher=cell.method != UNTRAINED)
    if cell.texts is None:
        raise ValueError(f"the cell of the task {cell.task!r} has no texts: prepare them with prepare_texts.")
    return text_task(cell.texts, cell.seeds)


def train_cell(cell: Cell) -> Found:
    """All students of one cell.

    Raises:
        UnknownName: an unknown method ("did you mean").
    """
    check_choice("method", cell.method, METHODS)
    task = load_task(cell)
    draws = dict(zip(cell.seeds, task.draws, strict=True))
    if cell.method == PROBE:
        rows = [_row(cell, labels, seed, _probe(draws[seed], labels)[1], 0, 0) for labels, seed in cell.places]
        return Found(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame())
    models = [make_model(cell.method, task, cell.setting.message_dim, cell.rounds, seed) for _, seed in cell.places]
    # One scale for all seeds: replicas share what is not trained.
    lower, upper = (torch.cat([getattr(draw, name)[draw.pool] for draw in task.draws]) for name in ("lower", "upper"))
    for model in models:
        model.calibrate(lower, upper)
    curves, messages = _train(cell, task, draws, models)
    rows = []
    for (labels, seed), model in zip(cell.places, models, strict=True):
        student = model.student.eval()
        deployed = _deployed(student, task)
        row = _row(cell, labels, seed, accuracy(deployed, draws[seed]), _size(deployed), model.added_parameters)
        row["deployment_gap"] = _gap(model.eval(), deployed, draws[seed])
        if cell.task in DIGIT_TASKS and isinstance(model, InteractiveDistiller):
            row["teacher_accuracy"] = digit_accuracy(model.teacher)
        rows.append(row)
    return Found(pd.DataFrame(rows), curves, messages)


def make_model(method: str, task: Downstream, message_dim: int, rounds: int, seed: int) -> nn.Module:
    """The student of ``seed`` with what ``method`` needs in training; the same student whatever the method."""
    hidden = STUDENT_HIDDEN["digits" if task.name in DIGIT_TASKS else "text"]
    with seeded(seed):
        student = split_mlp(task.input_width, hidden, task.classes)
    with seeded(seed + 1_000_000):
        if method in (LABELS, KD):
            return Alone(student)
        if method == HINT:
            return Hint(student, task.teacher)
        if method in (HINT_MODULES, SELF_TALK):
            return SameModules(student, task.teacher, message_dim=message_dim, hints=method == HINT_MODULES)
        off = {label: term for term, label in WITHOUT.items()}.get(method)
        weights = {term: float(term != off) for term in TERMS}
        teacher = _own_copy(task.teacher) if method == TRAINED else task.teacher
        return InteractiveDistiller(
            student, teacher, message_dim=message_dim, rounds=rounds, weights=weights, freeze_teacher=method != TRAINED
        )


@torch.no_grad()
def accuracy(student: SplitModel, draw: Draw) -> float:
    """Share of test inputs that the deployed student labels rightly."""
    return float((student(draw.inputs[draw.test]).argmax(-1) == draw.labels[draw.test]).float().mean())


def _deployed(student: SplitModel, task: Downstream) -> SplitModel:
    """A student built anew from what is saved of the trained one: nothing that only training needs is in it."""
    fresh = split_mlp(task.input_width, student.hidden_dim, task.classes)
    fresh.load_state_dict(student.state_dict())
    return fresh.eval()


@torch.no_grad()
def _gap(model: nn.Module, deployed: SplitModel, draw: Draw) -> float:
    """Largest difference between the logits of the model as it was trained and those of the deployed student."""
    inputs, lower, upper = (part[draw.test] for part in (draw.inputs, draw.lower, draw.upper))
    return float((model(inputs, lower, upper)["logits"] - deployed(inputs)).abs().max())


def _own_copy(teacher: SplitModel) -> SplitModel:
    import copy

    return copy.deepcopy(teacher).requires_grad_(True)


def _train(
    cell: Cell, task: Downstream, draws: Mapping[int, Draw], models: list[nn.Module]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    seen: dict[str, Tensor] = {}
    weights = {"hint": 1.0, "kd": 1.0, "interact": 1.0, "message": 1.0, "state": 1.0}
    live = cell.method == TRAINED  # a teacher that learns must read anew
    places = cell.places

    def loss(stack: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, labels, lower, upper, soft = batch
        found = stack(inputs, lower, upper) if not live else stack(inputs)
        values = term_values(found, labels)
        if cell.method == KD:
            values["kd"] = forward_kl(found["logits"], soft, reduction="none").mean(-1)
        seen.update(values)
        return total(values, weights)

    record_every = max(1, cell.setting.steps // 20)
    records: list[dict] = []
    snapshots = _Snapshots(cell, draws) if cell.method == TALK else None

    def after(step: int, _known: dict) -> None:
        if step % record_every == 0 or step == 1:
            for name, values in seen.items():
                for (labels, seed), value in zip(places, values.tolist(), strict=True):
                    records.append({"labels": labels, "seed": seed, "step": step, "term": name, "value": value})

    def look(stack: nn.Module) -> Tensor:
        if snapshots is not None:
            snapshots.take(stack.replica(snapshots.place))
        return torch.zeros(len(models))

    fit_many(
        models, _batches(cell, task, draws), loss, steps=cell.setting.steps, lr=STUDENT_LR, warmup=0.05,
        weight_decay=WEIGHT_DECAY, on_step=after, evaluate=look,
        evaluate_every=-(-cell.setting.steps // SNAPSHOTS), seed=cell.seeds[0], label=None,
    )  # fmt: skip
    curves = pd.DataFrame(records)
    for column, value in (("rounds", cell.rounds), ("method", cell.method), ("task", cell.task)):
        curves.insert(0, column, value)
    return curves, snapshots.table() if snapshots is not None else pd.DataFrame()


def _batches(cell: Cell, task: Downstream, draws: Mapping[int, Draw]) -> Iterator[tuple[Tensor, ...]]:
    """Inputs, labels, the teacher's states and the probe's logits, ``[students, batch, ...]``; an order per seed.

    The second half has no labels. It is left out where a method learns from labels alone.
    """
    half = cell.setting.batch_size // 2
    alone = cell.method in (LABELS, SELF_TALK)
    orders = [np.random.default_rng([seed, 2]) for _, seed in cell.places]
    softs = [_probe(draws[seed], labels)[0] if cell.method == KD else None for labels, seed in cell.places]
    while True:
        parts = []
        for (count, seed), order, soft in zip(cell.places, orders, softs, strict=True):
            draw = draws[seed]
            labelled = draw.pool[:count]
            others = draw.pool if task.unlabelled else labelled
            rows = labelled[torch.from_numpy(order.integers(0, len(labelled), half))]
            more = others[torch.from_numpy(order.integers(0, len(others), half))]
            labels = draw.labels[rows]
            if not alone:
                labels, rows = torch.cat([labels, torch.full_like(more, UNLABELLED)]), torch.cat([rows, more])
            parts.append((draw.inputs[rows], labels, draw.lower[rows], draw.upper[rows],
                          draw.labels[rows, None].float() if soft is None else soft[rows]))  # fmt: skip
        yield tuple(torch.stack(part) for part in zip(*parts, strict=True))


def _probe(draw: Draw, labels: int) -> tuple[Tensor, float]:
    """A logistic regression on the teacher's upper states: its log-probabilities of all rows, its test accuracy."""
    from sklearn.linear_model import LogisticRegression

    states = draw.upper - draw.upper[draw.pool].mean(0)
    states = (states / states[draw.pool].square().mean().sqrt()).numpy()
    rows, test = draw.pool[:labels], draw.test
    probe = LogisticRegression(max_iter=1000).fit(states[rows], draw.labels[rows])
    # Far from the border a probability is 0 in float64, too; no student is asked to be that sure.
    soft = np.log(probe.predict_proba(states).clip(1e-6))
    return torch.from_numpy(soft).float(), float(probe.score(states[test], draw.labels[test]))


class _Snapshots:
    """Messages of test inputs of the first seed with most labels, at several steps of its training."""

    def __init__(self, cell: Cell, draws: Mapping[int, Draw]) -> None:
        self.cell, self.draw = cell, draws[cell.seeds[0]]
        self.place = cell.places.index((cell.label_counts[-1], cell.seeds[0]))
        self.rows = self.draw.test[:SHOWN]
        self.taken: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def take(self, model: InteractiveDistiller) -> None:
        state = model.student.states(self.draw.inputs[self.rows])[1]
        said = (model.student_talk.encode(state), model.teacher_talk.encode(self.draw.upper[self.rows]))
        self.taken.append(tuple(nn.functional.normalize(part, dim=-1) for part in said))

    def table(self) -> pd.DataFrame:
        """Both main axes of all messages of the last step; earlier ones are seen in the same axes."""
        last = torch.cat(self.taken[-1])
        centre = last.mean(0)
        axes = torch.linalg.svd(last - centre, full_matrices=False)[2][:2]
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a sign that does not flip by machine
        steps, each = self.cell.setting.steps, -(-self.cell.setting.steps // SNAPSHOTS)
        tables = []
        for index, pair in enumerate(self.taken):
            for model, messages in zip(("student", "teacher"), pair, strict=True):
                first, second = ((messages - centre) @ axes.T).T.tolist()
                tables.append(pd.DataFrame({
                    "task": self.cell.task, "step": min(steps, (index + 1) * each), "model": model,
                    "label": self.draw.labels[self.rows].tolist(), "first": first, "second": second,
                }))  # fmt: skip
        return pd.concat(tables, ignore_index=True)


def _row(cell: Cell, labels: int, seed: int, measured: float, size: int, added: int) -> dict:
    unknown = float("nan")
    return {
        "task": cell.task, "method": cell.method, "rounds": cell.rounds, "labels": labels, "seed": seed,
        "accuracy": measured, "parameters": size, "added_parameters": added, "teacher_accuracy": unknown,
        "deployment_gap": unknown,
    }  # fmt: skip


def _size(model: nn.Module) -> int:
    return sum(tensor.numel() for tensor in model.parameters())
