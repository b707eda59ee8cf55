"""BD-KD: who gets which weight, whose gradient flows where, and what it is when the switch is taken out."""

import pytest
import torch
from torch.autograd import gradcheck

from tests.losses.cases import logits
from workbench.errors import UnknownName
from workbench.losses.bd_kd import bd_kd, entropies
from workbench.losses.divergence import forward_kl, jeffreys, reverse_kl, symmetric_kl


def eager(student, teacher, mask=None, *, delta=2.0, swap=False, temperature=1.0):
    """The student's and the teacher's loss per position, written down as the formulas are."""
    log_q, log_p = (x.log_softmax(-1) for x in (student, teacher))
    surplus = -(log_p.exp() * log_p).sum(-1) + (log_q.exp() * log_q).sum(-1)
    forward = torch.where((surplus > 0) != swap, delta, 1.0)
    log_q, log_p = (x.div(temperature).log_softmax(-1) for x in (student, teacher))
    kl_pq = (log_p.exp() * (log_p - log_q)).sum(-1)
    kl_qp = (log_q.exp() * (log_q - log_p)).sum(-1)
    return temperature**2 * (forward * kl_pq + (1 + delta - forward) * kl_qp), temperature**2 * kl_pq


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("vocab", "temperature"), [(10, 1.0), (10, 3.0), (300, 2.0)])
def test_values_and_gradients_are_those_of_the_formulas(vocab, temperature, swap):
    student, teacher = logits(4, 6, vocab).requires_grad_(), logits(4, 6, vocab, seed=1, scale=1.8).requires_grad_()
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    terms = bd_kd(
        student, teacher, mask, delta=2.5, temperature=temperature, direction="swap" if swap else "match"
    )  # fmt: skip
    wanted = eager(student, teacher.detach(), delta=2.5, temperature=temperature, swap=swap)[0][mask].mean()
    torch.testing.assert_close(terms.student_loss, wanted, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(
        torch.autograd.grad(terms.student_loss, student), torch.autograd.grad(wanted, student), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    wanted = eager(student.detach(), teacher, temperature=temperature)[1][mask].mean()
    torch.testing.assert_close(terms.teacher_loss, wanted, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(
        torch.autograd.grad(terms.teacher_loss, teacher), torch.autograd.grad(wanted, teacher), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_no_gradient_of_a_loss_reaches_the_other_network():
    student, teacher = logits(3, 5).requires_grad_(), logits(3, 5, seed=1).requires_grad_()
    terms = bd_kd(student, teacher)
    assert torch.autograd.grad(terms.student_loss, teacher, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(terms.teacher_loss, student, allow_unused=True) == (None,)
    assert not terms.forward_weight.requires_grad
    assert not terms.reverse_weight.requires_grad


def test_an_over_confident_student_gets_delta_on_the_forward_kl_and_a_modest_one_on_the_reverse():
    sure, unsure = torch.tensor([4.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    terms = bd_kd(torch.stack([sure, unsure]), torch.stack([unsure, sure]), delta=3.0)
    assert terms.forward_weight.tolist() == [3.0, 1.0]
    assert terms.reverse_weight.tolist() == [1.0, 3.0]
    swapped = bd_kd(torch.stack([sure, unsure]), torch.stack([unsure, sure]), delta=3.0, direction="swap")
    assert swapped.forward_weight.tolist() == [1.0, 3.0]


def test_equal_entropies_count_as_not_over_confident():
    same = logits(4, 7).float()
    assert bd_kd(same, same.roll(1, -1), mode="batch").forward_weight.shape == (4,)
    assert bd_kd(same, same.clone()).forward_weight.tolist() == [1.0] * 4
    assert bd_kd(same, same.clone()).student_loss == 0


@pytest.mark.parametrize("mode", ["sample", "batch", "fixed"])
@pytest.mark.parametrize("direction", ["match", "swap"])
def test_the_weights_of_every_sample_add_up_to_one_plus_delta(mode, direction):
    terms = bd_kd(logits(8, 9), logits(8, 9, seed=1), mode=mode, direction=direction, delta=2.5)
    assert terms.forward_weight.shape == terms.reverse_weight.shape == (8,)
    assert (terms.forward_weight + terms.reverse_weight).tolist() == [3.5] * 8


def test_fixed_is_the_symmetric_kl_of_the_same_total_weight_and_delta_1_is_jeffreys():
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    fixed = bd_kd(student, teacher, mode="fixed", delta=2.0).student_loss
    torch.testing.assert_close(fixed, 3 * symmetric_kl(student, teacher))
    torch.testing.assert_close(bd_kd(student, teacher, delta=1.0).student_loss, jeffreys(student, teacher))


def test_batch_decides_by_the_mean_entropies_of_what_counts():
    student, teacher = logits(6, 5), logits(6, 5, seed=1)
    student[0] *= 20  # very sure, but it does not count
    mask = torch.tensor([False, True, True, True, True, True])
    inner = torch.distributions.Categorical
    over = inner(logits=teacher[1:]).entropy().mean() > inner(logits=student[1:]).entropy().mean()
    terms = bd_kd(student, teacher, mask, mode="batch")
    assert terms.forward_weight.unique().tolist() == [2.0 if over else 1.0]
    w_f, w_r = (2.0, 1.0) if over else (1.0, 2.0)
    wanted = w_f * forward_kl(student, teacher, mask) + w_r * reverse_kl(student, teacher, mask)
    torch.testing.assert_close(terms.student_loss, wanted)


@pytest.mark.parametrize("mode", ["sample", "fixed"])
def test_stacked_replicas_get_what_each_would_get_alone(mode):
    student, teacher = logits(3, 5, 10).float(), logits(3, 5, 10, seed=1).float()
    terms = bd_kd(student, teacher, mode=mode, reduction="none", temperature=2.0)
    assert terms.student_loss.shape == terms.teacher_loss.shape == (3, 5)
    for one in range(3):
        alone = bd_kd(student[one], teacher[one], mode=mode, temperature=2.0)
        torch.testing.assert_close(terms.student_loss[one].mean(), alone.student_loss)
        torch.testing.assert_close(terms.teacher_loss[one].mean(), alone.teacher_loss)
        assert torch.equal(terms.forward_weight[one], alone.forward_weight)


def test_replicas_under_vmap_decide_each_for_its_own_batch():
    student, teacher = logits(3, 5, 10), logits(3, 5, 10, seed=1)
    student[0] *= 5
    student[1] *= 0.2
    stacked = torch.func.vmap(lambda s, t: bd_kd(s, t, mode="batch")[0])(student, teacher)
    alone = torch.stack([bd_kd(s, t, mode="batch").student_loss for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(stacked, alone)


@pytest.mark.parametrize("vocab", [5, 128, 129, 1000])
def test_entropies_are_those_of_torch_with_words_that_cannot_be_and_sharp_logits(vocab):
    rows = logits(40, vocab, scale=5) + 1000
    rows[:, 1] = -torch.inf
    rows[7] *= 100
    wanted = torch.special.entr(rows.softmax(-1)).sum(-1)
    torch.testing.assert_close(entropies(rows, torch.float64), wanted, rtol=1e-9, atol=1e-9)
    close = {"rtol": 1e-3, "atol": 1e-3}  # float32 keeps four digits after the point of logits about 1000
    torch.testing.assert_close(entropies(rows.float(), torch.float32).double(), wanted, **close)
    wanted = torch.special.entr((rows / 3).softmax(-1)).sum(-1)
    torch.testing.assert_close(entropies(rows, torch.float64, 3.0), wanted, rtol=1e-9, atol=1e-9)


def test_the_entropy_temperature_moves_the_decision_and_not_the_divergence():
    student, teacher = torch.tensor([[3.0, 2.9, -9.0]]), torch.tensor([[3.0, 0.5, 0.5]])
    flat, sharp = (bd_kd(student, teacher, entropy_temperature=one) for one in (1.0, 5.0))
    assert flat.forward_weight.item() != sharp.forward_weight.item()
    assert flat.teacher_loss == sharp.teacher_loss


def test_gradients_are_the_numerical_ones():
    student, teacher = logits(3, 4).requires_grad_(), logits(3, 4, seed=1)
    assert gradcheck(lambda z: bd_kd(z, teacher, temperature=2.0).student_loss, student)
    assert gradcheck(lambda z: bd_kd(teacher, z, temperature=2.0).teacher_loss, student)


def test_a_fully_masked_batch_is_zero_with_zero_gradients():
    student = torch.full((2, 3), torch.nan).requires_grad_()
    teacher = torch.full((2, 3), torch.inf).requires_grad_()
    terms = bd_kd(student, teacher, torch.zeros(2, dtype=torch.bool))
    (terms.student_loss + terms.teacher_loss).backward()
    assert terms.student_loss == terms.teacher_loss == 0
    assert not student.grad.any()
    assert not teacher.grad.any()


def test_an_empty_batch_is_zero_and_a_single_sample_needs_no_batch_axis():
    empty = torch.zeros(0, 3)
    for mode in ("sample", "batch", "fixed"):
        assert bd_kd(empty, empty, mode=mode).student_loss == 0
        one = bd_kd(logits(5), logits(5, seed=1), mode=mode)
        many = bd_kd(logits(5)[None], logits(5, seed=1)[None], mode=mode)
        torch.testing.assert_close(one.student_loss, many.student_loss)
        assert one.forward_weight == many.forward_weight[0]


def test_logits_that_are_not_numbers_are_refused_by_name_where_they_count():
    dirty = logits(3, 4)
    dirty[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"student_logits holds NaN.*\[1\]"):
        bd_kd(dirty, logits(3, 4))
    with pytest.raises(ValueError, match=r"teacher_logits holds NaN.*\[1\]"):
        bd_kd(logits(3, 4), dirty)
    with pytest.raises(ValueError, match="different vocabularies"):
        bd_kd(logits(3, 4), logits(3, 5))
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(
        bd_kd(dirty, logits(3, 4, seed=1), mask, mode="batch").student_loss,
        bd_kd(logits(3, 4)[mask], logits(3, 4, seed=1)[mask], mode="batch").student_loss,
    )


def test_words_that_both_forbid_count_nothing():
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    padded = [torch.cat([x, torch.full((4, 2), -torch.inf, dtype=x.dtype)], -1) for x in (student, teacher)]
    for ours, theirs in zip(bd_kd(*padded), bd_kd(student, teacher), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(5, 50, scale=8).to(dtype), logits(5, 50, seed=1, scale=8).to(dtype)
    for ours, theirs in zip(bd_kd(student, teacher), bd_kd(student.float(), teacher.float()), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == torch.float32


def test_parts_of_an_accumulated_batch_add_up_to_the_whole():
    student, teacher = logits(6, 5), logits(6, 5, seed=1)
    whole = bd_kd(student, teacher)
    parts = [bd_kd(student[i : i + 2], teacher[i : i + 2], num_items=6) for i in (0, 2, 4)]
    torch.testing.assert_close(sum(part.student_loss for part in parts), whole.student_loss)
    torch.testing.assert_close(sum(part.teacher_loss for part in parts), whole.teacher_loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "samples"}, "Did you mean 'sample'"),
        ({"direction": "swop"}, "Did you mean 'swap'"),
        ({"delta": 0.5}, "direction='swap'"),
        ({"delta": float("nan")}, "delta"),
        ({"entropy_temperature": 0.0}, "entropy_temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"reduction": "mean"}, "token_mean"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bd_kd(logits(2, 3), logits(2, 3), **options)


def test_an_unknown_mode_is_an_unknown_name():
    with pytest.raises(UnknownName):
        bd_kd(logits(2, 3), logits(2, 3), mode="token")
