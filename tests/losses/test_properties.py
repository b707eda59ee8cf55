"""Properties that hold for any shape, mask and vocabulary."""

from __future__ import annotations

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.losses.cases import VARIANTS, logits
from workbench.losses import generalized_jsd, logit_mse, loss_by_name, skew_kl, total_variation

some_loss = st.sampled_from(VARIANTS).map(lambda one: loss_by_name(one[0], **one[1]))
some_shape = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)
some_scale = st.sampled_from([0.01, 1.0, 10.0, 100.0])
seeds = st.integers(0, 2**20)
unhurried = settings(deadline=None, max_examples=60, derandomize=True)


def some_mask(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


@unhurried
@given(some_loss, some_shape, st.integers(1, 12), some_scale, seeds)
def test_divergences_are_never_below_zero_and_keep_the_positions(loss, shape, vocab, scale, seed):
    student, teacher = logits(*shape, vocab, seed=seed, scale=scale), logits(*shape, vocab, seed=seed + 1, scale=scale)
    values = loss(student, teacher, reduction="none")
    assert values.shape == shape
    assert values.min() > -1e-12


@unhurried
@given(some_loss, some_shape, st.integers(1, 12), seeds)
def test_only_what_the_mask_lets_through_matters(loss, shape, vocab, seed):
    student, teacher, mask = (
        logits(*shape, vocab, seed=seed),
        logits(*shape, vocab, seed=seed + 1),
        some_mask(shape, seed),
    )
    disturbed = torch.where(mask.unsqueeze(-1), student, math.nan).requires_grad_()
    value = loss(disturbed, teacher, mask)
    value.backward()
    kept = loss(student[mask], teacher[mask]) if mask.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(value.detach(), kept)
    assert disturbed.grad[~mask].abs().sum() == 0.0


@unhurried
@given(some_loss, st.integers(2, 12), some_scale, seeds)
def test_the_order_of_words_and_of_positions_is_nothing(loss, vocab, scale, seed):
    student, teacher = logits(5, vocab, seed=seed, scale=scale), logits(5, vocab, seed=seed + 1, scale=scale)
    draw = torch.Generator().manual_seed(seed)
    words, rows = torch.randperm(vocab, generator=draw), torch.randperm(5, generator=draw)
    torch.testing.assert_close(loss(student[rows][:, words], teacher[rows][:, words]), loss(student, teacher))


@unhurried
@given(some_loss, st.integers(1, 12), some_scale, seeds)
def test_the_gradient_of_a_position_sums_to_nothing(loss, vocab, scale, seed):
    assume(loss.func is not logit_mse)  # which minds a constant added to the logits
    student = logits(4, vocab, seed=seed, scale=scale).requires_grad_()
    value = loss(student, logits(4, vocab, seed=seed + 1, scale=scale))
    value.backward()
    assert student.grad.sum(-1).abs().max() < 1e-9 * (1 + value.item())


@unhurried
@given(st.floats(0.001, 0.999), st.integers(1, 12), some_scale, seeds)
def test_bounded_losses_keep_their_bounds(share, vocab, scale, seed):
    student, teacher = logits(4, vocab, seed=seed, scale=scale), logits(4, vocab, seed=seed + 1, scale=scale)
    entropy_of_share = -share * math.log(share) - (1 - share) * math.log(1 - share)
    for direction in ("forward", "reverse"):
        values = skew_kl(student, teacher, alpha=share, direction=direction, reduction="none")
        assert values.max() <= -math.log(share) + 1e-9
    assert generalized_jsd(student, teacher, beta=share, reduction="none").max() <= entropy_of_share + 1e-9
    moved = total_variation(student, teacher, reduction="none")
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-9


@unhurried
@given(some_loss, seeds, st.floats(0.3, 5.0))
def test_temperature_is_the_same_as_dividing_the_logits(loss, seed, temperature):
    student, teacher = logits(4, 9, seed=seed), logits(4, 9, seed=seed + 1)
    torch.testing.assert_close(
        loss(student, teacher, temperature=temperature, scale_by_t2=False),
        loss(student / temperature, teacher / temperature),
    )
