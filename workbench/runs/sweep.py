"""A grid of parameters over one notebook."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files import write_json
from workbench.runs.notebooks import Notebook
from workbench.runs.plan import Job, plan
from workbench.runs.store import Run, load_run, runs_folder

if TYPE_CHECKING:
    import pandas as pd


def grid_points(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last name changing fastest."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def plan_sweep(notebook: Notebook, grid: dict[str, list[Any]]) -> list[Job]:
    """One job per point of the grid."""
    return [plan(notebook, point) for point in grid_points(grid)]


def sweep_file(notebook: Notebook, grid: dict[str, list[Any]]) -> Path:
    """Where the index of a sweep is kept: one file per notebook and grid."""
    name = hashlib.sha256(json.dumps(sorted(grid.items())).encode()).hexdigest()[:12]
    return runs_folder() / notebook.stem / "sweeps" / f"{name}.json"


def write_index(notebook: Notebook, grid: dict[str, list[Any]], jobs: Sequence[Job]) -> Path:
    """Write which runs make up a sweep; before they start, so that an interrupted sweep can be looked at."""
    target = sweep_file(notebook, grid)
    points = [{"parameters": job.parameters, "identity": job.identity} for job in jobs]
    write_json(target, {"stem": notebook.stem, "grid": grid, "runs": points})
    return target


def sweep_runs(index: Path) -> list[Run]:
    """The runs of a sweep that are on record."""
    points = json.loads(index.read_text(encoding="utf-8"))["runs"]
    found = (load_run(index.parent.parent / point["identity"]) for point in points)
    return [run for run in found if run]


def sweep_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The tidy rows of all runs in one table, with a column per parameter that varies (``param_<name>``)."""
    import pandas as pd

    names = sorted({name for run in runs for name in run.parameters})
    told = {name: [json.dumps(run.parameters.get(name)) for run in runs] for name in names}
    varying = [name for name in names if len(set(told[name])) > 1]
    tables = []
    for place, run in enumerate(runs):
        rows = run.rows()
        if rows is not None:
            values = {f"param_{name}": told[name][place] for name in varying}
            tables.append(rows.assign(**values, run=run.identity))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
