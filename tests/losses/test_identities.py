"""What each loss is: hand sums, limits, and how they relate to one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.losses.cases import VARIANTS, every_loss, every_loss_but, logits
from workbench.losses import (
    forward_kl,
    generalized_jsd,
    jeffreys,
    loss_by_name,
    reverse_kl,
    skew_kl,
    symmetric_kl,
    taid,
    total_variation,
)


def two_coins() -> tuple[torch.Tensor, torch.Tensor]:
    """A student that tosses 0.5, a teacher that tosses 0.9."""
    return torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.9, 0.1]]]).log()


def test_two_coins_match_the_hand_sums():
    student, teacher = two_coins()
    forward = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    reverse = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    m = np.array([0.3 * 0.9 + 0.7 * 0.5, 0.3 * 0.1 + 0.7 * 0.5])
    jsd = 0.3 * (0.9 * np.log(0.9 / m[0]) + 0.1 * np.log(0.1 / m[1])) + 0.7 * 0.5 * np.log(0.25 / (m[0] * m[1]))
    s = np.array([0.1 * 0.9 + 0.9 * 0.5, 0.1 * 0.1 + 0.9 * 0.5])
    skew = 0.9 * np.log(0.9 / s[0]) + 0.1 * np.log(0.1 / s[1])
    r = np.array([0.1 * 0.5 + 0.9 * 0.9, 0.1 * 0.5 + 0.9 * 0.1])
    skew_reverse = 0.5 * np.log(0.25 / (r[0] * r[1]))
    expected = [
        (forward_kl(student, teacher), forward),
        (reverse_kl(student, teacher), reverse),
        (jeffreys(student, teacher), forward + reverse),
        (symmetric_kl(student, teacher, weight=0.25), 0.75 * forward + 0.25 * reverse),
        (generalized_jsd(student, teacher, beta=0.3), jsd),
        (skew_kl(student, teacher, alpha=0.1), skew),
        (skew_kl(student, teacher, alpha=0.1, direction="reverse"), skew_reverse),
        (total_variation(student, teacher), 0.4),
    ]
    for value, by_hand in expected:
        assert value.item() == pytest.approx(by_hand, rel=1e-6)


@every_loss
def test_a_student_equal_to_its_teacher_loses_exactly_nothing(name, options):
    same = logits(3, 4, 50).float().requires_grad_()
    loss = loss_by_name(name, **options)(same, same.detach().clone())
    loss.backward()
    # taid blends the two first and dist divides by roots, which round; the others are 0 to the last bit
    assert abs(loss.item()) < 1e-6 if name in ("taid", "dist") else loss.item() == 0.0
    assert same.grad.abs().max() < (1e-6 if name == "dist" else 1e-7)


@every_loss_but("logit_mse")  # which compares the logits themselves
def test_a_constant_added_to_the_logits_changes_nothing(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(6, 11), logits(6, 11, seed=1)
    assert loss(student + 7, teacher - 3).item() == pytest.approx(loss(student, teacher).item(), rel=1e-10)


HELD_STILL = [("taid", {"t": 0.4}), ("adaptive_kl", {"mu": 0.5}), ("adaptive_kl", {"mu": 0.0})]


@pytest.mark.parametrize(("name", "options"), [one for one in VARIANTS if one not in HELD_STILL])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sum", "none"])
# Without taid inside its walk and adaptive_kl: target and weights move with the student but are held fixed, see
# their closed forms.
def test_the_gradient_is_that_of_finite_differences(name, options, temperature, reduction):
    student, teacher = logits(2, 3, 7), logits(2, 3, 7, seed=1)
    loss = loss_by_name(name, temperature=temperature, reduction=reduction, **options)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, mask), (student.requires_grad_(),))


def gradient(loss, student, teacher, **options):
    student = student.clone().requires_grad_()
    loss(student, teacher, reduction="sum", **options).backward()
    return student.grad


def test_the_gradients_have_their_closed_forms():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    q, p, log_q, log_p = student.softmax(-1), teacher.softmax(-1), student.log_softmax(-1), teacher.log_softmax(-1)
    kl = ((log_q - log_p) * q).sum(-1, keepdim=True)
    m = 0.3 * p + 0.7 * q
    to_m = (q * (log_q - m.log())).sum(-1, keepdim=True)
    target = (0.6 * student + 0.4 * teacher).softmax(-1)
    torch.testing.assert_close(gradient(forward_kl, student, teacher), q - p)
    torch.testing.assert_close(gradient(reverse_kl, student, teacher), q * (log_q - log_p - kl))
    torch.testing.assert_close(
        gradient(generalized_jsd, student, teacher, beta=0.3), 0.7 * q * (log_q - m.log() - to_m)
    )
    torch.testing.assert_close(gradient(taid, student, teacher, t=0.4), q - target)


def test_temperature_softens_both_and_its_square_restores_the_size():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    plain = forward_kl(student / 3, teacher / 3)
    torch.testing.assert_close(forward_kl(student, teacher, temperature=3.0), 9 * plain)
    torch.testing.assert_close(forward_kl(student, teacher, temperature=3.0, scale_by_t2=False), plain)
    q, p = (student / 3).softmax(-1), (teacher / 3).softmax(-1)
    torch.testing.assert_close(gradient(forward_kl, student, teacher, temperature=3.0), 3 * (q - p))


def test_a_probability_is_not_scaled_by_temperature_squared():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    at_two = [total_variation(student, teacher, temperature=2.0, scale_by_t2=scaled) for scaled in (True, False)]
    assert at_two[0] == at_two[1]


def test_at_high_temperature_forward_kl_becomes_the_squared_error_of_centred_logits():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = (centred**2).sum(-1).mean() / (2 * 9)
    torch.testing.assert_close(forward_kl(student, teacher, temperature=1e4), limit, rtol=1e-3, atol=0)


def test_exchanging_student_and_teacher_exchanges_the_directions():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    torch.testing.assert_close(forward_kl(student, teacher), reverse_kl(teacher, student))
    torch.testing.assert_close(jeffreys(student, teacher), jeffreys(teacher, student))
    torch.testing.assert_close(total_variation(student, teacher), total_variation(teacher, student))
    torch.testing.assert_close(generalized_jsd(student, teacher, beta=0.2), generalized_jsd(teacher, student, beta=0.8))
    torch.testing.assert_close(
        skew_kl(student, teacher, alpha=0.2), skew_kl(teacher, student, alpha=0.2, direction="reverse")
    )


def test_jeffreys_and_symmetric_are_the_sum_and_the_mean_of_both_directions():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    forward, reverse = forward_kl(student, teacher), reverse_kl(student, teacher)
    torch.testing.assert_close(jeffreys(student, teacher), forward + reverse)
    torch.testing.assert_close(symmetric_kl(student, teacher), (forward + reverse) / 2)
    torch.testing.assert_close(symmetric_kl(student, teacher, weight=0.0), forward)
    torch.testing.assert_close(symmetric_kl(student, teacher, weight=1.0), reverse)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_made_of_the_two_skew_divergences(beta):
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    both = beta * skew_kl(student, teacher, alpha=beta) + (1 - beta) * skew_kl(
        student, teacher, alpha=1 - beta, direction="reverse"
    )
    torch.testing.assert_close(generalized_jsd(student, teacher, beta=beta), both)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rescaled_jensen_shannon_tends_to_the_two_kl_divergences(dtype):
    student, teacher = logits(4, 9, scale=0.7).to(dtype), logits(4, 9, seed=1, scale=0.7).to(dtype)
    small = 1e-5
    to_forward = generalized_jsd(student, teacher, beta=small) / small
    to_reverse = generalized_jsd(student, teacher, beta=1 - small) / small
    torch.testing.assert_close(to_forward, forward_kl(student, teacher), rtol=2e-2, atol=0)
    torch.testing.assert_close(to_reverse, reverse_kl(student, teacher), rtol=2e-2, atol=0)


def test_jensen_shannon_vanishes_towards_both_ends():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    assert generalized_jsd(student, teacher, beta=1e-6) < 1e-4
    assert generalized_jsd(student, teacher, beta=1 - 1e-6) < 1e-4


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_skew_kl_runs_from_the_plain_kl_to_nothing(direction):
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    plain = {"forward": forward_kl, "reverse": reverse_kl}[direction](student, teacher)
    values = [skew_kl(student, teacher, alpha=a, direction=direction) for a in (0.0, 1e-6, 0.1, 0.5, 0.9, 1.0)]
    torch.testing.assert_close(values[0], plain)
    torch.testing.assert_close(values[1], plain, rtol=1e-3, atol=0)
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
def test_skew_kl_reaches_its_bound_when_nothing_overlaps(alpha):
    student, teacher = torch.tensor([60.0, -60.0]), torch.tensor([-60.0, 60.0])
    for direction in ("forward", "reverse"):
        value = skew_kl(student, teacher, alpha=alpha, direction=direction).item()
        assert value == pytest.approx(-math.log(alpha), rel=1e-6)


def test_jensen_shannon_at_one_half_reaches_log_two_and_total_variation_one_when_nothing_overlaps():
    student, teacher = torch.tensor([60.0, -60.0]), torch.tensor([-60.0, 60.0])
    assert generalized_jsd(student, teacher).item() == pytest.approx(math.log(2), rel=1e-6)
    assert total_variation(student, teacher).item() == pytest.approx(1.0, rel=1e-6)


def test_the_pushing_of_total_variation_dies_without_overlap_and_stops_at_a_tie():
    apart = gradient(total_variation, torch.tensor([[60.0, -60.0]]), torch.tensor([[-60.0, 60.0]]))
    tie = gradient(total_variation, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    assert apart.abs().max() < 1e-20
    assert tie.abs().max() == 0.0


def test_forward_kl_agrees_with_torch():
    student, teacher = logits(5, 4, 30), logits(5, 4, 30, seed=1)
    theirs = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(forward_kl(student, teacher, reduction="none"), theirs)


def test_taid_stands_still_at_the_student_and_is_forward_kl_at_the_teacher():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    assert taid(student, teacher, t=0.0).item() == 0.0
    assert gradient(taid, student, teacher, t=0.0).abs().max() == 0.0
    torch.testing.assert_close(taid(student, teacher, t=1.0), forward_kl(student, teacher))


def test_near_the_student_taid_pulls_along_the_covariance_of_the_logits_difference():
    student, teacher = logits(1, 9), logits(1, 9, seed=1)
    q, difference, t = student.softmax(-1), teacher - student, 1e-6
    covariance = -q * (difference - (q * difference).sum(-1, keepdim=True))  # minus: downhill is the gradient's reverse
    torch.testing.assert_close(gradient(taid, student, teacher, t=t) / t, covariance, rtol=1e-4, atol=1e-7)
