"""Speed of ``training.fit_many`` against ``training.fit`` of each model by itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.models.small_lm import ModelSize, count_parameters, small_lm
from workbench.runtime import generator, seeded, threads
from workbench.training.loop import fit
from workbench.training.replicas import fit_many

BATCH, CONTEXT, VOCABULARY, LR = 16, 32, 96, 1e-3
PLAIN = 3  # models that the plain loop trains; its time per model does not depend on their number
Batch = tuple[Tensor, Tensor]  # inputs and labels, [replicas, batch, ...]


def run(quick: bool = False) -> pd.DataFrame:
    """CPU microseconds a step and model, side by side and one by one (medians of interleaved repeats).

    Columns: ``model, parameters, replicas, steps, repeats, plain_us, together_us, speed`` (times the plain loop's)
    and ``difference``, the largest between weights that both ways have trained. One thread.
    """
    steps, repeats = (10, 2) if quick else (60, 5)
    with threads(1):
        return pd.DataFrame(
            _row(name, make, data, count, steps, repeats)
            for name, (make, data) in MODELS.items()
            for count in ((1, 10) if quick else (1, 10, 30))
        )


def _row(name: str, make: Callable, data: Callable, count: int, steps: int, repeats: int) -> dict[str, object]:
    batches = data(count, generator(0))
    plain, together = [], []
    _together([make(seed) for seed in range(count)], batches, 2)  # the first call pays for allocations
    _plain([make(0)], batches, 2)
    for _ in range(repeats):
        beside, alone = ([make(seed) for seed in range(count)] for _ in range(2))
        together.append(_microseconds(_together, beside, batches, steps) / count)
        some = alone[: min(count, PLAIN)]
        plain.append(_microseconds(_plain, some, batches, steps) / len(some))
    difference = max(
        float((one - other).detach().abs().max())
        for one, other in zip(beside[0].parameters(), alone[0].parameters(), strict=True)
    )
    return {
        "model": name,
        "parameters": count_parameters(make(0)),
        "replicas": count,
        "steps": steps,
        "repeats": repeats,
        "plain_us": statistics.median(plain),
        "together_us": statistics.median(together),
        "speed": statistics.median(plain) / statistics.median(together),
        "difference": difference,
    }


def _microseconds(way: Callable, models: Sequence[nn.Module], batches: list[Batch], steps: int) -> float:
    before = time.process_time()
    way(models, batches, steps)
    return 1e6 * (time.process_time() - before) / steps


def _together(models: Sequence[nn.Module], batches: list[Batch], steps: int) -> None:
    def loss(stack: nn.Module, batch: Batch) -> Tensor:
        each = F.cross_entropy(stack(batch[0]).flatten(0, -2), batch[1].flatten(), reduction="none")
        return each.view(stack.replicas, -1).mean(1)

    fit_many(models, batches, loss, steps=steps, lr=LR, label=None)


def _plain(models: Sequence[nn.Module], batches: list[Batch], steps: int) -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        answer = model(batch[0])
        return F.cross_entropy(getattr(answer, "logits", answer).flatten(0, -2), batch[1].flatten())

    for place, model in enumerate(models):
        fit(model, [(x[place], y[place]) for x, y in batches], loss, steps=steps, lr=LR, label=None)


def _perceptron(*widths: int) -> Callable[[int], nn.Module]:
    def make(seed: int) -> nn.Module:
        with seeded(seed):
            layers = [[nn.Linear(a, b), nn.ReLU()] for a, b in pairwise(widths)]
            return nn.Sequential(*[part for pair in layers for part in pair][:-1])

    return make


def _vectors(count: int, random: torch.Generator) -> list[Batch]:
    return [
        (torch.randn(count, BATCH, 64, generator=random), torch.randint(10, (count, BATCH), generator=random))
        for _ in range(4)
    ]


def _images(count: int, random: torch.Generator) -> list[Batch]:
    return [(inputs.unflatten(-1, (1, 8, 8)), labels) for inputs, labels in _vectors(count, random)]


def _convolutions(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip


def _language(count: int, random: torch.Generator) -> list[Batch]:
    windows = [torch.randint(VOCABULARY, (count, 4, CONTEXT + 1), generator=random) for _ in range(4)]
    return [(window[..., :-1], window[..., 1:]) for window in windows]


def _language_model(seed: int) -> nn.Module:
    return small_lm(VOCABULARY, ModelSize(32, 1, 2), context=CONTEXT, seed=seed)


MODELS = {
    "perceptron 64-100-10": (_perceptron(64, 100, 10), _vectors),
    "perceptron 64-400-400-10": (_perceptron(64, 400, 400, 10), _vectors),
    "convolutions 8-16": (_convolutions, _images),
    "Llama 32x1": (_language_model, _language),
}
