"""A job: one notebook with one set of parameters, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.runs.identity import identity
from workbench.runs.notebooks import Notebook
from workbench.runs.parameters import check_values, parameters
from workbench.runs.store import Run, load_run, runs_folder


@dataclass(frozen=True)
class Job:
    """What is to be run and where its record goes."""

    notebook: Notebook
    parameters: dict[str, Any]
    identity: str
    folder: Path

    @property
    def stem(self) -> str:
        """The notebook's name."""
        return self.notebook.stem

    @property
    def profile(self) -> str:
        """The profile; empty where the notebook has none."""
        return self.parameters.get("profile", "")

    @property
    def code_cells(self) -> int:
        """How many cells there are to execute."""
        return sum(cell["cell_type"] == "code" for cell in self.notebook.cells)

    @property
    def label(self) -> str:
        """The stem with what was asked of it, for one line of a log."""
        told = " ".join(f"{name}={value}" for name, value in self.parameters.items() if name != "profile")
        return " ".join(part for part in (self.stem, self.profile, told) if part)

    def recorded(self) -> Run | None:
        """The run on record of exactly this job, or None."""
        return load_run(self.folder)


def plan(notebook: Notebook, values: dict[str, Any] | None = None) -> Job:
    """The job of ``notebook`` with ``values``; those that are None come from the profile.

    Raises:
        UnknownName: unknown parameter or profile ("did you mean").
        TypeError: a value of another type than the parameters cell says.
    """
    check_values(notebook, values or {})
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in (values or {}).items()
        if value is not None
    }
    if "profile" not in given:
        # The notebook's own default is the same run as asking for it by name.
        given |= {known.name: known.default for known in parameters(notebook) if known.name == "profile"}
    ordered = dict(sorted(given.items()))
    name = identity(notebook, ordered)
    return Job(notebook, ordered, name, runs_folder() / notebook.stem / name)
