"""The page of a bench's runs: they have no notebook, so the newest and those that can stand beside it make a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from workbench.runs.gallery.cells import Body, table_html
from workbench.runs.gallery.figures import figure_html
from workbench.runs.store import BENCH, FINISHED, Run

COLUMNS = (
    "teacher", "teacher_parameters", "teacher_nats", "loss", "seed", "nats", "accuracy", "kl_to_teacher", "student",
    "tokens_per_second", "seconds",
)  # fmt: skip
OWN = ("teacher", "loss", "seed", "vocabulary", "teacher_steps")  # what runs of one press differ in


def of_one_bench(run: Run, others: Iterable[Run]) -> list[Run]:
    """The finished runs of a bench that differ from ``run`` in teacher, loss and seed alone, by the same code."""
    return [
        other
        for other in others
        if other.profile == BENCH
        and other.stem == run.stem
        and other.status == FINISHED
        and other.provenance.get("code") == run.provenance.get("code")
        and _shared(other) == _shared(run)
    ]


def bench_body(runs: Iterable[Run], *, template: dict[str, Any]) -> Body:
    """A figure of held-out loss against the teacher's size and a table of all students; empty without rows."""
    tables = [table for run in runs if (table := run.rows()) is not None]
    if not tables:
        return Body("", "", [], 0)
    rows = pd.concat(tables, ignore_index=True)
    parts = []
    if {"teacher", "teacher_parameters", "loss", "nats", "vocabulary"} <= set(rows.columns):
        from workbench.plots.teacher_gap import teacher_gap

        figure = json.loads(teacher_gap(rows).to_json())
        parts.append(figure_html(figure, template=template))
        rows = rows.sort_values(["loss", "teacher_parameters", "seed"], ignore_index=True)
        rows = rows[[name for name in COLUMNS if name in rows.columns]].astype({"teacher_parameters": "Int64"})
    table = rows.to_html(index=False, border=0, float_format="%.4g", na_rep="–")
    parts.append(table_html(table))
    return Body("", "\n".join(parts), [], len(parts) - 1)


def _shared(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.parameters.items() if name not in OWN}
