"""The learnt temperature: its gradient, its curriculum, and that it works against the student."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.losses import CurriculumTemperature, forward_kl
from workbench.losses.curriculum import temperature_slope

MASK = torch.tensor([[True, False, True, True], [True, True, False, False]])


def eager(student, teacher, tau, mask, scaled=True):
    log_q, log_p = (student / tau).log_softmax(-1), (teacher / tau).log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)[mask].mean()
    return tau**2 * kl if scaled else kl


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tau", [1.0, 1.7, 15.6])
@pytest.mark.parametrize("vocab", [9, 300])
def test_the_slope_along_the_temperature_is_that_of_plain_autograd(vocab, tau, scaled):
    student, teacher = logits(2, 4, vocab), logits(2, 4, vocab, seed=1)
    leaf = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    eager(student, teacher, leaf, MASK, scaled).backward()
    ours = temperature_slope(student, teacher, MASK, temperature=tau, scale_by_t2=scaled)
    torch.testing.assert_close(ours, leaf.grad, rtol=1e-8, atol=1e-12)


def at_full_strength(**options) -> CurriculumTemperature:
    curriculum = CurriculumTemperature(ramp=1, **options).double()
    curriculum.step()
    return curriculum


def test_theta_is_given_minus_the_gradient_and_the_student_its_own():
    student, teacher = logits(2, 4, 9).requires_grad_(), logits(2, 4, 9, seed=1)
    curriculum = at_full_strength()
    value = curriculum(student, teacher, MASK)
    slope, turn = torch.autograd.grad(value, (student, curriculum.theta))
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    theirs = eager(student, teacher, 1 + 20 * theta.sigmoid(), MASK)
    their_slope, their_turn = torch.autograd.grad(theirs, (student, theta))
    torch.testing.assert_close(value, theirs)
    torch.testing.assert_close(slope, their_slope)
    torch.testing.assert_close(turn, -their_turn)


def test_the_value_is_forward_kl_at_the_temperature_shown():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    curriculum = CurriculumTemperature()
    assert curriculum.temperature == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    for reduction in ("token_mean", "sequence_mean", "sum", "none"):
        torch.testing.assert_close(
            curriculum(student, teacher, MASK, reduction=reduction),
            forward_kl(student, teacher, MASK, temperature=curriculum.temperature, reduction=reduction),
        )


def test_the_strength_falls_from_nothing_to_minus_one_along_a_cosine_and_stays():
    curriculum, seen = CurriculumTemperature(ramp=10), []
    for _ in range(13):
        seen.append(curriculum.strength)
        curriculum.step()
    assert seen[0] == 0.0
    assert seen[5] == pytest.approx(-0.5)
    assert seen[2] == pytest.approx((math.cos(0.2 * math.pi) - 1) / 2)
    assert seen[10:] == [-1.0] * 3
    assert seen == sorted(seen, reverse=True)


def test_before_the_first_step_theta_stands_still_but_has_a_gradient():
    curriculum = CurriculumTemperature()
    curriculum(logits(2, 4, 9), logits(2, 4, 9, seed=1)).backward()
    assert curriculum.theta.grad == 0.0


def test_an_optimiser_that_lowers_the_student_s_loss_raises_it_through_theta():
    student, teacher = logits(8, 9), logits(8, 9, seed=1)
    curriculum = at_full_strength()
    optimizer = torch.optim.SGD(curriculum.parameters(), lr=0.05)
    before = curriculum(student, teacher).item()
    for _ in range(20):
        optimizer.zero_grad()
        curriculum(student, teacher).backward()
        optimizer.step()
    assert curriculum(student, teacher).item() > before


def test_a_resumed_curriculum_goes_on_where_it_was():
    first, second = CurriculumTemperature(), CurriculumTemperature(theta=0.0)
    for _ in range(3):
        first.step()
    second.load_state_dict(first.state_dict())
    assert (second.strength, second.temperature) == (first.strength, first.temperature)


def test_frozen_or_without_gradients_it_is_the_plain_divergence():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    curriculum = at_full_strength()
    with torch.no_grad():
        assert not curriculum(student, teacher).requires_grad
    curriculum.theta.requires_grad_(False)
    assert not curriculum(student, teacher).requires_grad


def test_shared_forbidden_words_and_masked_positions_do_not_reach_theta():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    padding = torch.full((2, 4, 3), -math.inf).double()
    padded = [torch.cat([x, padding], -1) for x in (student, teacher)]
    for x in padded:
        x[~MASK] = math.nan
    turns = []
    for pair in ((student, teacher), padded):
        curriculum = at_full_strength()
        curriculum(*pair, MASK).backward()
        turns.append(curriculum.theta.grad)
    torch.testing.assert_close(*turns)


def test_a_fully_masked_batch_moves_nothing():
    curriculum = at_full_strength()
    student = torch.full((2, 4, 9), math.nan, requires_grad=True)
    value = curriculum(student, student.detach(), torch.zeros(2, 4, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert curriculum.theta.grad == 0.0
    assert student.grad.abs().max() == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(2, 4, 9).to(dtype).requires_grad_(), logits(2, 4, 9, seed=1).to(dtype)
    curriculum = CurriculumTemperature()
    curriculum.step()
    value = curriculum(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert curriculum.theta.grad.isfinite()
    assert torch.equal(value, curriculum(student.float(), teacher.float()))


@pytest.mark.parametrize("bad", [{"ramp": 0}, {"low": 0.0}, {"span": -1.0}, {"theta": math.nan}])
def test_numbers_outside_their_range_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CurriculumTemperature(**bad)


def test_what_forward_kl_refuses_is_refused():
    with pytest.raises(ValueError, match="vocabularies"):
        CurriculumTemperature()(logits(2, 3), logits(2, 4))
    with pytest.raises(ValueError, match="student_logits holds NaN"):
        CurriculumTemperature()(logits(2, 3) * math.nan, logits(2, 3))
