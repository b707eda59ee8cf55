"""The papers: a notebook and an experiment module of one name, described without importing either."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import check_choice
from workbench.runs.notebooks import Notebook, notebooks

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@dataclass(frozen=True)
class Paper:
    """One paper as its notebook's heading and its experiment's docstring describe it."""

    stem: str
    title: str  # first heading of the notebook
    claim: str  # first sentence of the module: what the paper says
    citation: str  # authors, year, title, tables
    notebook: Path
    module: Path


def papers(folder: Path | None = None, *, experiments: Path | None = None) -> list[Paper]:
    """Every notebook of ``folder`` that has an experiment module of its name, in alphabetical order."""
    pairs = [(notebook, (experiments or EXPERIMENTS) / f"{notebook.stem}.py") for notebook in notebooks(folder)]
    return [_paper(notebook, module) for notebook, module in pairs if module.is_file()]


def paper(stem: str, folder: Path | None = None) -> Paper:
    """The paper called ``stem``.

    Raises:
        UnknownName: no such paper ("did you mean").
    """
    known = {paper.stem: paper for paper in papers(folder)}
    return known[check_choice("paper", stem, known)]


def _paper(notebook: Notebook, module: Path) -> Paper:
    try:
        docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    except SyntaxError as error:
        docstring = f"({module.name} cannot be read: {error.msg}, line {error.lineno})"  # in the middle of an edit
    first, _, rest = docstring.partition("\n\n")
    claim = " ".join(first.split())
    citation = " ".join(rest.partition("\n\n")[0].split())
    return Paper(
        stem=notebook.stem,
        title=notebook.title,
        claim=claim,
        citation=re.sub(r"^Papers?:\s*", "", citation),
        notebook=notebook.path,
        module=module,
    )
