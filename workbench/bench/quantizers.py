"""Quantisers beside their references: codes, time to quantise, one layer, a decoding step, the whole model."""

from __future__ import annotations

import importlib

import pandas as pd

from workbench.bench.quantizer_parts.timing import COLUMNS
from workbench.runtime import available_cores

PARTS = ("linear", "decode", "gptq", "peers", "whole_model")
DIGITS = {"wall_ms": 3, "cpu_ms": 3, "ratio": 3, "cpu_ratio": 3, "mib": 1}


def run(quick: bool = False) -> pd.DataFrame:
    """The rows of all parts, with one thread and, unless ``quick``, with two.

    Each part measures ours and its peers in turn, in one process where they can live in one. A part describes its
    further columns in its ``measure``.

    Columns: ``section, what, peer, threads, wall_ms, cpu_ms`` (ours, medians)``, ratio`` (ours in parts of the
    peer's)``, goal, reached`` (None where nothing was promised), and those of the parts.
    """
    counts = [1] if quick else [count for count in (1, 2) if count <= max(1, available_cores())]
    tables = [part(name).measure(quick, count) for name in PARTS for count in counts]
    return in_order(pd.concat([table for table in tables if len(table)], ignore_index=True))


def part(name: str) -> object:
    """The module of one part."""
    return importlib.import_module(f"workbench.bench.quantizer_parts.{name}")


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Common columns first, those of the parts between times and goals."""
    table = table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table.columns])))
    further = [name for name in table.columns if name not in COLUMNS]
    return table[[*COLUMNS[:-2], *further, *COLUMNS[-2:]]].round(DIGITS)
