"""The notebooks there are, read as plain JSON so that listing them costs milliseconds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import UnknownName, check_choice
from workbench.files import PROJECT


@dataclass(frozen=True)
class Notebook:
    """One notebook file; ``stem`` is the name it is called by."""

    stem: str
    path: Path

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """Its cells, with ``source`` as one string.

        Raises:
            ValueError: the file is not a notebook.
        """
        try:
            cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
            return [{**cell, "source": "".join(cell["source"])} for cell in cells]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} cannot be read as a notebook of format 4: {error}.") from error

    @property
    def title(self) -> str:
        """The first heading, or the stem where there is none."""
        lines = (line for cell in self.cells if cell["cell_type"] == "markdown" for line in cell["source"].splitlines())
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), self.stem)

    def tagged(self, tag: str) -> str | None:
        """The source of the first cell with this tag, or None."""
        for cell in self.cells:
            if tag in cell.get("metadata", {}).get("tags", []):
                return cell["source"]
        return None


def notebooks_folder() -> Path:
    """``$WORKBENCH_NOTEBOOKS``; else ``notebooks/`` of the checkout; else of the current folder."""
    if chosen := os.environ.get("WORKBENCH_NOTEBOOKS"):
        return Path(chosen).expanduser().resolve()
    ours = PROJECT / "notebooks"
    return ours if ours.is_dir() else Path.cwd() / "notebooks"


def notebooks(folder: Path | None = None) -> list[Notebook]:
    """Every notebook of ``folder`` (default :func:`notebooks_folder`), by name."""
    found = sorted((folder or notebooks_folder()).glob("*.ipynb"))
    return [Notebook(path.stem, path) for path in found]


def find_notebook(name: str, folder: Path | None = None) -> Notebook:
    """The notebook called ``name``: a stem of the folder, or the path of somebody's own ``.ipynb``.

    Raises:
        UnknownName: there is none ("did you mean").
    """
    known = {notebook.stem: notebook for notebook in notebooks(folder)}
    if not name.endswith(".ipynb"):
        return known[check_choice("notebook", name, known)]
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UnknownName(f"There is no notebook file {name}.")
    if path.stem in known and known[path.stem].path != path:
        # Runs are kept by stem: two notebooks of one name would be taken for one another.
        raise UnknownName(f"{name} has the name of {known[path.stem].path}: rename it, runs are kept by name.")
    return Notebook(path.stem, path)
