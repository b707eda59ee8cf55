"""Logits, correlations and the scale of logits, each against its formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.losses.cases import logits
from workbench.losses import dist, forward_kl, logit_mse, standardize_logits

MASK = torch.tensor([[True, False, True, True], [True, True, False, False]])


def test_logit_mse_is_the_mean_over_words_of_the_squared_difference():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    torch.testing.assert_close(logit_mse(student, teacher), F.mse_loss(student, teacher))
    torch.testing.assert_close(logit_mse(student, teacher, reduction="none"), ((student - teacher) ** 2).mean(-1))


def test_temperature_divides_the_logits_and_is_not_given_back():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    for scaled in (True, False):
        torch.testing.assert_close(
            logit_mse(student, teacher, temperature=3.0, scale_by_t2=scaled), F.mse_loss(student, teacher) / 9
        )


def test_hot_distillation_is_half_the_logit_error_of_centred_logits():
    student, teacher = (x - x.mean(-1, keepdim=True) for x in (logits(4, 9), logits(4, 9, seed=1)))
    torch.testing.assert_close(
        forward_kl(student, teacher, temperature=1e4), logit_mse(student, teacher) / 2, rtol=1e-3, atol=0
    )


def test_a_word_that_one_side_forbids_is_an_infinite_error():
    assert logit_mse(torch.tensor([1.0, -math.inf]), torch.tensor([1.0, 0.0])) == math.inf


def test_dist_is_one_minus_pearson_over_classes_and_over_the_batch():
    student, teacher = logits(8, 5), logits(8, 5, seed=1)
    q, p = student.softmax(-1).numpy(), teacher.softmax(-1).numpy()
    over_classes = np.mean([1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(8)])
    over_batch = np.mean([1 - np.corrcoef(q[:, v], p[:, v])[0, 1] for v in range(5)])
    assert dist(student, teacher).item() == pytest.approx(over_classes + over_batch, rel=1e-10)
    assert dist(student, teacher, beta=2.0, gamma=0.5).item() == pytest.approx(2 * over_classes + over_batch / 2)
    at_two = dist(2 * student, 2 * teacher, temperature=2.0)
    assert at_two.item() == pytest.approx(4 * (over_classes + over_batch))


def test_dist_s_gradient_is_that_of_finite_differences_and_so_is_its_second():
    student, teacher = logits(2, 4, 5).requires_grad_(), logits(2, 4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda z: dist(z, teacher, MASK, temperature=1.5), (student,))
    assert torch.autograd.gradgradcheck(lambda z: dist(z, teacher, MASK), (student,))


def test_masked_positions_leave_the_batch_of_dist():
    student, teacher = logits(2, 4, 5), logits(2, 4, 5, seed=1)
    torch.testing.assert_close(dist(student, teacher, MASK), dist(student[MASK], teacher[MASK]))
    assert dist(student, teacher, MASK) != dist(student, teacher, MASK, gamma=0.0)


def test_a_batch_of_one_has_the_correlation_over_classes_alone():
    student, teacher = logits(1, 5), logits(1, 5, seed=1)
    assert dist(student, teacher) == dist(student, teacher, gamma=0.0)
    assert dist(student, teacher, beta=0.0) == 0.0


@pytest.mark.parametrize("flat_side", ["student", "teacher", "both"])
def test_a_side_that_does_not_vary_has_no_correlation_and_no_broken_gradient(flat_side):
    student, teacher = logits(4, 5), logits(4, 5, seed=1)
    student = torch.zeros_like(student) if flat_side != "teacher" else student
    teacher = torch.zeros_like(teacher) if flat_side != "student" else teacher
    student.requires_grad_()
    value = dist(student, teacher)
    value.backward()
    assert value.item() == (0.0 if flat_side == "both" else 2.0)
    assert student.grad.isfinite().all()


def test_a_stretched_distribution_is_equal_to_dist():
    teacher = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    student = 1 / 3 + (teacher - 1 / 3) / 2
    assert dist(student.log(), teacher.log(), gamma=0.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weights", [{"beta": -1.0}, {"gamma": math.nan}, {"gamma": math.inf}])
def test_weights_of_dist_below_zero_are_refused_by_name(weights):
    with pytest.raises(ValueError, match=f"{next(iter(weights))}="):
        dist(logits(2, 3), logits(2, 3), **weights)


def test_standardised_logits_have_mean_nothing_and_deviation_one():
    standard = standardize_logits(logits(4, 9, scale=7.0) + 3)
    torch.testing.assert_close(standard.mean(-1), torch.zeros(4).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(standard.std(-1), torch.ones(4).double(), atol=1e-6, rtol=0)


def test_standardising_undoes_any_scale_and_shift():
    z = logits(4, 9)
    torch.testing.assert_close(standardize_logits(5 * z - 2), standardize_logits(z), rtol=1e-6, atol=1e-6)


def test_standardising_keeps_forbidden_words_forbidden_and_out_of_the_mean():
    z = logits(4, 9)
    padded = torch.cat([z, torch.full((4, 3), -math.inf).double()], -1).requires_grad_()
    standard = standardize_logits(padded)
    torch.testing.assert_close(standard[:, :9], standardize_logits(z))
    assert standard[:, 9:].isneginf().all()
    forward_kl(standard, standardize_logits(torch.cat([logits(4, 9, seed=1), padded[:, 9:].detach()], -1))).backward()
    assert padded.grad.isfinite().all()


@pytest.mark.parametrize("z", [torch.zeros(2, 5), torch.ones(2, 1), torch.tensor([[3.0, -math.inf], [3.0, 3.0]])])
def test_equal_or_single_words_standardise_to_nothing_with_a_gradient(z):
    z.requires_grad_()
    standard = standardize_logits(z)
    allowed = standard[~standard.isneginf()]
    assert (allowed == 0).all()
    allowed.sum().backward()
    assert z.grad.isfinite().all()


def test_standardising_differentiates_and_half_precision_is_widened():
    assert torch.autograd.gradcheck(standardize_logits, (logits(3, 5).requires_grad_(),))
    half = logits(3, 5).half()
    assert torch.equal(standardize_logits(half), standardize_logits(half.float()))


def test_standardising_leaves_alone_what_is_masked():
    z = logits(2, 4, 5)
    z[~MASK] = math.nan
    z.requires_grad_()
    forward_kl(standardize_logits(z, MASK), logits(2, 4, 5, seed=1), MASK).backward()
    assert z.grad.isfinite().all()
    assert z.grad[~MASK].abs().max() == 0.0
    with pytest.raises(ValueError, match="mask has shape"):
        standardize_logits(z, MASK[:1])
    with pytest.raises(TypeError, match="int64"):
        standardize_logits(torch.ones(3, dtype=torch.int64))
