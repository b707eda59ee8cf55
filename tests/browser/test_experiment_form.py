"""An experiment's form in JupyterLab: Run, curves that draw themselves, and the claims at the end."""

import os

import nbformat
import pytest

from tests.browser.lab import data_with_texts, jupyterlab, open_notebook, run_all_cells

pytestmark = pytest.mark.browser

MILLISECONDS = 240_000  # for a loaded machine: only what never comes fails
CELL = """from workbench.experiments import taid
from workbench.widgets.experiment_form import ExperimentForm
ExperimentForm(taid, profile="smoke")"""
# A curve that is drawn has a path of some width; an empty figure has axes alone.
DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot .scatterlayer .trace path.js-line')]
    .some(path => path.getBoundingClientRect().width > 100)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("notebooks"), data_with_texts(tmp_path_factory.mktemp("data"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "form.ipynb")
    with jupyterlab(folder, tmp_path_factory.mktemp("settings"), WORKBENCH_DATA=str(data)) as address:
        yield address


def test_a_form_runs_its_experiment_draws_the_curves_and_shows_the_claims(lab, chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1500})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    open_notebook(page, lab, "form.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    run = page.locator(".jp-OutputArea-output button", has_text="Run")
    run.wait_for(timeout=MILLISECONDS)
    assert not page.locator(".jp-OutputArea-output .js-plotly-plot").first.is_visible()  # nothing to draw yet
    run.click()
    page.wait_for_function(f"() => ({DRAWN})() || document.body.innerText.includes('Error:')", timeout=MILLISECONDS)
    assert page.evaluate(DRAWN), page.locator(".jp-OutputArea-output").first.inner_text()
    page.locator(".workbench-report", has_text="Claims").wait_for(timeout=MILLISECONDS)
    assert page.locator(".workbench-report tr", has_text="TAID beats reverse KL").count() == 1
    if folder := os.environ.get("WORKBENCH_PICTURES"):
        page.screenshot(path=f"{folder}/experiment_form.png")
    page.close()
    assert not problems
