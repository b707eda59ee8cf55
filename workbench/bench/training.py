"""Speed of ``training.fit`` against a bare PyTorch loop of the same model and batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, count_parameters, small_lm
from workbench.runtime import generator, threads
from workbench.training.loop import fit

Loop = Callable[[nn.Module, list[Tensor]], None]

GOAL = 0.9  # of the bare loop's speed
VOCABULARY, CONTEXT, BATCH, LR = 2048, 64, 8, 1e-3


def run(quick: bool = False) -> pd.DataFrame:
    """Milliseconds a step of a 1M-parameter student by both loops (medians of interleaved repeats), and the ratio.

    Columns: ``loop, parameters, steps, repeats, cpu_ms, wall_ms, speed`` (of the bare loop's, by CPU time),
    ``wall_speed``, ``goal``, ``reached``. One thread; each repeat starts from the same weights.
    """
    steps, repeats = (6, 3) if quick else (20, 7)
    size = ModelSize(128, 3, 8)
    batches = list(torch.randint(VOCABULARY, (steps, BATCH, CONTEXT + 1), generator=generator(0)))
    loops = {"bare": _bare, "fit": _fit}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    with threads(1):
        for loop in loops.values():  # the first call pays for allocations
            loop(_model(size), batches[:2])
        for repeat in range(repeats):
            # In turn, the first one changing: a slow spell of the machine then hits both alike.
            for name in sorted(loops, reverse=bool(repeat % 2)):
                times[name].append(_time(loops[name], _model(size), batches))
    cpu = {name: statistics.median(one[0] for one in found) for name, found in times.items()}
    wall = {name: statistics.median(one[1] for one in found) for name, found in times.items()}
    return pd.DataFrame(
        {
            "loop": name,
            "parameters": count_parameters(_model(size)),
            "steps": steps,
            "repeats": repeats,
            "cpu_ms": 1000 * cpu[name] / steps,
            "wall_ms": 1000 * wall[name] / steps,
            "speed": cpu["bare"] / cpu[name],
            "wall_speed": wall["bare"] / wall[name],
            "goal": GOAL,
            "reached": cpu["bare"] / cpu[name] >= GOAL,
        }
        for name in loops
    )


def _model(size: ModelSize) -> nn.Module:
    return small_lm(VOCABULARY, size, context=CONTEXT, seed=0)


def _time(
    loop: Callable[[nn.Module, list[Tensor]], None], model: nn.Module, batches: list[Tensor]
) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    loop(model, batches)
    return time.process_time() - cpu, time.perf_counter() - wall


def _bare(model: nn.Module, batches: list[Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    for batch in batches:
        optimizer.zero_grad()
        next_token_loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def _fit(model: nn.Module, batches: list[Tensor]) -> None:
    fit(model, batches, next_token_loss, steps=len(batches), lr=LR, label=None)
