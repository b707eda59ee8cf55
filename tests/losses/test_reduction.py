"""What a mean is over, and that a batch in parts is the batch."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.losses import forward_kl, reduce_tokens

VALUES = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [5.0, 5.0, 5.0]])
MASK = torch.tensor([[True, True, False], [True, False, False], [False] * 3])


def test_means_and_sums_match_the_hand():
    assert reduce_tokens(VALUES, MASK).item() == pytest.approx((1 + 2 + 10) / 3)
    assert reduce_tokens(VALUES, MASK, reduction="sequence_mean").item() == pytest.approx((1.5 + 10) / 2)
    assert reduce_tokens(VALUES, MASK, reduction="sum").item() == pytest.approx(13)
    assert reduce_tokens(VALUES, MASK, reduction="none").tolist() == [[1, 2, 0], [10, 0, 0], [0, 0, 0]]
    assert reduce_tokens(VALUES).item() == pytest.approx(VALUES.mean().item())
    assert reduce_tokens(VALUES, reduction="sequence_mean").item() == pytest.approx(VALUES.mean().item())


def test_the_number_of_items_replaces_the_divisor():
    assert reduce_tokens(VALUES, MASK, num_items=10).item() == pytest.approx(1.3)
    assert reduce_tokens(VALUES, MASK, reduction="sequence_mean", num_items=4).item() == pytest.approx(11.5 / 4)
    assert reduce_tokens(VALUES, MASK, reduction="sum", num_items=10).item() == pytest.approx(1.3)
    assert reduce_tokens(VALUES, num_items=torch.tensor(18)).item() == pytest.approx(VALUES.sum().item() / 18)
    assert reduce_tokens(VALUES, reduction="sequence_mean", num_items=6).item() == pytest.approx(18 / 4.5 / 1 * 27 / 24)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sum", "none"])
def test_what_does_not_count_may_be_anything(reduction):
    dirty = VALUES.clone()
    dirty[~MASK] = torch.tensor([math.nan, math.inf, -math.inf, math.nan, 0.0, 1e38])
    dirty.requires_grad_()
    reduced = reduce_tokens(dirty, MASK, reduction=reduction)
    reduced.sum().backward()
    assert torch.equal(reduced, reduce_tokens(VALUES, MASK, reduction=reduction))
    assert dirty.grad[~MASK].abs().max() == 0.0
    assert (dirty.grad[MASK] > 0).all()


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(2, 3), (4,), (), (0, 3)])
def test_nothing_to_count_is_exactly_nothing_and_connected(reduction, shape):
    values = torch.full(shape, math.nan, requires_grad=True)
    reduced = reduce_tokens(values, torch.zeros(shape, dtype=torch.bool), reduction=reduction)
    reduced.sum().backward()
    assert reduced.sum().item() == 0.0
    assert values.grad.sum().item() == 0.0


def test_a_loss_reduces_as_the_function_does():
    student, teacher = logits(3, 3, 7), logits(3, 3, 7, seed=1)
    per_token = forward_kl(student, teacher, reduction="none")
    for reduction in ("token_mean", "sequence_mean", "sum", "none"):
        for mask in (MASK, None):
            torch.testing.assert_close(
                forward_kl(student, teacher, mask, reduction=reduction),
                reduce_tokens(per_token, mask, reduction=reduction),
            )


def test_accumulating_parts_of_a_batch_gives_the_mean_over_its_tokens_and_a_mean_of_means_does_not():
    student, teacher = logits(3, 3, 7), logits(3, 3, 7, seed=1)
    whole = student.clone().requires_grad_()
    full = forward_kl(whole, teacher, MASK)
    full.backward()
    parts = student.clone().requires_grad_()
    losses = [forward_kl(parts[i], teacher[i], MASK[i], num_items=MASK.sum()) for i in range(3)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(sum(losses), full)
    torch.testing.assert_close(parts.grad, whole.grad)
    mean_of_means = torch.stack([forward_kl(student[i], teacher[i], MASK[i]) for i in range(3)]).mean()
    assert abs(mean_of_means - full) > 0.01


def test_one_position_without_axes_is_a_batch_of_one():
    student, teacher = logits(7), logits(7, seed=1)
    values = [forward_kl(student, teacher, reduction=r) for r in ("token_mean", "sequence_mean", "sum", "none")]
    assert all(value == values[0] and value.shape == () for value in values)
    assert forward_kl(student, teacher, torch.tensor(False)).item() == 0.0
