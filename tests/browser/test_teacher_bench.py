"""The bench for teachers in JupyterLab: a slider answers while all cores train; Stop, Run again, export."""

import json
import os
import re
import statistics

import nbformat
import pytest

from tests.browser.lab import data_with_texts, jupyterlab, open_notebook, run_all_cells

pytestmark = pytest.mark.browser

MILLISECONDS = 240_000  # for a loaded machine: only what never comes fails
ANSWER = 200  # milliseconds in which a slider must be answered
MOVES = 9
CELL = """from workbench.training.teachers import Config
from workbench.widgets.teacher_bench import TeacherBench
bench = TeacherBench(Config.of(
    "smoke", teachers=("32x1", "48x1"), losses=("cross_entropy", "forward_kl"), seeds=(0, 1), steps=20000,
), workers=2)
bench"""
# By the page's own clock: from the key that moves the slider to the axis that says how much is smoothed.
WATCH = """() => {
    window.moves = [];
    let began = null;
    const title = () => document.querySelector('.jp-OutputArea-output .js-plotly-plot .xtitle')?.textContent;
    let before = title();
    document.addEventListener('keydown', () => { began = performance.now(); before = title(); }, true);
    const look = () => {
        if (began !== null && title() && title() !== before) {
            window.moves.push(performance.now() - began);
            began = null;
        }
    };
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a notebook that holds the bench, with a store of runs of its own."""
    folder, data = tmp_path_factory.mktemp("notebooks"), data_with_texts(tmp_path_factory.mktemp("data"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "bench.ipynb")
    with jupyterlab(folder, tmp_path_factory.mktemp("settings"), WORKBENCH_DATA=str(data)) as address:
        yield address, data


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1700})
    yield page
    page.close()


def wait_for_text(page, pattern):
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('.jp-OutputArea')?.innerText ?? '')",
        arg=pattern,
        timeout=MILLISECONDS,
    )


def steps_shown(page):
    return [int(step) for step in re.findall(r"(\d+)/20000", page.locator(".workbench-bench").first.inner_text())]


def moved(page, key):
    """Milliseconds from each of nine moves of the slider to the redrawn figure."""
    page.evaluate("() => { window.moves = []; }")
    page.locator(".widget-slider", has_text="Smoothing").locator(".noUi-handle").focus()
    for count in range(1, MOVES + 1):
        page.keyboard.press(key)
        page.wait_for_function("count => window.moves.length >= count", arg=count, timeout=MILLISECONDS)
    return [round(move) for move in page.evaluate("window.moves")]


def test_a_slider_answers_within_200_ms_while_two_students_train_and_stop_and_run_go_on(lab, page, record_property):
    address, data = lab
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    open_notebook(page, address, "bench.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    run, stop = (page.locator(".jp-OutputArea-output button", has_text=name) for name in ("Run", "Stop"))
    run.wait_for(timeout=MILLISECONDS)
    run.click()
    wait_for_text(page, r"\d+ of 6 finished, 2 running")
    page.wait_for_selector(".jp-OutputArea-output .js-plotly-plot .scatterlayer .js-line", timeout=MILLISECONDS)

    page.evaluate(WATCH)
    training = moved(page, "ArrowRight")
    wait_for_text(page, r"2 running")  # still

    if folder := os.environ.get("WORKBENCH_PICTURES"):
        page.screenshot(path=f"{folder}/teacher_bench.png")
    stop.click()
    wait_for_text(page, r"stopped\. Run goes on from")
    resting = moved(page, "ArrowLeft")
    record_property("milliseconds_from_key_to_figure", f"training {training}, resting {resting}")
    # The median: a move that met a drawing does not decide. On a machine that others keep so busy that a slider is
    # slow even while nothing trains here, training may not make it slower by more than half.
    assert statistics.median(training) < max(ANSWER, 1.5 * statistics.median(resting)), (training, resting)
    before = steps_shown(page)
    records = [json.loads(path.read_text()) for path in data.glob("runs/compare_teachers/*/run.json")]
    assert {record["status"] for record in records} == {"stopped"}
    assert all(path.with_name("checkpoint.pt").is_file() for path in data.glob("runs/compare_teachers/*/run.json"))

    run.click()
    wait_for_text(page, r"\d+ of 6 finished, 2 running")
    page.wait_for_function(
        """before => {
            const text = document.querySelector('.workbench-bench').innerText;
            const steps = [...text.matchAll(/(\\d+)\\/20000/g)].map(found => Number(found[1]));
            return steps.some((step, place) => before[place] > 0 && step > before[place]);
        }""",
        arg=before,
        timeout=MILLISECONDS,
    )
    stop.click()
    wait_for_text(page, r"stopped\. Run goes on from")
    assert problems == []


def test_a_bad_value_is_answered_in_one_sentence_and_nothing_starts(lab, page):
    address, _ = lab
    open_notebook(page, address, "bench.ipynb", timeout=MILLISECONDS)
    run_all_cells(page)
    box = page.locator(".jp-OutputArea-output input[placeholder^='add: ']")
    box.wait_for(timeout=MILLISECONDS)
    box.fill("smollm2-136m")
    box.press("Enter")
    wait_for_text(page, r"Did you mean 'smollm2-135m'\?")
    assert page.locator(".jp-OutputArea-output button", has_text="Stop").is_disabled()
