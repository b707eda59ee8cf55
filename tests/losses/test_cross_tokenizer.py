"""ULD: sorted probabilities, and which position meets which."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.errors import UnknownName
from workbench.losses import uld


def by_the_formula(student, teacher):
    """Per pair ``[rows]``, in plain autograd, the shorter filled up with 0."""
    q, p = (x.softmax(-1).sort(-1, descending=True).values for x in (student, teacher))
    width = max(q.shape[-1], p.shape[-1])
    q, p = (torch.cat([x, x.new_zeros(len(x), width - x.shape[-1])], -1) for x in (q, p))
    return (q - p).abs().sum(-1)


@pytest.mark.parametrize("vocab", [5, 9, 14])
def test_value_and_gradient_are_those_of_the_formula(vocab):
    student, teacher = logits(6, 9).requires_grad_(), logits(6, vocab, seed=1)
    ours, theirs = uld(student, teacher), by_the_formula(student, teacher).mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))


def test_the_names_of_words_are_nothing():
    student = logits(6, 9)
    shuffled = student[:, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert uld(student, shuffled).item() == pytest.approx(0, abs=1e-12)


def test_it_is_two_when_one_is_sure_and_the_other_knows_nothing_of_many_words():
    sure = torch.tensor([[100.0, 0.0]])
    assert uld(torch.zeros(1, 100_000), sure).item() == pytest.approx(2, abs=1e-4)


def test_the_kth_position_that_counts_meets_the_kth_of_the_other():
    student, teacher = logits(2, 4, 9), logits(2, 6, 7, seed=1)
    student_mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    teacher_mask = torch.tensor([[False, True, True, False, False, False], [True, False, False, True, False, True]])
    pairs = [(0, 0, 1), (0, 2, 2), (1, 1, 0), (1, 2, 3)]  # (sequence, student's position, teacher's)
    by_hand = torch.cat([by_the_formula(student[b, i][None], teacher[b, j][None]) for b, i, j in pairs])
    values = uld(student, teacher, student_mask, teacher_mask, reduction="none")
    torch.testing.assert_close(values[[0, 0, 1, 1], [0, 2, 1, 2]], by_hand)
    assert values.count_nonzero() == 4
    torch.testing.assert_close(uld(student, teacher, student_mask, teacher_mask), by_hand.mean())
    by_sequence = uld(student, teacher, student_mask, teacher_mask, reduction="sequence_mean")
    torch.testing.assert_close(by_sequence, (by_hand[:2].mean() + by_hand[2:].mean()) / 2)
    torch.testing.assert_close(uld(student, teacher, student_mask, teacher_mask, num_items=8), by_hand.sum() / 8)


@pytest.mark.parametrize(("length", "other"), [(4, 4), (4, 6), (6, 4), (4, 0)])
def test_without_masks_the_longer_side_is_cut(length, other):
    student, teacher = logits(2, length, 9).requires_grad_(), logits(2, other, 7, seed=1)
    meet = min(length, other)
    value = uld(student, teacher)
    value.backward()
    if meet:
        torch.testing.assert_close(value, uld(student[:, :meet], teacher[:, :meet]))
        assert (student.grad[:, :meet].abs().sum(-1) > 0).all()
    else:
        assert value.item() == 0.0
    assert student.grad[:, meet:].abs().sum() == 0.0


def test_one_mask_leaves_the_other_side_whole():
    student, teacher = logits(1, 4, 9), logits(1, 4, 7, seed=1)
    mask = torch.tensor([[False, True, True, False]])
    torch.testing.assert_close(uld(student, teacher, mask), uld(student[:, 1:3], teacher[:, :2]))
    torch.testing.assert_close(uld(student, teacher, teacher_mask=mask), uld(student[:, :2], teacher[:, 1:3]))


def test_what_does_not_count_may_be_anything_and_nothing_is_nothing():
    student, teacher = logits(1, 4, 9), logits(1, 4, 7, seed=1)
    mask = torch.tensor([[False, True, True, False]])
    clean = uld(student, teacher, mask, mask)
    student[~mask], teacher[~mask] = math.nan, math.inf
    student.requires_grad_()
    value = uld(student, teacher, mask, mask)
    value.backward()
    assert torch.equal(value, clean)
    assert student.grad[~mask].abs().max() == 0.0
    nothing = uld(student, teacher, torch.zeros_like(mask), mask)
    assert nothing.item() == 0.0
    assert nothing.requires_grad


def test_forbidden_words_are_those_of_no_probability():
    student, teacher = logits(3, 9), logits(3, 7, seed=1)
    padding = torch.full((3, 4), -math.inf).double()
    torch.testing.assert_close(uld(torch.cat([student, padding], -1), teacher), uld(student, teacher))
    torch.testing.assert_close(uld(student, torch.cat([teacher, padding], -1)), uld(student, teacher))


def test_temperature_softens_both_and_its_square_scales_nothing():
    student, teacher = logits(3, 9), logits(3, 7, seed=1)
    for scaled in (True, False):
        torch.testing.assert_close(
            uld(student, teacher, temperature=2.0, scale_by_t2=scaled), uld(student / 2, teacher / 2)
        )


def test_what_does_not_fit_is_refused_by_name():
    student, teacher = logits(2, 4, 9), logits(2, 5, 7)
    with pytest.raises(ValueError, match="alike but for time and vocabulary"):
        uld(student, logits(3, 5, 7))
    with pytest.raises(ValueError, match="alike but for time and vocabulary"):
        uld(student[0, 0], teacher[0, 0])
    with pytest.raises(ValueError, match=r"teacher_mask has shape \(2, 4\), expected \(2, 5\)"):
        uld(student, teacher, None, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match="student_mask must be a bool"):
        uld(student, teacher, torch.ones(2, 4))
    with pytest.raises(ValueError, match="temperature"):
        uld(student, teacher, temperature=0)
    with pytest.raises(ValueError, match="teacher_logits holds NaN"):
        uld(student, teacher * math.nan)
    with pytest.raises(UnknownName, match="Did you mean 'token_mean'"):
        uld(student, teacher, reduction="token_men")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(3, 9).to(dtype), logits(3, 7, seed=1).to(dtype)
    assert torch.equal(uld(student, teacher), uld(student.float(), teacher.float()))


def test_it_runs_under_vmap_and_func_grad():
    student, teacher = logits(2, 4, 9), logits(2, 6, 7, seed=1)
    mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    slopes = torch.func.vmap(torch.func.grad(uld))(student, teacher, mask)
    for i in range(2):
        one = student[i].clone().requires_grad_()
        uld(one, teacher[i], mask[i]).backward()
        torch.testing.assert_close(slopes[i], one.grad)
