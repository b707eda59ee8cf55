"""Notebooks are thin narratives over the package: how they are written, and that each of them runs."""

import ast
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from workbench.files import PROJECT
from workbench.profiles import Profiled, describe
from workbench.runs.notebooks import Notebook, notebooks
from workbench.runs.papers import papers
from workbench.runs.parameters import parameters
from workbench.runs.plan import plan
from workbench.runs.session import run_session

NOTEBOOKS = notebooks(PROJECT / "notebooks")
PAPERS = {paper.stem for paper in papers(PROJECT / "notebooks")}
WITHOUT_PARAMETERS = {"index", "compare_runs"}  # they show what there is
CONFIGS = {"compare_teachers": "workbench.training.teachers"} | {
    stem: f"workbench.experiments.{stem}" for stem in PAPERS
}
WITH_STORED_OUTPUTS = Path(__file__).parent / "losses_by_hand.ipynb"
MOST_CODE_CELLS, MOST_LINES = 25, 12


def each(stems=None):
    """A test case per notebook, called by its stem."""
    chosen = [notebook for notebook in NOTEBOOKS if stems is None or notebook.stem in stems]
    return pytest.mark.parametrize("notebook", chosen, ids=[notebook.stem for notebook in chosen])


def code_of(notebook: Notebook) -> list[str]:
    return [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]


def config_of(notebook: Notebook) -> type[Profiled]:
    return importlib.import_module(CONFIGS[notebook.stem]).Config


@each()
def test_a_notebook_is_valid_and_asks_for_the_plain_python_kernel(notebook):
    content = nbformat.read(notebook.path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(content)
    assert content.metadata.kernelspec.name == "python3"
    identities = [cell.id for cell in content.cells]
    assert len(set(identities)) == len(identities)


@each()
def test_a_notebook_begins_with_its_title_and_is_stored_without_outputs(notebook):
    assert notebook.cells[0]["cell_type"] == "markdown"
    assert notebook.cells[0]["source"].startswith("# ")
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} <= {None}


@each()
def test_a_notebook_is_thin(notebook):
    cells = code_of(notebook)
    assert len(cells) <= MOST_CODE_CELLS
    for source in cells:
        assert len(source.splitlines()) <= MOST_LINES, source
        logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, logic)], source


@each()
def test_a_notebook_has_one_parameters_cell(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 or (notebook.stem in WITHOUT_PARAMETERS and not tagged)


@each(CONFIGS)
def test_papermill_sees_every_line_of_the_parameters_cell(notebook):
    seen = papermill.inspect_notebook(str(notebook.path))
    written = parameters(notebook)
    assert list(seen) == [parameter.name for parameter in written]
    for parameter in written:
        assert seen[parameter.name]["help"] == parameter.comment
        assert seen[parameter.name]["inferred_type_name"] == parameter.type


@each(CONFIGS)
def test_only_the_profile_has_a_value(notebook):
    profile, *others = parameters(notebook)
    assert (profile.name, profile.type, profile.default) == ("profile", "str", "quick")
    assert {parameter.default for parameter in others} <= {None}


@each(CONFIGS)
def test_the_parameters_are_the_configs_fields_with_the_same_words(notebook):
    fields = {field.name: field for field in describe(config_of(notebook)) if field.name != "profile"}
    written = {parameter.name: parameter for parameter in parameters(notebook) if parameter.name != "profile"}
    assert list(written) == list(fields)
    for name, parameter in written.items():
        assert parameter.comment == fields[name].comment
        assert parameter.type in plain_types(fields[name].type)


def plain_types(annotation: str) -> set[str]:
    """The types that a parameters cell may give to a field: papermill knows neither unions nor tuples."""
    parts = [part.strip().partition("[")[0] for part in annotation.split("|")]
    return {{"tuple": "list", "Literal": "str"}.get(part, part) for part in parts}


@each(CONFIGS)
def test_every_parameter_reaches_the_config(notebook):
    calls = [
        node
        for source in code_of(notebook)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Config.of")
    ]
    assert len(calls) == 1
    assert [ast.unparse(argument) for argument in calls[0].args] == ["profile"]
    handed = {keyword.arg: ast.unparse(keyword.value) for keyword in calls[0].keywords}
    names = [parameter.name for parameter in parameters(notebook) if parameter.name != "profile"]
    assert handed == {name: name for name in names}


@each(CONFIGS)
def test_full_is_really_full(notebook):
    values = {parameter.name: parameter.default for parameter in parameters(notebook)}
    config = config_of(notebook)
    assert config.of(**{**values, "profile": "full"}) == config.of("full")
    assert config.of("full") != config.of("quick")


@each(PAPERS)
def test_a_paper_is_saved_before_its_claims_are_checked(notebook):
    source = "\n".join(code_of(notebook))
    assert "Config.of" in source
    assert source.index("result.save()") < source.index("result.check()")


@pytest.fixture(scope="module")
def executed(request, tmp_path_factory):
    """Every notebook that a selected test asks for, run at ``smoke`` by the package's own runner."""
    asking = [item for item in request.session.items if "executed" in getattr(item, "fixturenames", ())]
    asked = [item.callspec.params["notebook"] for item in asking]
    # Before there is a paper, pytest puts a placeholder in place of its notebooks.
    chosen = {notebook.stem: notebook for notebook in asked if isinstance(notebook, Notebook)}
    folder = tmp_path_factory.mktemp("runs")
    jobs = []
    for stem, notebook in chosen.items():
        job = plan(notebook, {"profile": "smoke"} if stem in CONFIGS else {})
        # Beside the reader's own runs, not among them.
        jobs.append(dataclasses.replace(job, folder=folder / stem))
    return {run.stem: run for run in run_session(jobs, force=True)}


@pytest.mark.notebooks
@each()
def test_a_notebook_runs_to_its_end(notebook, executed):
    run = executed[notebook.stem]
    assert (run.status, run.error) == ("finished", None)
    content = nbformat.read(run.notebook, as_version=4)
    figures = [output for cell in content.cells for output in cell.get("outputs", []) if "data" in output]
    assert figures, "a notebook that shows nothing"
    assert run.notebook.stat().st_size < 2_000_000  # 5 MB would mean that a figure widget came in


@pytest.mark.notebooks
@each(PAPERS)
def test_a_papers_rows_are_those_of_run(notebook, executed):
    experiment = importlib.import_module(CONFIGS[notebook.stem])
    ours = experiment.run(experiment.Config.of("smoke")).rows
    theirs = executed[notebook.stem].rows()
    measured = [name for name in ours.columns if name != "seconds"]  # time is not repeatable
    pd.testing.assert_frame_equal(theirs[measured], ours[measured], check_dtype=False)


@pytest.mark.notebooks
@each(PAPERS)
def test_a_smoke_run_judges_nothing(notebook, executed):
    claims = executed[notebook.stem].claims
    assert claims
    assert {claim["verdict"] for claim in claims} == {"not judged"}


@pytest.mark.notebooks
def test_the_stored_outputs_of_the_losses_by_hand_still_come_out():
    content = nbformat.read(WITH_STORED_OUTPUTS, as_version=4)
    # What was never run would not be compared.
    assert all(cell.execution_count for cell in content.cells if cell.cell_type == "code")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(WITH_STORED_OUTPUTS)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
