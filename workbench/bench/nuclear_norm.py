"""Time of the matrix nuclear norm beside the authors' code, both ways to the entropy, and reading the matrix."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from workbench.metrics.mnn_timing import ENTROPY, GRAM, OFFICIAL, OURS, READ, interleaved, metric_times
from workbench.runtime import available_cores, generator
from workbench.runtime import threads as with_threads

TOKENS = 1024
WIDTHS, QUICK_WIDTHS = (768, 1088, 1536, 2048, 2560, 4096), (768,)
SLOW_WIDTH = 2048  # above it a decomposition of width x width takes tens of seconds and has no goal
TEXT_TOKENS = 256  # of the text that SmolLM2 reads
FORWARD, READ_TWICE = "forward", "two reads"
LEAST = {(ENTROPY, 768): 400.0, (ENTROPY, 2048): 1000.0, (GRAM, 2048): 60.0}  # times faster than
MOST, MOST_FROM = 0.6, 2048  # of the official code's time, from this width on
ORDER = [
    "section", "what", "tokens", "width", "threads", "repeats", "wall_ms", "cpu_ms", "ratio", "value", "goal",
    "reached",
]  # fmt: skip


def run(quick: bool = False) -> pd.DataFrame:
    """Medians of interleaved repeats on ``[1024, width]`` float32, with one and two threads.

    Section ``metric``: the number alone. Section ``end to end``: SmolLM2-135M reads 256 tokens (its forward without
    the head), then the metric; there the forward decides. ``quick`` measures the smallest width with one thread.

    Columns: ``section, what, tokens, width, threads, repeats, wall_ms, cpu_ms``, ``ratio`` (time of this in parts of
    ours; CPU time with one thread, which others' work on the machine disturbs less, wall time with more), ``value``,
    ``goal`` (of the full form) and ``reached``. ``two reads`` is the floor: the mean must be known before any row's
    length is, so the matrix is read twice.
    """
    counts = [1] if quick else [count for count in (1, 2) if count <= max(1, available_cores())]
    parts = []
    for count in counts:
        with with_threads(count):
            parts += [_metric(width, count, quick) for width in (QUICK_WIDTHS if quick else WIDTHS)]
            parts.append(_end_to_end(count, quick))
    return pd.concat(parts, ignore_index=True)


def _metric(width: int, count: int, quick: bool) -> pd.DataFrame:
    hidden = torch.randn(TOKENS, width, generator=generator(0)) + torch.randn(width, generator=generator(1))
    fast, slow = (15, 1) if quick else (60, 3)
    table = metric_times(hidden, fast=fast, slow=slow, decompose=width <= SLOW_WIDTH)
    read = table[table["what"] == READ]
    twice = read.assign(what=READ_TWICE, wall_ms=2 * read["wall_ms"], cpu_ms=2 * read["cpu_ms"], value=math.nan)
    table = pd.concat([table, twice], ignore_index=True)
    return judged(table.assign(section="metric", tokens=TOKENS, width=width, threads=count), full=not quick)


def judged(table: pd.DataFrame, *, full: bool) -> pd.DataFrame:
    """One matrix's times with ``ratio``, and where ``full`` the goals of its width and whether they were reached."""
    time = "cpu_ms" if table["threads"].iloc[0] == 1 else "wall_ms"
    ratio = table[time] / table.loc[table["what"] == OURS, time].item()
    goals, reached = [], []
    for what, width, times in zip(table["what"], table["width"], ratio, strict=True):
        goal, well = "", None
        if what == OFFICIAL and width >= MOST_FROM:
            goal, well = f"ours <= {MOST}x its time", bool(1 / times <= MOST)
        elif (what, width) in LEAST:
            goal, well = f"ours >= {LEAST[what, width]:g}x faster", bool(times >= LEAST[what, width])
        goals.append(goal if full else "")
        reached.append(well if full else None)
    digits = {"wall_ms": 4, "cpu_ms": 4, "ratio": 4, "value": 6}
    return table.assign(ratio=ratio, goal=goals, reached=reached)[ORDER].round(digits)


def _end_to_end(count: int, quick: bool) -> pd.DataFrame:
    """The forward of SmolLM2, and the forward with each metric of its hidden states."""
    from workbench.models.pretrained import load_pretrained

    model, _ = load_pretrained("smollm2-135m")
    tokens = torch.randint(0, model.config.vocab_size, (1, TEXT_TOKENS), generator=generator(0))
    with torch.no_grad():
        hidden = model.base_model(tokens)[0][0]

        def forward() -> Tensor:
            return model.base_model(tokens)[0].sum()

        alone = pd.DataFrame(interleaved({FORWARD: forward}, repeats=1 if quick else 3))
    metrics = metric_times(hidden, fast=5 if quick else 15, slow=1 if quick else 5)
    metrics = metrics[metrics["what"].isin([OURS, OFFICIAL, GRAM, ENTROPY])]
    both = metrics.assign(**{name: metrics[name] + alone[name].item() for name in ("wall_ms", "cpu_ms")})
    table = pd.concat([alone.assign(value=math.nan), both], ignore_index=True)
    table = table.assign(section="end to end", tokens=TEXT_TOKENS, width=hidden.shape[1], threads=count)
    return judged(table, full=False)
