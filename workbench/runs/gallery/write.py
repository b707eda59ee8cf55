"""Writes the gallery: an index, a page per run, the table of all claims, and one copy of what they share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plotly

from workbench.files import atomic_path, data_folder, write_text
from workbench.runs.gallery.choice import Shown, choose, page_name
from workbench.runs.gallery.claims import claim_rows
from workbench.runs.gallery.figures import card_figure, figure_html, shared_template
from workbench.runs.gallery.page import heading_of, read_notebook, run_page, title_of
from workbench.runs.gallery.templates import render
from workbench.runs.gallery.words import count_verdicts, date_words, duration_words
from workbench.runs.papers import Paper, papers
from workbench.runs.store import FINISHED, Run, runs

STATIC = Path(__file__).with_name("static")
PLOTLY = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"


def gallery_folder() -> Path:
    """Where the gallery is written unless somebody says otherwise."""
    return data_folder() / "gallery"


def write_gallery(
    folder: Path | None = None, *, of_runs: Iterable[Run] | None = None, of_papers: Iterable[Paper] | None = None
) -> Path:
    """Write the gallery of the runs on record into ``folder``; return the path of its index.

    Pages of runs that are no longer shown are removed.
    """
    folder = folder or gallery_folder()
    shown = choose(runs() if of_runs is None else of_runs, papers() if of_papers is None else of_papers)
    template = shared_template()
    _write_shared(folder, template)
    pages = {one.stem: page_name(one.best) for one in shown if one.best}
    written = {"index.html", "claims.html"}
    for one in shown:
        for run in one.runs:
            write_text(folder / page_name(run), run_page(one, run, template=template, pages=pages))
            written.add(page_name(run))
    write_text(folder / "claims.html", render("claims.html", entries=[_claims_entry(one) for one in shown if one.best]))
    cards = [_card(one, template) for one in shown]
    totals = count_verdicts(claim for one in shown if one.best for claim in one.best.claims)
    write_text(folder / "index.html", render("index.html", cards=cards, verdicts=totals))
    for old in folder.glob("*.html"):
        if old.name not in written:
            old.unlink()
    return folder / "index.html"


def _write_shared(folder: Path, template: dict[str, Any]) -> None:
    for source in [*STATIC.iterdir(), PLOTLY]:
        target = folder / "shared" / source.name
        if source != PLOTLY or not target.is_file() or target.stat().st_size != PLOTLY.stat().st_size:
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    write_text(folder / "shared" / "template.js", f"const sharedTemplate = {json.dumps(template)};\n")


def _card(one: Shown, template: dict[str, Any]) -> dict[str, Any]:
    run = one.best
    notebook = read_notebook(run) if run else None
    figure = card_figure(notebook) if notebook else None
    return {
        "stem": one.stem,
        "title": title_of(one, heading_of(notebook) if notebook else ""),
        "paper": one.paper,
        "run": run,
        "failed": run is not None and run.status != FINISHED,
        "page": page_name(run) if run else "",
        "picture": figure_html(figure, template=template, card=True) if figure else "",
        "verdicts": count_verdicts(run.claims) if run else {},
        "duration": duration_words(run.duration) if run else "",
        "date": date_words(run.started) if run else "",
        "profiles": [(other.profile or "run", page_name(other), other.status) for other in one.runs[1:]],
    }


def _claims_entry(one: Shown) -> dict[str, Any]:
    run = one.best
    notebook = read_notebook(run)
    return {
        "title": title_of(one, heading_of(notebook) if notebook else ""),
        "page": page_name(run),
        "run": run,
        "claims": claim_rows(run),
    }
