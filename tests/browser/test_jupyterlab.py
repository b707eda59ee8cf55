"""A reader opens a notebook in JupyterLab, runs it and moves a slider."""

import re
import shutil
import time

import pytest

from tests.browser.lab import jupyterlab, open_notebook, run_all_cells
from workbench.files import PROJECT

pytestmark = pytest.mark.browser

MILLISECONDS = 240_000  # for a loaded machine: only what never comes fails
FIGURE = ".jp-OutputArea-output .js-plotly-plot"
# Of the cell that has a sentence to type: the bench above it has figures of its own.
PICKER = f".jp-Cell:has(input[placeholder='Type, then press Enter']) {FIGURE}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over fresh copies of the notebooks, at the profile of the tests."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        (folder / path.name).write_text(text.replace('profile: str = \\"quick\\"', 'profile: str = \\"smoke\\"'))
    with jupyterlab(folder, tmp_path_factory.mktemp("settings")) as address:
        yield address
    shutil.rmtree(folder)


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1600})
    yield page
    page.close()


def shown(page) -> str:
    """What the bars' axes say, such as ``the  0.253``."""
    return " | ".join(page.locator(f"{PICKER} .ytick text").all_text_contents())


def test_moving_the_temperature_of_compare_teachers_moves_the_figure(lab, page, record_property):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    open_notebook(page, lab, "compare_teachers.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    page.wait_for_selector(f"{PICKER} .ytick text", timeout=MILLISECONDS)
    slider = page.locator(".widget-slider", has_text="Temperature").locator(".noUi-handle")
    slider.wait_for(timeout=MILLISECONDS)
    before = shown(page)
    likeliest = float(re.search(r"0\.\d+", before).group())

    slider.focus()
    start = time.perf_counter()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        """([selector, before]) =>
            [...document.querySelectorAll(selector)].map(tick => tick.textContent).join(' | ') !== before""",
        arg=[f"{PICKER} .ytick text", before],
        polling=10,
        timeout=MILLISECONDS,
    )
    record_property("milliseconds_from_key_to_figure", round(1000 * (time.perf_counter() - start)))

    assert float(re.search(r"0\.\d+", shown(page)).group()) < likeliest  # hotter is flatter
    # A figure widget is drawn 700 pixels wide, whatever the page, unless it is told.
    page.wait_for_function(
        """selector => {
            const figure = document.querySelector(selector), output = figure.closest('.jp-OutputArea-output');
            return figure.querySelector('.main-svg').clientWidth > 0.9 * output.clientWidth;
        }""",
        arg=PICKER,
        timeout=MILLISECONDS,
    )
    assert page.locator(".jp-OutputArea-output", has_text="Traceback").count() == 0
    assert problems == []


def test_a_new_sentence_is_read_by_every_model(lab, page):
    open_notebook(page, lab, "compare_teachers.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    page.wait_for_selector(f"{PICKER} .ytick text", timeout=MILLISECONDS)
    sentence = page.locator(".widget-text", has_text="Sentence").locator("input")
    sentence.fill("Friends, Romans, countrymen")
    sentence.press("Enter")
    page.wait_for_selector(".widget-readout:has-text('countrymen')", timeout=MILLISECONDS)
    assert page.locator(".widget-html table", has_text="smollm2-135m").is_visible()


def test_the_front_door_leads_to_the_notebooks_and_its_explorer_draws(lab, page):
    open_notebook(page, lab, "index.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    page.wait_for_selector(f"{FIGURE} .main-svg", timeout=MILLISECONDS)
    page.locator(".jp-OutputArea-output a", has_text="Compare teachers").click()
    page.wait_for_selector(".jp-Notebook h1:has-text('Compare teachers')", timeout=MILLISECONDS)
