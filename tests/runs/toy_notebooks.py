"""Notebooks of a few cells that do what a test asks of them."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.runs.notebooks import Notebook

PARAMETERS = """\
profile: str = "quick"  # smoke, quick, full or paper
steps: int = None  # optimiser steps
lr: float = 1e-3  # step size, such as 1e-3; no more
seeds: list = None  # one run each
shuffle: bool = None  # order of the data
corpus: str = None  # a name or a path
"""

# What befalls a run: each happens for real, to the process that the name says.
FATES = """\
import os, signal, time
from pathlib import Path
from workbench.metrics.uncertainty import Effect
from workbench.result import Claim, Result
marker = Path(os.environ["WORKBENCH_DATA"]) / f"tried-{fate}"
first = not marker.exists()
marker.write_text(str(os.getpid()))"""
ACT = """\
if fate == "kernel killed" and first:
    os.kill(os.getpid(), signal.SIGKILL)
if fate == "worker killed" and first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if fate == "too slow" or (fate == "interrupted" and first):
    time.sleep(600)
if fate == "raises":
    raise RuntimeError("as it was asked to")"""
CONCLUDE = """\
import pandas as pd
gain = Effect.exact(-1.0 if fate == "gate fails" else 1.0)
claim = Claim("The gate holds", gain, above=0.0, gating=True)
result = Result("fates", {"profile": profile}, pd.DataFrame({"seed": [0], "loss": [0.5]}), claims=[claim])
result.save()
result.check()"""


def write_notebook(path: Path, *cells: str) -> Notebook:
    """Write cells: a source that starts with '# ' is markdown, one that starts with 'profile' the parameters."""
    written = []
    for place, source in enumerate(cells):
        tags = ["parameters"] if source.startswith("profile") else []
        cell = {"id": f"cell-{place}", "metadata": {"tags": tags}, "source": source}
        if source.startswith("# "):
            cell["cell_type"] = "markdown"
        else:
            cell |= {"cell_type": "code", "outputs": [], "execution_count": None}
        written.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": written, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return Notebook(path.stem, path)


def write_fates(folder: Path) -> Notebook:
    """The notebook ``fates``, whose parameter ``fate`` says what happens to its run."""
    parameters = 'profile: str = "quick"  # size\nfate: str = None  # what happens'
    return write_notebook(folder / "fates.ipynb", "# Fates", parameters, FATES, ACT, CONCLUDE)
