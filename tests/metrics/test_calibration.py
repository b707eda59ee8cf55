"""Calibration: hand sums, scikit-learn's scores, and the places where implementations disagree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from workbench.errors import UnknownName
from workbench.metrics.calibration import (
    brier_score,
    entropy,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_curve,
    softmax,
)


def two_classes(*confidences):
    """Probabilities whose top class, always the first, has these."""
    return np.array([[confidence, 1 - confidence] for confidence in confidences])


def drawn(samples=4000, classes=5, seed=0):
    """Logits, and labels drawn from their own softmax: perfectly calibrated."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(samples, classes))
    return logits, np.array([random.choice(classes, p=row) for row in softmax(logits)])


def test_a_hand_sum_over_two_bins():
    probs = two_classes(0.6, 0.6, 0.9, 0.9, 0.9)
    labels = [0, 1, 0, 0, 1]
    # bins of ten: (0.5, 0.6] holds two with accuracy 1/2, (0.8, 0.9] three with 2/3
    low, high = abs(0.5 - 0.6), abs(2 / 3 - 0.9)
    assert expected_calibration_error(probs, labels, n_bins=10) == pytest.approx(0.4 * low + 0.6 * high)
    assert expected_calibration_error(probs, labels, n_bins=10, norm="max") == pytest.approx(high)
    rms = np.sqrt(0.4 * low**2 + 0.6 * high**2)
    assert expected_calibration_error(probs, labels, n_bins=10, norm="l2") == pytest.approx(rms)


@pytest.mark.parametrize("confidence", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(confidence):
    curve = reliability_curve(two_classes(confidence), [0], n_bins=10)
    (filled,) = np.flatnonzero(curve["count"])
    assert filled == round(confidence * 10) - 1
    assert curve["high"][filled] == pytest.approx(confidence)


def test_certainty_lies_in_the_last_bin_whatever_their_number():
    for n_bins in (1, 2, 3, 7, 15, 100):
        assert reliability_curve(two_classes(1.0), [0], n_bins=n_bins)["count"].tolist()[-1] == 1


def test_empty_bins_are_listed_and_count_nothing():
    curve = reliability_curve(two_classes(0.95, 0.95), [0, 0])
    assert len(curve) == 15
    assert curve["confidence"].isna().sum() == 14
    for norm in ("l1", "l2", "max"):
        assert expected_calibration_error(two_classes(0.95, 0.95), [0, 0], norm=norm) == pytest.approx(0.05)


def test_equally_likely_classes_count_as_the_first_one():
    uniform = np.full((3, 4), 0.25)
    assert expected_calibration_error(uniform, [0, 0, 0]) == pytest.approx(0.75)
    assert expected_calibration_error(uniform, [1, 2, 3]) == pytest.approx(0.25)


def test_adaptive_bins_hold_equally_many():
    logits, labels = drawn(1000)
    curve = reliability_curve(softmax(logits), labels, n_bins=15, adaptive=True)
    assert set(curve["count"]) == {66, 67}
    assert (curve["low"].to_numpy()[1:] >= curve["high"].to_numpy()[:-1]).all()


def test_fewer_samples_than_adaptive_bins_have_one_bin_each():
    probs = two_classes(0.6, 0.8, 0.99)
    curve = reliability_curve(probs, [0, 0, 1], n_bins=15, adaptive=True)
    assert sorted(curve["count"]) == [0] * 12 + [1] * 3
    by_hand = np.mean([0.4, 0.2, 0.99])
    assert expected_calibration_error(probs, [0, 0, 1], adaptive=True) == pytest.approx(by_hand)


def test_one_bin_compares_the_mean_confidence_with_the_accuracy():
    logits, labels = drawn()
    probs = 0.5 * softmax(logits) + 0.1
    expected = abs(probs.max(1).mean() - (probs.argmax(1) == labels).mean())
    for adaptive in (False, True):
        assert expected_calibration_error(probs, labels, n_bins=1, adaptive=adaptive) == pytest.approx(expected)


def test_predictions_that_labels_were_drawn_from_are_calibrated():
    logits, labels = drawn(40_000)
    assert expected_calibration_error(softmax(logits), labels) < 0.01
    assert expected_calibration_error(softmax(logits, temperature=0.5), labels) > 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.booleans(), st.integers(0, 10_000))
def test_the_three_norms_are_in_order_and_between_0_and_1(samples, n_bins, adaptive, seed):
    logits, labels = drawn(samples, seed=seed)
    mean, rms, largest = (
        expected_calibration_error(softmax(logits), labels, n_bins=n_bins, norm=norm, adaptive=adaptive)
        for norm in ("l1", "l2", "max")
    )
    assert 0 <= mean <= rms + 1e-12
    assert rms <= largest + 1e-12
    assert largest <= 1


def test_proper_scores_are_scikit_learns():
    logits, labels = drawn(500)
    probs = softmax(logits)
    assert negative_log_likelihood(probs, labels) == pytest.approx(log_loss(labels, probs))
    assert brier_score(probs, labels) == pytest.approx(brier_score_loss(labels, probs, scale_by_half=False))


def test_proper_scores_by_hand():
    assert brier_score([[0.7, 0.3]], [0]) == pytest.approx(0.09 + 0.09)
    assert brier_score([[0.0, 1.0]], [0]) == 2
    assert negative_log_likelihood([[0.25, 0.75]], [0]) == pytest.approx(np.log(4))
    assert negative_log_likelihood([[0.0, 1.0]], [0]) == np.inf
    assert str(negative_log_likelihood([[1.0, 0.0]], [0])) == "0.0"


def test_the_temperature_that_was_put_in_is_found():
    logits, labels = drawn(40_000)
    assert fit_temperature(3.0 * logits, labels) == pytest.approx(3.0, rel=0.03)
    assert fit_temperature(0.2 * logits, labels) == pytest.approx(0.2, rel=0.03)
    assert fit_temperature(3.0 * logits, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=1e-4)


def test_no_temperature_has_a_smaller_nll_than_the_fitted_one():
    logits, labels = drawn(300)
    best = fit_temperature(logits, labels)
    at_best = negative_log_likelihood(softmax(logits, temperature=best), labels)
    for factor in (0.8, 0.95, 0.99, 1.01, 1.05, 1.2):
        assert at_best <= negative_log_likelihood(softmax(logits, temperature=factor * best), labels)


def test_labels_that_are_always_right_ask_for_the_least_temperature_and_wrong_ones_for_the_largest():
    logits, _ = drawn(100)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.01, rel=1e-3)
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(100, rel=1e-3)


def test_scaling_by_a_temperature_never_changes_the_answer():
    logits, _ = drawn(200)
    for temperature in (0.1, 7.0):
        assert (softmax(logits, temperature=temperature).argmax(1) == logits.argmax(1)).all()


def test_entropy_of_certainty_is_0_and_of_ignorance_the_logarithm_of_the_classes():
    assert entropy(np.array([[1.0, 0.0, 0.0], [1 / 3] * 3])) == pytest.approx([0, np.log(3)])


def test_tensors_are_taken_as_they_come_out_of_a_network():
    logits, labels = drawn(200)
    probs = torch.tensor(logits, requires_grad=True).softmax(-1)
    expected = expected_calibration_error(softmax(logits), labels)
    assert expected_calibration_error(probs, torch.tensor(labels)) == pytest.approx(expected)
    assert brier_score(probs.bfloat16(), torch.tensor(labels)) == pytest.approx(
        brier_score(softmax(logits), labels), abs=1e-2
    )


@pytest.mark.parametrize(
    ("probs", "labels", "options", "message"),
    [
        ([[2.0, 3.0]], [0], {}, "take a softmax"),
        ([[0.5, np.nan]], [0], {}, "take a softmax"),
        ([[0.5, 0.5]], [2], {}, "from 0 to 1, got 2"),
        ([[0.5, 0.5]], [-1], {}, "got -1"),
        ([[0.5, 0.5]], [0.0], {}, "whole numbers"),
        ([[0.5, 0.5]], [0, 1], {}, r"\[samples, classes\]"),
        ([0.5, 0.5], [0, 1], {}, r"\[samples, classes\]"),
        (np.zeros((0, 2)), np.zeros(0, int), {}, "no samples"),
        ([[0.5, 0.5]], [0], {"n_bins": 0}, "n_bins"),
        ([[0.5, 0.5]], [0], {"n_bins": 1.5}, "n_bins"),
    ],
)
def test_what_cannot_be_measured_is_refused(probs, labels, options, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probs, labels, **options)


def test_a_misspelt_norm_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'max'"):
        expected_calibration_error([[0.5, 0.5]], [0], norm="maxx")
    with pytest.raises(ValueError, match="finite"):
        fit_temperature([[np.inf, 0.0]], [0])
