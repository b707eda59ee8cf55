"""The reliability diagram under the hand, without kernel or browser."""

import time

import numpy as np
import plotly.graph_objects as go
import pytest

from workbench.metrics.calibration import expected_calibration_error, softmax
from workbench.training.online_grid import Predictions
from workbench.widgets.reliability_explorer import ReliabilityExplorer


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 797)
    found = Predictions(labels, (0, 1, 2))
    for noise in (0.2, 0.0):
        for teacher in ("32x2", "128x2"):
            for method, scale in (("dml", 1.0), ("bd_kd", 2.0)):
                for network in ("student", "teacher"):
                    logits = random.normal(size=(3, 797, 10)) + 3 * np.eye(10)[labels]
                    found.cells[noise, teacher, method, network] = (scale * logits).astype(np.float32)
    return found


def test_it_begins_with_the_papers_method_and_the_largest_teacher(predictions):
    explorer = ReliabilityExplorer(predictions)
    assert (explorer.method.value, explorer.teacher.value, explorer.noise.value) == ("bd_kd", "128x2", 0.2)


def test_the_error_is_that_of_the_chosen_cell_bins_and_temperature(predictions):
    explorer = ReliabilityExplorer(predictions)
    explorer.method.value, explorer.noise.value, explorer.network.value = "dml", 0.0, "teacher"
    explorer.n_bins.value, explorer.adaptive.value, explorer.temperature.value = 7, True, 2.0
    logits = predictions.logits(noise=0.0, teacher="128x2", method="dml", network="teacher")
    by_hand = [
        expected_calibration_error(softmax(one, temperature=2.0), predictions.labels, n_bins=7, adaptive=True)
        for one in logits
    ]
    np.testing.assert_allclose(explorer.error, by_hand)
    assert f"{np.mean(by_hand):.4f} ±" in explorer.sentence.value
    assert len(explorer.figure.data[2].x) == 7


def test_the_best_temperature_makes_the_nll_least(predictions):
    explorer = ReliabilityExplorer(predictions)
    explorer.best.click()
    best, least = explorer.temperature.value, explorer.nll.mean()
    for factor in (0.8, 1.25):
        explorer.temperature.value = best * factor
        assert explorer.nll.mean() > least
    explorer.method.value = "dml"
    explorer.best.click()
    assert explorer.temperature.value < 0.8 * best


def test_the_sentence_says_on_which_side_a_network_errs(predictions):
    explorer = ReliabilityExplorer(predictions)
    explorer.temperature.value = 0.2
    assert "over-confident" in explorer.sentence.value
    explorer.temperature.value = 9.0
    assert "under-confident" in explorer.sentence.value


def test_a_move_costs_some_milliseconds(predictions):
    explorer = ReliabilityExplorer(predictions)
    moves = np.linspace(0.3, 3, 10)
    before = time.process_time()
    for value in moves:
        explorer.temperature.value = value
    assert (time.process_time() - before) / len(moves) < 0.2  # a hand notices a fifth of a second


def test_one_seed_has_no_error(predictions):
    predictions.seeds = (0,)
    predictions.cells = {key: logits[:1] for key, logits in predictions.cells.items()}
    assert "±" not in ReliabilityExplorer(predictions).sentence.value


def test_without_anybody_looking_the_figure_is_a_plain_one(predictions, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    explorer = ReliabilityExplorer(predictions)
    assert type(explorer.figure) is go.Figure
    explorer.temperature.value = 2.0
    assert explorer.figure.to_json()
