"""Two notebooks run once by the command line, for all tests that look at runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs.sample_notebooks import write_notebooks
from tests.runs.toy_notebooks import PARAMETERS, write_notebook
from workbench.runs.papers import Paper, papers
from workbench.runs.store import Run, runs


@dataclass
class Sample:
    """The runs of the sample notebooks and the paper that one of them is."""

    runs: list[Run]
    papers: list[Paper]

    def run(self, stem: str) -> Run:
        return next(run for run in self.runs if run.stem == stem)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Sample:
    """A finished run of ``few_digits`` and a failed one of ``breaks_down``."""
    folder: Path = tmp_path_factory.mktemp("sample")
    write_notebooks(folder)
    environment = {
        **os.environ,
        "WORKBENCH_DATA": str(folder / "data"),
        "WORKBENCH_NOTEBOOKS": str(folder / "notebooks"),
    }
    command = [sys.executable, "-m", "workbench", "run", "few_digits", "breaks_down"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # one of them fails, and is meant to
    there = papers(folder / "notebooks", experiments=folder / "experiments")
    return Sample(runs(folder=folder / "data" / "runs"), there)


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Runs and notebooks of this test alone."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WORKBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))


@pytest.fixture
def notebook(tmp_path, own_folders):
    """A notebook called ``toy`` with a parameter of each type."""
    return write_notebook(tmp_path / "notebooks" / "toy.ipynb", "# A toy", PARAMETERS, "print(steps)")
