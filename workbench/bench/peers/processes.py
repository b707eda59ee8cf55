"""Implementations side by side: all in processes of their own, evaluated in turn so that a slow spell hits all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO

import pandas as pd

import workbench
from workbench.bench.peers.implementations import Shape

QUIET = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}


def compare(
    names: Sequence[str],
    shape: Shape,
    *,
    repeats: int,
    threads: Sequence[int],
    pythons: Mapping[str, Path],
) -> pd.DataFrame:
    """One row per implementation and number of threads: medians over ``repeats``, memory of the worst.

    Args:
        names: ``<who>:<loss>``; one that cannot run is left out after a printed sentence.
        pythons: interpreters by the first word of ``who``, where it is not the running one.

    Columns: ``implementation, loss_name, tokens, threads, cpu_seconds, wall_seconds, peak_mib`` (beyond the
    inputs), ``loss, gradient`` (the norm of that of the hidden states or logits).
    """
    rows = []
    with ExitStack() as stack:
        python = {name: pythons.get(name.split()[0].split(":")[0], Path(sys.executable)) for name in names}
        started = {name: stack.enter_context(_process(python[name], name, shape)) for name in names}
        ready = [name for name, process in started.items() if _read(process, name) is not None]
        for count in threads:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in ready}
            for repeat in range(repeats):
                shift = repeat % max(1, len(ready))
                for name in ready[shift:] + ready[:shift]:
                    process = started[name]
                    process.stdin.write(f"{count}\n")
                    process.stdin.flush()
                    if (one := _read(process, name)) is not None:
                        found[name].append(one)
            rows += [_row(name, shape, count, measured) for name, measured in found.items() if measured]
    return pd.DataFrame(rows)


def _row(name: str, shape: Shape, threads: int, measured: list[dict[str, float]]) -> dict[str, object]:
    who, _, loss = name.partition(":")
    middle = {key: median(one[key] for one in measured) for key in ("cpu_seconds", "wall_seconds", "loss", "gradient")}
    peak = max(one["peak_mib"] for one in measured)
    return {"implementation": who, "loss_name": loss, "tokens": shape.tokens, "threads": threads, **middle,
            "peak_mib": peak}  # fmt: skip


@contextmanager
def _process(python: Path, name: str, shape: Shape) -> Iterator[subprocess.Popen[str]]:
    home = str(Path(workbench.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    command = [
        str(python),
        "-m",
        "workbench.bench.peers.worker",
        name,
        *map(str, (shape.tokens, shape.vocab, shape.width)),
    ]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=os.environ | QUIET | {"PYTHONPATH": path}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        process.errors = errors
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def _read(process: subprocess.Popen[str], name: str) -> dict[str, float] | None:
    """The process's next line; None, after a printed sentence, where it ended."""
    if line := process.stdout.readline():
        return json.loads(line)
    print(f"{name} is not measured: {_last_line(process.errors)}")
    return None


def _last_line(errors: IO[str]) -> str:
    errors.seek(0)
    return (errors.read().strip().splitlines() or ["it ended without a word"])[-1]
