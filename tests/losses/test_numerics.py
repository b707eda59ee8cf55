"""Where peers give NaN, infinity or another number: each trap with what is true there."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import VARIANTS, every_loss, every_loss_but, logits
from workbench.losses import (
    TAIDLoss,
    forward_kl,
    generalized_jsd,
    jeffreys,
    loss_by_name,
    reverse_kl,
    skew_kl,
    taid,
    taid_target,
    total_variation,
)

INF = math.inf


def value_and_gradient(loss, student, teacher, mask=None):
    student = student.clone().requires_grad_()
    value = loss(student, teacher, mask)
    value.backward()
    return value.detach(), student.grad


@every_loss
def test_columns_that_both_forbid_count_nothing(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(3, 4, 10), logits(3, 4, 10, seed=1)
    padding = torch.full((3, 4, 6), -INF, dtype=torch.float64)
    plain, slope = value_and_gradient(loss, student, teacher)
    padded, padded_slope = value_and_gradient(
        loss, torch.cat([student, padding], -1), torch.cat([teacher, padding], -1)
    )
    torch.testing.assert_close(padded, plain)
    torch.testing.assert_close(padded_slope[..., :10], slope)
    assert padded_slope[..., 10:].abs().max() == 0.0


def one_sided() -> tuple[torch.Tensor, torch.Tensor]:
    """All words allowed, and the same with the last forbidden."""
    allowed = torch.tensor([[1.0, 0.0, -1.0]])
    return allowed, torch.tensor([[1.0, 0.0, -INF]])


def test_forward_kl_is_infinite_where_the_student_forbids_what_the_teacher_allows_and_its_gradient_is_not():
    allowed, forbidding = one_sided()
    value, slope = value_and_gradient(forward_kl, forbidding, allowed)
    assert value == INF
    torch.testing.assert_close(slope, forbidding.softmax(-1) - allowed.softmax(-1))


def test_forward_kl_is_finite_where_only_the_teacher_forbids():
    allowed, forbidding = one_sided()
    value, slope = value_and_gradient(forward_kl, allowed, forbidding)
    p = forbidding.softmax(-1)[0, :2]
    by_hand = (p * (p.log() - allowed.log_softmax(-1)[0, :2])).sum()
    torch.testing.assert_close(value, by_hand)
    assert slope.isfinite().all()


def test_reverse_kl_is_infinite_the_other_way_round():
    allowed, forbidding = one_sided()
    assert reverse_kl(allowed, forbidding) == INF
    value, slope = value_and_gradient(reverse_kl, forbidding, allowed)
    assert value.isfinite()
    assert slope.isfinite().all()
    assert jeffreys(allowed, forbidding) == INF == jeffreys(forbidding, allowed)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_mixtures_stay_finite_with_finite_gradients_where_one_side_forbids(beta):
    allowed, forbidding = one_sided()
    for loss in (
        loss_by_name("generalized_jsd", beta=beta),
        loss_by_name("skew_kl", alpha=beta),
        loss_by_name("skew_kl", alpha=beta, direction="reverse"),
        total_variation,
    ):
        for student, teacher in ((allowed, forbidding), (forbidding, allowed)):
            value, slope = value_and_gradient(loss, student, teacher)
            assert 0 < value < INF
            assert slope.isfinite().all()


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_taid_survives_minus_infinity_at_every_t(t):
    student = torch.tensor([[1.0, 0.0, -INF, -INF]])
    teacher = torch.tensor([[0.0, 1.0, 2.0, -INF]])
    value, slope = value_and_gradient(loss_by_name("taid", t=t), student, teacher)
    # A geometric mean: what one side forbids, the target forbids, until t = 1 leaves the teacher alone.
    assert value.isfinite() if t < 1 else value == INF
    assert slope.isfinite().all()
    assert taid_target(student, teacher, t).sum().item() == pytest.approx(1.0)


@every_loss
@pytest.mark.parametrize("scale", [15.0, 1000.0])
def test_sharp_distributions_agree_with_float64(name, options, scale):
    loss = loss_by_name(name, **options)
    student, teacher = logits(20, 64, scale=scale).float(), logits(20, 64, seed=1, scale=scale).float()
    value, slope = value_and_gradient(loss, student, teacher)
    exact, exact_slope = value_and_gradient(loss, student.double(), teacher.double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-3, atol=1e-6 * scale)


def test_a_mixture_of_sharp_distributions_is_what_log_space_says():
    student, teacher = logits(50, 40, scale=15.0), logits(50, 40, seed=1, scale=15.0)
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    log_m = torch.logaddexp(log_p + math.log(0.1), log_q + math.log(0.9))
    skew = (log_p.exp() * (log_p - log_m)).sum(-1)
    jsd = 0.1 * skew + 0.9 * (log_q.exp() * (log_q - log_m)).sum(-1)
    torch.testing.assert_close(skew_kl(student, teacher, alpha=0.1, reduction="none"), skew)
    torch.testing.assert_close(generalized_jsd(student, teacher, beta=0.1, reduction="none"), jsd)


@every_loss
def test_a_tiny_temperature_is_hard_but_not_broken(name, options):
    student, teacher = logits(5, 8).float(), logits(5, 8, seed=1).float()
    value, slope = value_and_gradient(loss_by_name(name, temperature=1e-4, **options), student, teacher)
    assert value.isfinite()
    assert slope.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, options, dtype):
    loss = loss_by_name(name, **options)
    student, teacher = logits(4, 6, 30).to(dtype), logits(4, 6, 30, seed=1).to(dtype)
    value, slope = value_and_gradient(loss, student, teacher)
    wide, wide_slope = value_and_gradient(loss, student.float(), teacher.float())
    assert value.dtype == torch.float32
    assert torch.equal(value, wide)
    assert slope.dtype == dtype
    assert torch.equal(slope, wide_slope.to(dtype))


def test_float16_keeps_the_small_gradients_of_a_long_mean_for_the_gradient_scaler():
    student, teacher = (0.02 * logits(4096, 8)).half(), (0.02 * logits(4096, 8, seed=1)).half()
    scaled = student.clone().requires_grad_()
    (forward_kl(scaled, teacher) * 2.0**16).backward()
    exact = value_and_gradient(forward_kl, student.float(), teacher.float())[1] * 2.0**16
    torch.testing.assert_close(scaled.grad.float(), exact, rtol=2e-3, atol=1e-4)


def test_bfloat16_divergence_of_near_equal_distributions_is_not_negative():
    student = logits(200, 500).bfloat16()
    teacher = (student.float() + 0.02 * logits(200, 500, seed=1).float()).bfloat16()
    per_token = forward_kl(student, teacher, reduction="none")
    exact = forward_kl(student.double(), teacher.double(), reduction="none")
    assert per_token.min() > 0
    torch.testing.assert_close(per_token.double(), exact, rtol=2e-2, atol=1e-6)


@every_loss
def test_float64_stays_float64_and_wins_in_a_mixed_pair(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(4, 30), logits(4, 30, seed=1)
    assert loss(student, teacher).dtype == torch.float64
    assert loss(student.float(), teacher).dtype == torch.float64


@every_loss
def test_what_is_masked_is_never_read(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(3, 4, 10), logits(3, 4, 10, seed=1)
    mask = torch.tensor([[True, False, True, True], [False] * 4, [True, True, False, False]])
    clean, slope = value_and_gradient(loss, student, teacher, mask)
    for garbage in (math.nan, INF, -INF, 1e30):
        dirty_student, dirty_teacher = student.clone(), teacher.clone()
        dirty_student[~mask], dirty_teacher[~mask] = garbage, garbage
        value, dirty_slope = value_and_gradient(loss, dirty_student, dirty_teacher, mask)
        assert torch.equal(value, clean)
        assert torch.equal(dirty_slope, slope)
    assert slope[~mask].abs().max() == 0.0


@every_loss
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sum", "none"])
def test_a_fully_masked_batch_is_exactly_nothing_and_stays_connected(name, options, reduction):
    student = torch.full((2, 3, 5), math.nan, requires_grad=True)
    loss = loss_by_name(name, reduction=reduction, **options)(
        student, student.detach(), torch.zeros(2, 3, dtype=torch.bool)
    )
    assert loss.requires_grad
    loss.sum().backward()
    assert loss.abs().max() == 0.0
    assert student.grad.abs().max() == 0.0


@every_loss
def test_no_gradient_flows_into_the_teacher(name, options):
    student, teacher = logits(4, 9).requires_grad_(), logits(4, 9, seed=1).requires_grad_()
    loss_by_name(name, **options)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


@every_loss
def test_nobody_writes_to_the_logits(name, options):
    student, teacher = logits(4, 9).float(), logits(4, 9, seed=1).float()
    before = student.clone(), teacher.clone()
    loss_by_name(name, **options)(student.requires_grad_(), teacher).backward()
    assert torch.equal(student.detach(), before[0])
    assert torch.equal(teacher, before[1])


@every_loss
def test_logits_shifted_by_one_need_no_copy_of_the_caller(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(3, 5, 9), logits(3, 5, 9, seed=1)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(2)) > 0.4
    for counts in (None, mask):
        view, view_slope = value_and_gradient(lambda s, t, m: loss(s[:, :-1], t[:, :-1], m), student, teacher, counts)
        copy, copy_slope = value_and_gradient(
            lambda s, t, m: loss(s[:, :-1].contiguous(), t[:, :-1].contiguous(), m), student, teacher, counts
        )
        assert torch.equal(view, copy)
        assert torch.equal(view_slope, copy_slope)


def test_logits_beyond_one_piece_give_what_one_row_at_a_time_gives():
    student, teacher = logits(9, 50_000).float(), logits(9, 50_000, seed=1).float()
    together = generalized_jsd(student, teacher, reduction="none")
    alone = torch.stack([generalized_jsd(s, t) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(together, alone)


@every_loss
def test_few_words_are_computed_as_many_are(name, options):
    student, teacher = logits(6, 100).float(), logits(6, 100, seed=1).float()
    padding = torch.full((6, 200), -INF)
    loss = loss_by_name(name, **options)
    few, slope = value_and_gradient(loss, student, teacher)
    many, long_slope = value_and_gradient(loss, torch.cat([student, padding], -1), torch.cat([teacher, padding], -1))
    torch.testing.assert_close(few, many)
    torch.testing.assert_close(slope, long_slope[:, :100])


def test_backward_may_be_asked_twice_and_with_any_weight():
    student, teacher = logits(4, 9).requires_grad_(), logits(4, 9, seed=1)
    loss = forward_kl(student, teacher)
    (once,) = torch.autograd.grad(loss, student, retain_graph=True)
    (tripled,) = torch.autograd.grad(3 * loss, student, retain_graph=True)
    (again,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(tripled, 3 * once)
    assert torch.equal(again, once)


def test_differentiating_twice_is_refused_rather_than_wrong():
    student, teacher = logits(4, 9).requires_grad_(), logits(4, 9, seed=1)
    (slope,) = torch.autograd.grad(forward_kl(student, teacher), student, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        slope.sum().backward()


@every_loss_but("dist")  # plain autograd, differentiable as often as one likes
@pytest.mark.parametrize("derivative", [torch.func.grad, torch.func.jacrev])
def test_torch_func_nested_is_refused_too(name, options, derivative):
    loss, teacher = loss_by_name(name, **options), logits(4, 9, seed=1)
    slope = torch.func.grad(lambda student: loss(student, teacher))
    with pytest.raises(RuntimeError, match="differentiable once"):
        derivative(lambda student: slope(student).square().sum())(logits(4, 9))


def test_the_weight_of_a_loss_may_be_learnt_through_its_gradient():
    student, teacher = logits(4, 9).requires_grad_(), logits(4, 9, seed=1)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(weight * forward_kl(student, teacher), student, create_graph=True)
    (by_weight,) = torch.autograd.grad(slope.square().sum(), weight)
    torch.testing.assert_close(by_weight, 2 * slope.square().sum().detach())


@every_loss
def test_losses_run_under_vmap_and_func_grad(name, options):
    loss = loss_by_name(name, **options)
    student, teacher = logits(3, 4, 7), logits(3, 4, 7, seed=1)
    mask = torch.tensor([[True, True, False, True], [True] * 4, [False] * 4])
    slopes = torch.func.vmap(torch.func.grad(loss))(student, teacher, mask)
    values = torch.func.vmap(lambda s: loss(s, teacher[0], mask[0]))(student)
    for i in range(3):
        torch.testing.assert_close(slopes[i], value_and_gradient(loss, student[i], teacher[i], mask[i])[1])
        torch.testing.assert_close(values[i], loss(student[i], teacher[0], mask[0]))


def test_taid_loss_with_cross_entropy_has_the_same_gradient_and_the_target_s_entropy_on_top():
    student, teacher = logits(3, 4, 7), logits(3, 4, 7, seed=1)
    mask = torch.tensor([[True, True, False, True]] * 3)
    kl, slope = value_and_gradient(TAIDLoss(t_start=0.3), student, teacher, mask)
    ce, ce_slope = value_and_gradient(TAIDLoss(t_start=0.3, return_ce=True), student, teacher, mask)
    target = (0.7 * student + 0.3 * teacher).softmax(-1)
    by_hand = -(target * student.log_softmax(-1)).sum(-1)[mask].mean()
    torch.testing.assert_close(ce, by_hand)
    torch.testing.assert_close(ce_slope, slope)
    torch.testing.assert_close(kl, taid(student, teacher, mask, t=0.3))


def test_every_loss_is_among_those_tested_here():
    from workbench.losses import LOSSES

    assert {name for name, _ in VARIANTS} == set(LOSSES)
