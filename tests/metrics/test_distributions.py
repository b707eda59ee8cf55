"""Distributions by hand."""

import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.special import softmax as peer

from workbench.metrics.distributions import entropy, kl_divergence, softmax, sorted_distance

LOGITS = np.random.default_rng(0).normal(size=(3, 11)) * 4


def test_softmax_agrees_with_scipy_at_every_temperature():
    for temperature in (0.5, 1.0, 8.0):
        np.testing.assert_allclose(softmax(LOGITS, temperature=temperature), peer(LOGITS / temperature, axis=-1))


def test_softmax_of_huge_logits_stays_finite():
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]


def test_a_temperature_of_zero_is_refused_by_name():
    with pytest.raises(ValueError, match="temperature"):
        softmax(LOGITS, temperature=0.0)


def test_entropy_lies_between_zero_and_the_log_of_the_vocabulary():
    assert entropy(np.eye(4)).tolist() == [0.0] * 4
    assert entropy(np.full(4, 0.25)) == pytest.approx(np.log(4))


def test_kl_of_two_coins_matches_the_hand_sum():
    by_hand = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert kl_divergence(np.array([0.9, 0.1]), np.array([0.5, 0.5])) == pytest.approx(by_hand)


def test_kl_agrees_with_scipy_and_is_zero_for_equals():
    p, q = softmax(LOGITS), softmax(LOGITS[::-1])
    np.testing.assert_allclose(kl_divergence(p, q), rel_entr(p, q).sum(-1))
    assert kl_divergence(p, p).tolist() == [0.0] * 3


def test_kl_is_infinite_only_where_the_second_rules_out_what_the_first_allows():
    sure, open_minded = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert kl_divergence(open_minded, sure) == np.inf
    assert kl_divergence(sure, open_minded) == pytest.approx(np.log(2))


def test_kl_of_different_vocabularies_points_to_the_sorted_distance():
    with pytest.raises(ValueError, match="sorted_distance"):
        kl_divergence(np.full(2, 0.5), np.full(3, 1 / 3))


def test_sorted_distance_sees_the_shape_and_not_the_names():
    p = softmax(LOGITS)
    assert sorted_distance(p, p[:, ::-1]).tolist() == [0.0] * 3


def test_sorted_distance_pads_the_smaller_vocabulary_and_is_symmetric():
    coin, certain = np.array([0.5, 0.5]), np.array([1.0, 0.0, 0.0])
    assert sorted_distance(coin, certain) == sorted_distance(certain, coin) == 1.0
