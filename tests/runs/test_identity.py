import json

from tests.runs.toy_notebooks import write_notebook
from workbench.runs.identity import code_hash, identity
from workbench.runs.plan import plan


def test_outputs_stored_in_the_notebook_do_not_make_another_run(notebook):
    before = identity(notebook, {})
    content = json.loads(notebook.path.read_text())
    content["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "3"}]
    content["cells"][-1]["execution_count"] = 7
    notebook.path.write_text(json.dumps(content))
    assert identity(type(notebook)(notebook.stem, notebook.path), {}) == before


def test_another_cell_parameter_or_code_makes_another_run(notebook):
    first = identity(notebook, {"steps": 1}, code="a")
    assert identity(notebook, {"steps": 2}, code="a") != first
    assert identity(notebook, {"steps": 1}, code="b") != first
    changed = write_notebook(notebook.path, "# A toy", "print(4)")
    assert identity(changed, {"steps": 1}, code="a") != first


def test_the_code_hash_sees_modules_and_published_numbers_and_nothing_else(tmp_path):
    (tmp_path / "published" / "toy").mkdir(parents=True)
    (tmp_path / "module.py").write_text("x = 1")
    table = tmp_path / "published" / "toy" / "table.csv"
    table.write_text("a\n1\n")
    hashes = [code_hash(tmp_path)]
    for path, text in (
        (tmp_path / "module.py", "x = 2"),
        (table, "a\n2\n"),
        (tmp_path / "published" / "README.md", "words"),
    ):
        path.write_text(text)
        code_hash.cache_clear()
        hashes.append(code_hash(tmp_path))
    code_hash.cache_clear()
    assert len(set(hashes)) == 3
    assert hashes[-1] == hashes[-2]


def test_asking_for_the_default_profile_by_name_is_the_same_run(notebook):
    assert plan(notebook).identity == plan(notebook, {"profile": "quick", "steps": None}).identity
    assert plan(notebook, {"profile": "smoke"}).identity != plan(notebook).identity


def test_the_order_of_parameters_does_not_matter(notebook):
    assert plan(notebook, {"steps": 1, "lr": 0.1}).folder == plan(notebook, {"lr": 0.1, "steps": 1}).folder
