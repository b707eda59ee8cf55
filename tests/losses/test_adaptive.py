"""Adaptive KL: the official weights, step by step, and its ends."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.losses import adaptive_kl, forward_kl, reverse_kl


def by_the_formula(student, teacher, mu):
    """Per position, in plain autograd: sort downwards, cut where the sum exceeds ``mu``, weigh both directions."""
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    p, order = log_p.exp().sort(dim=-1, descending=True)
    gaps = (p - log_q.exp().detach().gather(-1, order)).abs()
    tail = p.cumsum(-1) > mu
    tail[..., 0] = False
    head_gap, tail_gap = gaps.masked_fill(tail, 0).sum(-1), gaps.masked_fill(~tail, 0).sum(-1)
    forward = (log_p.exp() * (log_p - log_q)).sum(-1)
    reverse = (log_q.exp() * (log_q - log_p)).sum(-1)
    return (head_gap * forward + tail_gap * reverse) / (head_gap + tail_gap)


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("vocab", [3, 40, 1000, 5000])
def test_value_and_gradient_are_those_of_the_formula(vocab, mu):
    student, teacher = logits(6, vocab).requires_grad_(), logits(6, vocab, seed=1)
    theirs = by_the_formula(student, teacher, mu)
    torch.testing.assert_close(adaptive_kl(student, teacher, mu=mu, reduction="none"), theirs)
    (slope,) = torch.autograd.grad(adaptive_kl(student, teacher, mu=mu), student)
    (their_slope,) = torch.autograd.grad(theirs.mean(), student)
    torch.testing.assert_close(slope, their_slope)


def test_a_flat_teacher_whose_head_is_long_is_sorted_further_down():
    teacher = 0.01 * logits(3, 5000, seed=1)  # half of the probability takes thousands of words
    student = logits(3, 5000)
    torch.testing.assert_close(adaptive_kl(student, teacher, reduction="none"), by_the_formula(student, teacher, 0.5))


def test_three_words_match_the_hand():
    student, teacher = torch.tensor([0.2, 0.3, 0.5]).log(), torch.tensor([0.6, 0.3, 0.1]).log()
    # The head is the first word alone: 0.6 is above 0.5 already, but the first always belongs to it.
    head_gap, tail_gap = 0.4, 0.4
    forward = 0.6 * math.log(3) + 0.1 * math.log(0.2)
    reverse = 0.2 * math.log(1 / 3) + 0.5 * math.log(5)
    expected = (head_gap * forward + tail_gap * reverse) / (head_gap + tail_gap)
    assert adaptive_kl(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_with_all_words_in_the_head_it_is_forward_kl():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    assert adaptive_kl(student, teacher, mu=1.0) == forward_kl(student, teacher)


def test_it_lies_between_the_two_directions():
    student, teacher = logits(50, 9), logits(50, 9, seed=1)
    ends = torch.stack([loss(student, teacher, reduction="none") for loss in (forward_kl, reverse_kl)])
    value = adaptive_kl(student, teacher, reduction="none")
    assert (value >= ends.amin(0) - 1e-12).all()
    assert (value <= ends.amax(0) + 1e-12).all()


def test_a_direction_that_is_infinite_makes_it_infinite_only_if_it_has_weight():
    allowed, forbidding = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, -math.inf])
    assert adaptive_kl(forbidding, allowed) == math.inf
    assert adaptive_kl(allowed, forbidding) == math.inf
    assert adaptive_kl(allowed, forbidding, mu=1.0) == forward_kl(allowed, forbidding) < math.inf


@pytest.mark.parametrize("mu", [-0.1, 1.1, math.nan])
def test_a_head_of_another_share_than_zero_to_one_is_refused(mu):
    with pytest.raises(ValueError, match="mu="):
        adaptive_kl(logits(2, 3), logits(2, 3), mu=mu)
