"""One cell of a grid of online distillation: every method and seed of one teacher and one noise, in one run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench.datasets.images import Images, load_images
from workbench.datasets.splits import flip_labels, stratified_parts
from workbench.metrics import calibration
from workbench.models.classifiers import named_classifier, parameter_count
from workbench.training.online import OFFLINE, OnlineLoss, Pair
from workbench.training.replicas import fit_many

LR = 3e-3  # Adam without decay of weights or learning rate, for all; the paper's could not be read
VALIDATION = 0.4  # samples to fit a temperature on, as a share of those trained on
SCALED = ("cross_entropy", "dml")  # also reported with a temperature fitted afterwards
KEPT_SAMPLES = 2000  # test pictures whose logits are kept, to be looked at
CURVE_POINTS = 40
BINS = 15
BATCH = 2000  # test pictures at once


@dataclass(frozen=True)
class OnlineCell:
    """What one task trains."""

    data: str
    student: str
    teacher: str
    noise: float  # share of wrong labels among those trained on and those a temperature is fitted on
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    train_size: int
    epochs: int
    batch_size: int
    delta: float
    temperature: float


@dataclass
class CellOutcome:
    """What a cell found, as tables, and the logits of its test pictures."""

    rows: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame
    labels: np.ndarray  # [samples] of the pictures whose logits are kept
    logits: dict[tuple[str, int, str], np.ndarray] = field(default_factory=dict)  # method, seed, network


@dataclass
class _Split:
    """The samples of one seed; labels to train on and to validate with are as noisy as the cell says."""

    train: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    validation_truth: np.ndarray


def train_cell(cell: OnlineCell) -> CellOutcome:
    """Train and judge every pair of the cell; pairs of one seed start equal and see the same batches."""
    images = load_images(cell.data)
    splits = [split_of(cell, images, seed) for seed in cell.seeds]
    methods = [name for name in cell.methods if name != OFFLINE]
    pairs, curves = _train(cell, images, splits, [(method, place) for method in methods for place in _places(cell)])
    if OFFLINE in cell.methods:
        teachers = {place: pairs["cross_entropy", place].teacher for place in _places(cell)}
        taught, more = _train(cell, images, splits, [(OFFLINE, place) for place in _places(cell)], teachers)
        pairs, curves = pairs | taught, pd.concat([curves, more], ignore_index=True)
    return _judge(cell, images, splits, pairs, curves)


def split_of(cell: OnlineCell, images: Images, seed: int) -> _Split:
    """The training and validation samples of one seed, disjoint, with their classes in their share."""
    sizes = (cell.train_size, round(VALIDATION * cell.train_size))
    train, validation = stratified_parts(images.train_labels, sizes, seed=seed)
    classes, truth = len(images.classes), images.train_labels[validation]
    return _Split(
        train, flip_labels(images.train_labels[train], cell.noise, classes=classes, seed=seed),
        validation, flip_labels(truth, cell.noise, classes=classes, seed=seed + 1_000_003), truth,
    )  # fmt: skip


def new_pair(cell: OnlineCell, images: Images, seed: int, teacher: nn.Module | None = None) -> Pair:
    """Both networks of a seed as they are before training; a given ``teacher`` is frozen."""
    shape, classes = images.shape, len(images.classes)
    student = named_classifier(cell.student, shape, classes, seed=2 * seed)
    if teacher is not None:
        return Pair(student, teacher, frozen=True)
    return Pair(student, named_classifier(cell.teacher, shape, classes, seed=2 * seed + 1))


def batches_of(cell: OnlineCell, images: Images, splits: list[_Split], repeats: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless ``(pictures [pairs, batch, ...], labels [pairs, batch])``; the seeds' batches, ``repeats`` times over."""
    pictures = torch.from_numpy(images.train_images)
    labels = torch.from_numpy(np.stack([split.labels for split in splits]))
    samples = torch.from_numpy(np.stack([split.train for split in splits]))
    order = [np.random.default_rng([seed, 7]) for seed in cell.seeds]
    while True:
        shuffled = torch.from_numpy(np.stack([random.permutation(cell.train_size) for random in order]))
        for part in shuffled.split(cell.batch_size, dim=1):
            chosen = pictures[samples.gather(1, part)]
            yield chosen.repeat(repeats, *[1] * (chosen.dim() - 1)), labels.gather(1, part).repeat(repeats, 1)


def steps_of(cell: OnlineCell) -> int:
    """Optimiser steps of a pair; the last batch of an epoch may be smaller."""
    return cell.epochs * math.ceil(cell.train_size / cell.batch_size)


Key = tuple[str, int]  # method and the place of its seed


def _places(cell: OnlineCell) -> range:
    return range(len(cell.seeds))


def _train(
    cell: OnlineCell,
    images: Images,
    splits: list[_Split],
    keys: list[Key],
    teachers: dict[int, nn.Module] | None = None,
) -> tuple[dict[Key, Pair], pd.DataFrame]:
    given = teachers or {}
    pairs = [new_pair(cell, images, cell.seeds[place], given.get(place)) for _, place in keys]
    steps = steps_of(cell)
    loss = OnlineLoss(
        [method for method, _ in keys], delta=cell.delta, temperature=cell.temperature,
        record_every=max(1, steps // CURVE_POINTS),
    )  # fmt: skip
    batches = batches_of(cell, images, splits, len(keys) // len(cell.seeds))
    fit_many(
        pairs, batches, loss, steps=steps, lr=LR, schedule="constant", betas=(0.9, 0.999), clip=None,
        record_every=steps, label=None,
    )  # fmt: skip
    table = loss.table()
    table.insert(0, "method", [keys[pair][0] for pair in table["pair"]])
    table.insert(1, "seed", [cell.seeds[keys[pair][1]] for pair in table["pair"]])
    return dict(zip(keys, pairs, strict=True)), table.drop(columns="pair")


def _judge(
    cell: OnlineCell, images: Images, splits: list[_Split], pairs: dict[Key, Pair], curves: pd.DataFrame
) -> CellOutcome:
    kept = slice(0, KEPT_SAMPLES)
    outcome = CellOutcome(pd.DataFrame(), curves, pd.DataFrame(), images.test_labels[kept])
    rows, reliability = [], []
    for (method, place), pair in pairs.items():
        seed, split = cell.seeds[place], splits[place]
        both = logits_of_pair(pair, images.test_images)
        entropies = [calibration.entropy(calibration.softmax(logits)) for logits in both]
        sizes = {
            "student_parameters": parameter_count(pair.student),
            "teacher_parameters": parameter_count(pair.teacher),
        }
        for network, logits in zip(("student", "teacher"), both, strict=True):
            outcome.logits[method, seed, network] = logits[kept]
            scales = {method: 1.0}
            if network == "student" and method in SCALED:
                validation = logits_of_pair(pair, images.train_images[split.validation])[0]
                scales[f"{method}_scaled"] = calibration.fit_temperature(validation, split.validation_labels)
                if cell.noise:
                    clean = calibration.fit_temperature(validation, split.validation_truth)
                    scales[f"{method}_scaled_clean"] = clean
            for name, temperature in scales.items():
                key = {"network": network, "method": name, "seed": seed}
                probs = calibration.softmax(logits, temperature=temperature)
                curve = calibration.reliability_curve(probs, images.test_labels, n_bins=BINS)
                reliability.append(curve.assign(**key))
                over = float((entropies[1] > entropies[0]).mean())
                measured = measures(probs, images.test_labels)
                rows.append({**key, **sizes, **measured, "overconfident": over, "fitted_temperature": temperature})
    outcome.rows, outcome.reliability = pd.DataFrame(rows), pd.concat(reliability, ignore_index=True)
    for table in (outcome.rows, outcome.curves, outcome.reliability):
        table.insert(0, "noise", cell.noise)
        table.insert(1, "teacher", cell.teacher)
    return outcome


def measures(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and all measures of calibration of ``[samples, classes]`` probabilities; NaN where they are NaN."""
    names = ("accuracy", "confidence", "ece", "adaptive_ece", "mce", "brier", "nll")
    if not np.isfinite(probs).all():
        return dict.fromkeys(names, math.nan)
    error = calibration.expected_calibration_error
    found = (
        float((probs.argmax(1) == labels).mean()),
        float(probs.max(1).mean()),
        error(probs, labels, n_bins=BINS),
        error(probs, labels, n_bins=BINS, adaptive=True),
        error(probs, labels, n_bins=BINS, norm="max"),
        calibration.brier_score(probs, labels),
        calibration.negative_log_likelihood(probs, labels),
    )
    return dict(zip(names, found, strict=True))


@torch.inference_mode()
def logits_of_pair(pair: Pair, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of student and teacher ``[samples, classes]``, some thousand pictures at a time."""
    pair.eval()
    pieces = [pair(piece) for piece in torch.from_numpy(pictures).split(BATCH)]
    both = torch.cat(pieces).numpy()
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
