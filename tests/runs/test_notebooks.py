import pytest

from tests.runs.toy_notebooks import write_notebook
from workbench.errors import UnknownName
from workbench.runs.notebooks import find_notebook, notebooks
from workbench.runs.papers import papers

pytestmark = pytest.mark.usefixtures("own_folders")

MODULE = '''"""Small teachers teach better.

Paper: Doe 2020, "Teaching", table 3.

More words.
"""
import a_module_that_does_not_exist
'''


def test_notebooks_are_listed_by_name_with_their_first_heading(tmp_path):
    write_notebook(tmp_path / "notebooks" / "zebra.ipynb", "x = 1")
    write_notebook(tmp_path / "notebooks" / "ant.ipynb", "x = 1", "# The ant\n\n## Its legs")
    assert [(one.stem, one.title) for one in notebooks()] == [("ant", "The ant"), ("zebra", "zebra")]


def test_somebodys_own_notebook_is_found_by_its_path(tmp_path):
    own = write_notebook(tmp_path / "elsewhere" / "mine.ipynb", "x = 1")
    assert find_notebook(str(own.path)).stem == "mine"


def test_an_own_notebook_may_not_pass_for_one_of_the_house(notebook, tmp_path):
    own = write_notebook(tmp_path / "elsewhere" / "toy.ipynb", "x = 1")
    with pytest.raises(UnknownName, match="rename it"):
        find_notebook(str(own.path))


def test_an_unknown_notebook_gets_a_suggestion(notebook):
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        find_notebook("toys")
    with pytest.raises(UnknownName, match="no notebook file"):
        find_notebook("nowhere.ipynb")


def test_no_folder_means_no_notebooks():
    assert notebooks() == []


def test_a_file_that_is_no_notebook_is_told_by_name(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "broken.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.ipynb cannot be read as a notebook"):
        notebooks()[0].cells  # noqa: B018


def test_a_paper_is_described_without_importing_its_experiment(notebook, tmp_path):
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    (experiments / "toy.py").write_text(MODULE)
    (experiments / "without_notebook.py").write_text(MODULE)
    (paper,) = papers(experiments=experiments)
    assert paper.claim == "Small teachers teach better."
    assert paper.citation == 'Doe 2020, "Teaching", table 3.'
    assert (paper.stem, paper.title, paper.notebook) == ("toy", "A toy", notebook.path)


def test_an_experiment_in_the_middle_of_an_edit_does_not_hide_the_others(notebook, tmp_path):
    (tmp_path / "toy.py").write_text("def broken(:\n")
    (paper,) = papers(experiments=tmp_path)
    assert paper.claim == "(toy.py cannot be read: invalid syntax, line 1)"
