"""The papers at a glance, for the index notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path

from IPython.display import HTML

from workbench.claim import CONTRADICTED, INCONCLUSIVE, SUPPORTED
from workbench.runs.notebooks import notebooks
from workbench.runs.papers import Paper, papers
from workbench.runs.store import Run, runs

SHAPES = {SUPPORTED: "✔", CONTRADICTED: "✘", INCONCLUSIVE: "?"}  # told apart without colour
ENTRANCE = "index"


def papers_table(folder: Path | None = None, *, experiments: Path | None = None) -> HTML:
    """Every paper with a link to its notebook, its claim, and the verdicts of its last judged run."""
    rows = [
        f"<tr>{_cell(_link(paper.stem, paper.title))}{_cell(escape(paper.claim))}{_cell(_last_verdicts(paper))}</tr>"
        for paper in papers(folder, experiments=experiments)
    ]
    if not rows:
        return HTML("<p>There is no paper yet.</p>")
    heads = "".join(
        f"<th style='text-align:left;padding:4px 10px'>{head}</th>" for head in ("paper", "claim", "last run")
    )
    return HTML(f"<table>{'<thead><tr>' + heads + '</tr></thead>'}<tbody>{''.join(rows)}</tbody></table>")


def tools_table(folder: Path | None = None, *, experiments: Path | None = None) -> HTML:
    """The notebooks that belong to no paper, with a link each."""
    of_papers = {paper.stem for paper in papers(folder, experiments=experiments)}
    tools = [notebook for notebook in notebooks(folder) if notebook.stem not in {*of_papers, ENTRANCE}]
    items = "".join(f"<li>{_link(notebook.stem, notebook.title)}</li>" for notebook in tools)
    return HTML(f"<ul>{items}</ul>" if items else "<p>There are no other notebooks.</p>")


def _last_verdicts(paper: Paper) -> str:
    judged = [run for run in runs(paper.stem, status="finished") if run.claims and run.profile != "smoke"]
    return _verdicts(judged[0]) if judged else "not run yet"


def _verdicts(run: Run) -> str:
    counts = [f"{SHAPES[kind]} {run.verdicts[kind]} {kind}" for kind in SHAPES if run.verdicts.get(kind)]
    return "<br>".join([*counts, f"<small>{escape(run.profile)}, {escape(run.started[:10])}</small>"])


def _link(stem: str, title: str) -> str:
    # JupyterLab opens relative links to notebooks in a tab of its own.
    return f"<a href='{escape(stem)}.ipynb'>{escape(title)}</a>"


def _cell(content: str) -> str:
    return f"<td style='text-align:left;vertical-align:top;padding:4px 10px'>{content}</td>"
