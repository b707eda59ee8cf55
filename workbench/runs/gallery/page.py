"""One run's page: what was claimed and found, the notebook with live figures, where it comes from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import nbformat

from workbench.runs.gallery.bench import bench_body
from workbench.runs.gallery.cells import Body, notebook_body
from workbench.runs.gallery.choice import Shown, own_parameters, page_name
from workbench.runs.gallery.claims import claim_rows
from workbench.runs.gallery.templates import render
from workbench.runs.gallery.words import count_verdicts, date_words, duration_words, value_words
from workbench.runs.store import BENCH, FINISHED, Run

LABELS = {
    "git": "Commit",
    "code": "Code (SHA-256)",
    "python": "Python",
    "platform": "System",
    "versions": "Versions",
    "cpu": "Processor",
    "cpu_cores": "Processor cores",
    "gpu": "Graphics card",
    "memory_gib": "Memory, GiB",
}


def read_notebook(run: Run) -> Any | None:
    """The executed notebook of a run, or None where a killed run left none that can be read."""
    try:
        return nbformat.read(run.notebook, as_version=4)
    except (OSError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def run_page(shown: Shown, run: Run, *, template: dict[str, Any], pages: Mapping[str, str]) -> str:
    """The page of ``run`` as HTML; ``pages`` tells where links to other notebooks lead."""
    notebook = read_notebook(run)
    if run.profile == BENCH:
        body = bench_body(shown.bench, template=template)
    else:
        body = notebook_body(notebook, template=template, pages=pages) if notebook else Body("", "", [], 0)
    return render(
        "page.html",
        title=title_of(shown, body.title),
        paper=shown.paper,
        run=run,
        failed=run.status != FINISHED,
        profiles=[(one.profile or "run", page_name(one), one is run) for one in shown.runs],
        others=shown.others,
        claims=claim_rows(run),
        verdicts=count_verdicts(run.claims),
        duration=duration_words(run.duration),
        date=date_words(run.started),
        body=body,
        parameters={name: value_words(value) for name, value in own_parameters(run).items()},
        origin=origin(run),
        command=command(run),
    )


def title_of(shown: Shown, heading: str = "") -> str:
    """The paper's title, else the notebook's first heading, else the stem in words."""
    return (shown.paper.title if shown.paper else heading) or shown.stem.replace("_", " ").capitalize()


def origin(run: Run) -> list[tuple[str, str]]:
    """Where a run comes from, as label and text: commit, versions, machine, cost."""
    facts = [
        ("Started", run.started),
        ("Duration", duration_words(run.duration)),
        ("Processor time", "" if run.cpu_seconds is None else duration_words(run.cpu_seconds)),
        ("Peak memory", "" if run.peak_memory_mib is None else f"{run.peak_memory_mib:.0f} MiB"),
        ("Cores", "" if run.cores is None else str(run.cores)),
        ("Run", run.identity),
        *((LABELS.get(name, name), _fact(name, value)) for name, value in run.provenance.items()),
    ]
    return [(label, text) for label, text in facts if text]


def _typed(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return shlex.quote(text)


def _fact(name: str, value: Any) -> str:
    if name == "git" and value:
        return value["commit"][:12] + (" with uncommitted changes" if value["dirty"] else "")
    if name == "code":
        return str(value)[:12]
    if name == "versions":
        return value_words({package: version for package, version in value.items() if version})
    return value_words(value) if value else ""


def heading_of(notebook: Any) -> str:
    """The first top-level heading of a notebook node; empty where there is none."""
    lines = (line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")


def command(run: Run) -> str:
    """The line that does this run again; a bench's is done again by hand."""
    if run.profile == BENCH:
        return f"jupyter lab notebooks/{run.stem}.ipynb"
    chosen = [f"--profile {run.profile}"] if run.profile else []
    given = [f"-p {name}={_typed(value)}" for name, value in own_parameters(run).items()]
    return " ".join(["python -m workbench run", run.stem, *chosen, *given])
