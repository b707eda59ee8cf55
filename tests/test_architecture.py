"""Who may import whom, how long a file may be, and that the front door is light."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "workbench"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

GROUND = {"errors", "files", "runtime", "progress", "profiles", "telemetry"}
INSTRUMENTS = {
    "datasets", "models", "losses", "quantizers", "engine", "training", "reasoning", "populations", "documents",
    "metrics",
}  # fmt: skip
RESULTS = {"claim", "result", "published"}
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(INSTRUMENTS, GROUND | INSTRUMENTS),
    "published": GROUND,
    "claim": GROUND | {"metrics"},
    "result": GROUND | {"metrics", "published", "claim"},
    "experiments": GROUND | INSTRUMENTS | RESULTS,
    "plots": GROUND,
    "widgets": GROUND | INSTRUMENTS | RESULTS | {"plots", "runs"},
    "runs": GROUND | RESULTS | {"plots"},
    "bench": GROUND | INSTRUMENTS,
}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a module imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # "from workbench import plots" names the part only in its aliases.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("workbench.")}
    return found - {"__version__"}


@pytest.mark.parametrize("part_name", sorted(MAY_IMPORT))
def test_each_part_imports_only_what_the_house_allows(part_name):
    allowed = MAY_IMPORT[part_name] | {part_name}
    strayed = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in MODULES
        if part(path) == part_name
        for name in imported_parts(path) - allowed
    }
    assert not strayed


def test_every_part_of_the_package_has_a_rule():
    free = {"__init__", "__main__", "commands"}  # the command line may know all
    assert {part(path) for path in MODULES} <= set(MAY_IMPORT) | free


def test_instruments_import_each_other_without_circles():
    arrows = {name: set() for name in INSTRUMENTS}
    for path in MODULES:
        if part(path) in INSTRUMENTS:
            arrows[part(path)] |= imported_parts(path) & INSTRUMENTS - {part(path)}
    settled: set[str] = set()
    while ready := {name for name in arrows if name not in settled and arrows[name] <= settled}:
        settled |= ready
    assert settled == INSTRUMENTS, f"a circle among {sorted(INSTRUMENTS - settled)}"


def test_relative_imports_are_not_used_since_they_hide_who_is_meant():
    relative = [
        path.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_a_file_is_one_noun_or_one_verb_and_stays_short():
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert not [f"{path}: {length}" for path, length in lengths.items() if length > 400]
    assert statistics.median(lengths.values()) <= 120


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


HEAVY = {"torch", "transformers", "pandas", "numpy", "scipy", "plotly", "papermill", "ipywidgets"}


@pytest.mark.parametrize(
    "statement", ["import workbench", "import workbench.errors, workbench.files, workbench.runtime, workbench.profiles"]
)
def test_the_front_door_brings_nothing_heavy(statement):
    assert not loaded_after(statement) & HEAVY


def test_asking_for_help_brings_neither_torch_nor_papermill():
    loaded = loaded_after("from workbench.__main__ import build_parser; build_parser().format_help()")
    assert not loaded & {"torch", "transformers", "papermill", "plotly"}
