"""The ways to install agree, and what is needed is named."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTED = [*PROJECT["dependencies"], *(name for extra in PROJECT["optional-dependencies"].values() for name in extra)]


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = [Requirement(line) for line in lines]
    assert all(len(requirement.specifier) == 1 for requirement in pinned)
    return {canonicalize_name(req.name): next(iter(req.specifier)).version for req in pinned}


def test_every_dependency_is_pinned_at_a_version_it_accepts():
    pinned = constraints()
    for requirement in map(Requirement, LISTED):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def imported_from(folder: str) -> dict[str, str]:
    """The top-level modules of others that ``folder`` imports, anywhere in a file, each with one such file."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    ours = {"workbench", "tests", *sys.stdlib_module_names}
    return {module: path for module, path in found.items() if module not in ours}


@pytest.mark.parametrize(
    ("folder", "extras"), [("workbench", ("cluster", "paper")), ("tests", ("test", "cluster", "paper"))]
)
def test_every_module_that_is_imported_is_a_declared_dependency(folder, extras):
    listed = [*PROJECT["dependencies"], *(name for extra in extras for name in PROJECT["optional-dependencies"][extra])]
    declared = {canonicalize_name(Requirement(line).name) for line in listed}
    # An extra need not be installed here; then the module is taken to be called as its package is.
    packages = packages_distributions()
    undeclared = {
        module: path
        for module, path in imported_from(folder).items()
        if declared.isdisjoint(map(canonicalize_name, packages.get(module, [module])))
    }
    assert not undeclared


def test_torch_is_pinned_without_naming_a_build_so_that_gpu_users_are_served_too():
    assert constraints()["torch"] == "2.13.0"


def test_conda_takes_the_same_set_as_make():
    environment = (ROOT / "environment.yml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt" in environment
    assert "--constraint constraints.txt" in makefile
    assert "--editable .[test]" in environment
    assert "--editable '.[test]'" in makefile
    minimum = re.search(r"python=(\d+\.\d+)", environment).group(1)
    assert PROJECT["requires-python"] == f">={minimum}"


def test_each_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    silent = [line for line in block.splitlines() if re.match(r'\s+"', line) and "#" not in line]
    assert not silent


def test_one_version_everywhere():
    assert PROJECT["version"] == workbench.__version__
    assert f"version: {workbench.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {workbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "workbench" / "py.typed").is_file()


def test_nothing_fetched_or_run_can_be_committed():
    assert (ROOT / "data" / ".gitignore").read_text().splitlines()[-2:] == ["*", "!.gitignore"]
