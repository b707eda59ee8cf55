import json

import pytest

from tests.runs.toy_notebooks import write_notebook
from workbench.errors import UnknownName
from workbench.runs.parameters import check_values, parameters, read_grid, read_values


def test_name_type_default_and_comment_are_those_that_papermill_finds(notebook):
    from papermill import inspect_notebook

    content = json.loads(notebook.path.read_text())
    content["metadata"]["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.path.write_text(json.dumps(content))
    theirs = inspect_notebook(notebook.path)
    ours = {parameter.name: parameter for parameter in parameters(notebook)}
    assert list(ours) == list(theirs)
    for name, told in theirs.items():
        assert ours[name].type == told["inferred_type_name"]
        assert str(ours[name].default) == told["default"].strip('"').replace("1e-3", "0.001")
        assert ours[name].comment == told["help"]


def test_a_parameter_without_annotation_has_the_type_of_its_default(tmp_path):
    notebook = write_notebook(tmp_path / "plain.ipynb", "profile = 'quick'\nsteps = 3\nsizes = (1, 2)  # widths")
    assert [(p.name, p.type, p.default) for p in parameters(notebook)] == [
        ("profile", "str", "quick"),
        ("steps", "int", 3),
        ("sizes", "list", (1, 2)),
    ]


def test_a_notebook_without_parameters_cell_has_none(tmp_path):
    notebook = write_notebook(tmp_path / "index.ipynb", "# Front door", "1 + 1")
    assert parameters(notebook) == []
    assert read_values(notebook, [], profile="smoke") == {}


def test_a_parameters_cell_that_computes_is_refused(tmp_path):
    notebook = write_notebook(tmp_path / "wrong.ipynb", "profile = 'quick'\nsteps = 3 * len(profile)")
    with pytest.raises(ValueError, match="must hold only lines such as"):
        parameters(notebook)


def test_values_are_typed_and_the_profile_is_always_among_them(notebook):
    values = read_values(notebook, ["steps=3", "seeds=[0,1]", "shuffle=false", "lr=none", "corpus=none"])
    assert values == {"steps": 3, "seeds": [0, 1], "shuffle": False, "corpus": "none", "profile": "quick"}


def test_commas_outside_of_brackets_are_the_axis_of_a_grid(notebook):
    grid = read_grid(notebook, ["steps=1,2", "seeds=[0,1],[2]"], profile="smoke")
    assert grid == {"steps": [1, 2], "seeds": [[0, 1], [2]], "profile": ["smoke"]}


def test_in_a_single_run_a_comma_is_no_axis(notebook):
    with pytest.raises(ValueError, match="parameter steps: expected a whole number"):
        read_values(notebook, ["steps=1,2"])


def test_unknown_names_get_a_suggestion(notebook):
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        read_values(notebook, ["step=3"])
    with pytest.raises(UnknownName, match="Did you mean 'quick'"):
        read_values(notebook, [], profile="quik")
    with pytest.raises(UnknownName, match="Did you mean 'full'"):
        read_values(notebook, ["profile=ful"])


def test_an_assignment_without_equals_sign_is_refused(notebook):
    with pytest.raises(ValueError, match="has no '='"):
        read_values(notebook, ["steps"])


def test_python_values_are_held_against_the_types_too(notebook):
    check_values(notebook, {"steps": 3, "lr": 1, "seeds": (0,), "shuffle": None})
    for name, value in {"steps": 1.5, "lr": "1", "seeds": 3, "shuffle": 1}.items():
        with pytest.raises(TypeError, match=f"parameter {name}: expected"):
            check_values(notebook, {name: value})
    with pytest.raises(TypeError, match="parameter steps"):
        check_values(notebook, {"steps": True})
