"""A grid of online distillation over label noise, teachers, methods and seeds, spread over the cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pandas as pd

from workbench.datasets.images import load_images
from workbench.errors import UnknownName, check_choice
from workbench.metrics.calibration import entropy, softmax
from workbench.models.classifiers import named_classifier, parameter_count
from workbench.telemetry import publish_row
from workbench.training.online_cell import CellOutcome, OnlineCell, train_cell
from workbench.training.parallel import run_tasks

SEEDS_TOGETHER = 5  # of one task; more would save nothing, and a task's memory grows with them
NETWORKS = ("student", "teacher")


@dataclass
class Predictions:
    """Logits on test pictures (the first thousands of them), to look at."""

    labels: np.ndarray  # [samples]
    seeds: tuple[int, ...]
    cells: dict[tuple[float, str, str, str], np.ndarray] = field(default_factory=dict, repr=False)

    def logits(self, *, noise: float, teacher: str, method: str, network: str = "student") -> np.ndarray:
        """``[seeds, samples, classes]``.

        Raises:
            UnknownName: no such cell ("did you mean").
        """
        for name, value in (("noise", noise), ("teacher", teacher), ("method", method)):
            check_choice(name, str(value), map(str, self.choices(name)))
        check_choice("network", network, NETWORKS)
        if (noise, teacher, method, network) not in self.cells:
            raise UnknownName(f"nothing was trained with noise={noise!r}, teacher={teacher!r} and method={method!r}.")
        return self.cells[noise, teacher, method, network]

    def entropies(self, *, noise: float, teacher: str, methods: Sequence[str]) -> pd.DataFrame:
        """How unsure both networks are of each picture: ``method, network, entropy`` (nats), all seeds.

        Raises:
            UnknownName: no such cell ("did you mean").
        """
        tables = []
        for method, network in product(methods, NETWORKS):
            logits = self.logits(noise=noise, teacher=teacher, method=method, network=network)
            values = entropy(softmax(logits)).ravel()
            tables.append(pd.DataFrame({"method": method, "network": network, "entropy": values}))
        return pd.concat(tables, ignore_index=True)

    def choices(self, factor: str) -> list:
        """The values of ``noise``, ``teacher`` or ``method``, in the order they were trained."""
        check_choice("factor", factor, ("noise", "teacher", "method"))
        place = ("noise", "teacher", "method").index(factor)
        return list(dict.fromkeys(cell[place] for cell in self.cells))


@dataclass
class OnlineGrid:
    """What a grid found: ``rows`` a network each, ``curves`` over training, ``reliability`` bins, ``predictions``."""

    rows: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame
    predictions: Predictions


def online_grid(
    cell: OnlineCell, *, noises: Sequence[float], teachers: Sequence[str], cores: int | None = None
) -> OnlineGrid:
    """Train ``cell`` for every noise and teacher; what it names itself in their place does not count.

    Pairs of one noise, teacher and block of seeds train in one run; the numbers do not depend on ``cores``.
    """
    images = load_images(cell.data)  # once before the processes start: a download would wait for itself
    blocks = [cell.seeds[start : start + SEEDS_TOGETHER] for start in range(0, len(cell.seeds), SEEDS_TOGETHER)]
    tasks = [
        replace(cell, noise=noise, teacher=teacher, seeds=seeds)
        for noise, teacher, seeds in product(noises, teachers, blocks)
    ]
    sizes = {
        name: parameter_count(named_classifier(name, images.shape, len(images.classes), seed=0)) for name in teachers
    }
    # The longest first, so that no core waits for one that began late.
    order = sorted(range(len(tasks)), key=lambda index: -sizes[tasks[index].teacher])
    found = run_tasks(
        train_cell, [tasks[index] for index in order], cores=cores, on_done=_publish, label="online distillation"
    )
    outcomes = [outcome for _, outcome in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]
    return OnlineGrid(
        *(
            pd.concat([getattr(outcome, name) for outcome in outcomes], ignore_index=True)
            for name in ("rows", "curves", "reliability")
        ),
        _predictions(tasks, outcomes, cell.seeds),
    )


def _publish(_index: int, outcome: CellOutcome) -> None:
    for row in outcome.rows.to_dict("records"):
        publish_row(row)


def _predictions(tasks: list[OnlineCell], outcomes: list[CellOutcome], seeds: tuple[int, ...]) -> Predictions:
    kept = seeds[:SEEDS_TOGETHER]  # those of the first block are enough to look at
    predictions = Predictions(outcomes[0].labels, kept)
    for task, outcome in zip(tasks, outcomes, strict=True):
        if task.seeds != kept:
            continue
        for method, _, network in outcome.logits:
            key = (task.noise, task.teacher, method, network)
            predictions.cells[key] = np.stack([outcome.logits[method, seed, network] for seed in kept])
    return predictions
