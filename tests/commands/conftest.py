import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from tests.runs.toy_notebooks import PARAMETERS, write_fates, write_notebook

PACKAGE = Path(workbench.__file__).parent


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the package as a checkout of its own, which no edit turns into other code in mid-test."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(PACKAGE, folder / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE.parent / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="session")
def within(checkout):
    """Start Python in the copy, with its own folders unless others are named."""

    def start(*words, **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORKBENCH_")}
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=checkout,
            env={**inherited, "PYTHONPATH": str(checkout), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A folder with the notebooks ``toy`` and ``fates`` and a data folder of its own."""
    write_notebook(tmp_path / "notebooks" / "toy.ipynb", "# A toy", PARAMETERS, "print(steps)")
    write_fates(tmp_path / "notebooks")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WORKBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    return tmp_path
