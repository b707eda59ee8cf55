"""Time and memory of the losses beside TRL, Liger, torchdistill and eager PyTorch, one process each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workbench.bench.peers.environments import PEERS, peer_python
from workbench.bench.peers.floor import floor
from workbench.bench.peers.goals import with_goals
from workbench.bench.peers.implementations import Shape
from workbench.bench.peers.processes import compare
from workbench.runtime import available_cores

FULL, QUICK = Shape(512, 49_152, 576), Shape(128, 8_192, 192)
LONG = 8  # times the tokens, to see what memory grows with

LINEAR = {  # each group is measured in turn with itself only; the first two are the figures
    "forward_kl": ("naive", "trl", "eager", "trl chunked", "ours", "ours bf16"),
    "generalized_jsd": (
        "trl", "eager", "liger 32", "liger 64", "liger 128", "liger 1024", "trl chunked", "ours", "ours bf16",
    ),
    "reverse_kl": ("trl", "ours"),
    "skew_kl": ("eager", "ours"),
    "skew_reverse_kl": ("eager", "ours"),
    "taid": ("eager", "ours"),
}  # fmt: skip
LOGITS = {
    "forward_kl": ("trl", "eager", "torchdistill", "ours"),
    "reverse_kl": ("trl", "eager", "ours"),
    "generalized_jsd": ("trl", "eager", "ours"),
    "skew_kl": ("eager", "ours"),
    "skew_reverse_kl": ("eager", "ours"),
    "taid": ("eager", "ours"),
}
IN_QUICK = ("forward_kl", "generalized_jsd")
TIMED = {("linear", loss) for loss in IN_QUICK}  # at every number of threads; memory does not depend on it


def run(quick: bool = False) -> pd.DataFrame:
    """Forward and backward of each loss: medians of interleaved repeats, peak memory beyond the inputs.

    Sections: ``linear`` (both last layers and the loss), ``growth`` (the same at eight times the tokens) and
    ``logits`` (the loss alone). ``quick`` measures two losses in a small shape with one thread, and only those
    peers that are installed.

    Columns: ``section, loss_name, implementation, tokens, threads, cpu_seconds, wall_seconds, peak_mib``,
    ``cpu_ratio`` and ``mib_ratio`` (ours in parts of this), ``loss, gradient`` (norm) and whether they ``agree``
    with ours, ``goal`` (of the full shape, empty in ``quick``) and ``reached``. Rows ``floor`` are what the
    machine's best matrix product and memory would need.
    """
    shape = QUICK if quick else FULL
    pythons = {name: python for name in PEERS if (python := peer_python(name, install=not quick))}
    threads = [1] if quick else [count for count in (1, 2) if count <= max(1, available_cores())]
    repeats = 3 if quick else 5
    parts = []
    for section, groups, sizes in (
        ("linear", LINEAR, shape),
        ("growth", dict.fromkeys(IN_QUICK, ("ours",)), Shape(LONG * shape.tokens, shape.vocab, shape.width)),
        ("logits", LOGITS, Shape(shape.tokens, shape.vocab, 0)),
    ):
        for loss in IN_QUICK if quick else groups:
            measured = compare(
                _names(groups[loss], loss, pythons),
                sizes,
                repeats=1 if section == "growth" else repeats,
                threads=threads if section == "logits" or (section, loss) in TIMED else [1],
                pythons=pythons,
            )
            parts.append(measured.assign(section=section))
    table = pd.concat([*parts, floor(shape, threads)], ignore_index=True)
    return with_goals(table, shape, full=not quick)


def _names(who: Sequence[str], loss: str, pythons: Mapping[str, Path]) -> list[str]:
    there = [one for one in who if (package := one.split()[0]) not in PEERS or package in pythons]
    return [f"{one}:{loss}" for one in there]
