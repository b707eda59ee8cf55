"""A teacher known by its likeliest words: exact when all are known, and never more than the truth."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.losses import forward_kl, topk_kl

INF = math.inf
MASK = torch.tensor([[True, False, True, True], [True, True, False, False]])


def top(teacher, k):
    values, indices = teacher.log_softmax(-1).topk(k, dim=-1)
    return values, indices


def by_the_formula(student, values, indices, *, tail, temperature):
    log_q = student.log_softmax(-1)
    log_s = log_q.gather(-1, indices)
    if tail:
        rest = 1 - log_s.exp().sum(-1, keepdim=True)
        log_s = torch.cat([log_s, rest.log()], -1)
        values = torch.cat([values, (1 - values.exp().sum(-1, keepdim=True)).log()], -1)
    log_s, log_p = ((x / temperature).log_softmax(-1) for x in (log_s, values))
    return (log_p.exp() * (log_p - log_s)).sum(-1)


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 4])
def test_value_and_gradient_are_those_of_the_formula(k, tail, temperature):
    student, teacher = logits(2, 4, 9).requires_grad_(), logits(2, 4, 9, seed=1)
    values, indices = top(teacher, k)
    ours = topk_kl(student, values, indices, MASK, tail=tail, temperature=temperature)
    per_token = by_the_formula(student, values, indices, tail=tail, temperature=temperature)
    theirs = temperature**2 * per_token[MASK].mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_with_the_whole_vocabulary_it_is_forward_kl(tail, temperature, dtype):
    student, teacher = logits(2, 4, 9).to(dtype).requires_grad_(), logits(2, 4, 9, seed=1).to(dtype)
    ours = topk_kl(student, *top(teacher, 9), MASK, tail=tail, temperature=temperature)
    full = forward_kl(student, teacher, MASK, temperature=temperature)
    torch.testing.assert_close(ours, full)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, full)))


def test_with_a_tail_it_grows_to_the_full_divergence_as_more_words_are_known():
    student, teacher = logits(8, 30), logits(8, 30, seed=1)
    known = [topk_kl(student, *top(teacher, k)).item() for k in (1, 2, 5, 10, 20, 29, 30)]
    assert known == sorted(known)
    assert known[-1] == pytest.approx(forward_kl(student, teacher).item())


def test_a_student_equal_to_its_teacher_loses_nothing_at_any_temperature():
    same = logits(3, 40).float()
    for k in (1, 5, 39):
        for temperature in (0.5, 1.0, 4.0):
            assert topk_kl(same, *top(same, k), temperature=temperature).item() == pytest.approx(0, abs=2e-6)


def test_one_word_without_a_tail_teaches_nothing_and_with_a_tail_it_does():
    student, teacher = logits(3, 9).requires_grad_(), logits(3, 9, seed=1)
    value = topk_kl(student, *top(teacher, 1), tail=False)
    value.backward()
    assert value.item() == 0.0
    assert student.grad.abs().max() == 0.0
    assert topk_kl(student, *top(teacher, 1)) > 0.01


def test_the_order_of_the_kept_words_is_nothing():
    student, teacher = logits(3, 9), logits(3, 9, seed=1)
    values, indices = top(teacher, 5)
    torch.testing.assert_close(topk_kl(student, values.flip(-1), indices.flip(-1)), topk_kl(student, values, indices))


def test_a_tail_that_rounding_or_padding_emptied_stays_finite():
    student, teacher = logits(3, 9).float(), logits(3, 9, seed=1).float()
    padding = torch.full((3, 4), -INF)
    padded_student = torch.cat([student, padding], -1).requires_grad_()
    ours = topk_kl(padded_student, *top(teacher, 9))  # all that the teacher has, yet less than the vocabulary
    ours.backward()
    torch.testing.assert_close(ours, forward_kl(student, teacher), rtol=1e-4, atol=1e-5)
    assert padded_student.grad.isfinite().all()
    sure = torch.tensor([[200.0, 0.0, 0.0]])
    assert topk_kl(sure, *top(sure, 1)).item() == pytest.approx(0, abs=1e-6)
    assert topk_kl(torch.zeros(1, 3), *top(sure, 1)).isfinite()


def test_a_kept_word_of_no_probability_counts_nothing_and_one_that_the_student_forbids_is_infinite():
    student, teacher = logits(3, 9), logits(3, 9, seed=1)
    teacher[:, 4:] = -INF
    torch.testing.assert_close(topk_kl(student, *top(teacher, 9)), forward_kl(student, teacher))
    forbidding = student.clone()
    forbidding[:, 0] = -INF
    assert topk_kl(forbidding, *top(teacher, 4)) == INF


def test_what_is_masked_is_never_read_and_nothing_to_count_is_nothing():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    values, indices = top(teacher, 3)
    clean = topk_kl(student, values, indices, MASK)
    for x, garbage in ((student, math.nan), (values, math.nan), (indices, -100)):
        x[~MASK] = garbage
    student.requires_grad_()
    value = topk_kl(student, values, indices, MASK)
    value.backward()
    assert torch.equal(value, clean)
    assert student.grad[~MASK].abs().max() == 0.0
    nothing = topk_kl(student, values, indices, torch.zeros_like(MASK))
    assert nothing.item() == 0.0
    assert nothing.requires_grad
    empty = topk_kl(torch.zeros(0, 9), torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    assert empty.item() == 0.0


def test_more_words_than_the_vocabulary_are_refused():
    student = logits(3, 9)
    with pytest.raises(ValueError, match="k=10 .* vocabulary of 9"):
        topk_kl(student, *top(logits(3, 12), 10))


@pytest.mark.parametrize("word", [-1, 9, 100])
def test_a_word_outside_the_vocabulary_is_refused(word):
    values, indices = top(logits(3, 9, seed=1), 3)
    indices[1, 2] = word
    with pytest.raises(ValueError, match=rf"teacher_top_indices hold {word} .*0 to 8"):
        topk_kl(logits(3, 9), values, indices)


def test_a_word_given_twice_is_refused():
    values, indices = top(logits(3, 9, seed=1), 3)
    indices[1, 2] = indices[1, 0]
    with pytest.raises(ValueError, match=f"word {int(indices[1, 0])} more than once"):
        topk_kl(logits(3, 9), values, indices)


def test_logits_in_place_of_log_probabilities_are_refused():
    values, indices = logits(3, 9, seed=1).topk(3, dim=-1)
    with pytest.raises(ValueError, match="log_softmax"):
        topk_kl(logits(3, 9), values + 3, indices)


def test_log_probabilities_rounded_to_bfloat16_are_taken():
    student, teacher = logits(50, 400).float(), logits(50, 400, seed=1).float()
    values, indices = top(teacher, 300)
    rounded = topk_kl(student, values.bfloat16(), indices.int())
    torch.testing.assert_close(rounded, topk_kl(student, values, indices), rtol=2e-2, atol=0)


def test_what_does_not_fit_is_refused_by_name():
    student, (values, indices) = logits(3, 9), top(logits(3, 9, seed=1), 4)
    with pytest.raises(TypeError, match="teacher_top_indices"):
        topk_kl(student, values, indices.double())
    with pytest.raises(ValueError, match="do not fit"):
        topk_kl(student, values, indices[:, :3])
    with pytest.raises(ValueError, match="do not fit"):
        topk_kl(student[:2], values, indices)
    with pytest.raises(ValueError, match="teacher_top_logprobs holds NaN"):
        topk_kl(student, values * math.nan, indices)
    with pytest.raises(ValueError, match=r"student_logits holds \+inf"):
        topk_kl(student + INF, values, indices)
    with pytest.raises(ValueError, match="temperature"):
        topk_kl(student, values, indices, temperature=-1.0)
    with pytest.raises(TypeError, match="mask must be a bool"):
        topk_kl(student, values, indices, torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    student, (values, indices) = logits(3, 9).to(dtype), top(logits(3, 9, seed=1).float(), 4)
    assert torch.equal(topk_kl(student, values, indices), topk_kl(student.float(), values, indices))


def test_it_runs_under_vmap_and_func_grad():
    student, (values, indices) = logits(2, 4, 9), top(logits(2, 4, 9, seed=1), 3)
    slopes = torch.func.vmap(torch.func.grad(topk_kl))(student, values, indices, MASK)
    for i in range(2):
        one = student[i].clone().requires_grad_()
        topk_kl(one, values[i], indices[i], MASK[i]).backward()
        torch.testing.assert_close(slopes[i], one.grad)
