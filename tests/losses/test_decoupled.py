"""Decoupled distillation: the two parts, and that together they are the plain divergence."""

from __future__ import annotations

import math

import pytest
import torch

from tests.losses.cases import logits
from workbench.losses import NEEDS_LABELS, decoupled_kd, forward_kl, loss_by_name, loss_options

LABELS = torch.tensor([[0, 3, 8, 8], [2, 2, 5, 0]])
MASK = torch.tensor([[True, False, True, True], [True, True, False, False]])
INF = math.inf


def parts(student, teacher, labels):
    """Target part and rest of each position ``[rows]``, in plain autograd over the words that remain."""
    target, rest = [], []
    for z, y, label in zip(student, teacher, labels.tolist(), strict=True):
        q, p = z.softmax(-1), y.softmax(-1)
        keep = torch.arange(len(z)) != label
        b_q, b_p = torch.stack([q[label], q[keep].sum()]), torch.stack([p[label], p[keep].sum()])
        target.append((b_p * (b_p / b_q).log()).sum())
        q_hat, p_hat = q[keep] / q[keep].sum(), p[keep] / p[keep].sum()
        rest.append((p_hat * (p_hat / q_hat).log()).sum())
    return torch.stack(target), torch.stack(rest)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.0, 2.0), (1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_value_and_gradient_are_those_of_the_formula(alpha, beta, temperature):
    student, teacher, labels = logits(8, 9).requires_grad_(), logits(8, 9, seed=1), LABELS.flatten()
    ours = decoupled_kd(student, teacher, labels, alpha=alpha, beta=beta, temperature=temperature)
    target, rest = parts(student / temperature, teacher / temperature, labels)
    theirs = temperature**2 * (alpha * target + beta * rest).mean()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))


def test_the_plain_divergence_is_the_target_part_plus_the_rest_by_what_the_teacher_leaves_it():
    student, teacher, labels = logits(8, 9), logits(8, 9, seed=1), LABELS.flatten()
    target, rest = (
        decoupled_kd(student, teacher, labels, alpha=alpha, beta=1 - alpha, reduction="none") for alpha in (1.0, 0.0)
    )
    left = 1 - teacher.softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    torch.testing.assert_close(target + left * rest, forward_kl(student, teacher, reduction="none"))


def test_a_target_a_thousand_times_taller_is_still_taken_out_exactly():
    student, teacher = logits(4, 9), logits(4, 9, seed=1)
    labels = torch.zeros(4, dtype=torch.long)
    rest = decoupled_kd(student, teacher, labels, alpha=0.0)
    tall_student, tall_teacher = student.clone(), teacher.clone()
    tall_student[:, 0] += 5000
    tall_teacher[:, 0] += 5000
    for dtype in (torch.float64, torch.float32):
        tall = decoupled_kd(tall_student.to(dtype), tall_teacher.to(dtype), labels, alpha=0.0)
        torch.testing.assert_close(tall.double(), rest, rtol=1e-5, atol=0)


def test_equal_models_lose_exactly_nothing():
    same = logits(2, 4, 9).float().requires_grad_()
    value = decoupled_kd(same, same.detach(), LABELS)
    value.backward()
    assert value.item() == 0.0
    assert same.grad.abs().max() < 1e-7


def test_forbidden_words_count_nothing_and_a_target_alone_leaves_no_rest():
    student, teacher = logits(8, 9), logits(8, 9, seed=1)
    padding = torch.full((8, 3), -INF).double()
    padded = [torch.cat([x, padding], -1) for x in (student, teacher)]
    labels = LABELS.flatten()
    torch.testing.assert_close(decoupled_kd(*padded, labels), decoupled_kd(student, teacher, labels))
    alone = torch.tensor([[1.0, -INF, -INF]], requires_grad=True)
    value = decoupled_kd(alone, alone.detach(), torch.tensor([0]))
    value.backward()
    assert value.item() == 0.0
    assert alone.grad.isfinite().all()
    assert decoupled_kd(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0, 0])).item() == 0.0
    sure = decoupled_kd(torch.zeros(1, 3), alone.detach(), torch.tensor([0]))
    assert sure.item() == pytest.approx(math.log(3), rel=1e-6)  # minus the logarithm of the student's target


def test_labels_are_read_only_where_they_count():
    student, teacher = logits(2, 4, 9).requires_grad_(), logits(2, 4, 9, seed=1)
    ignored = LABELS.masked_fill(~MASK, -100)
    value = decoupled_kd(student, teacher, ignored, MASK)
    value.backward()
    torch.testing.assert_close(value, decoupled_kd(student[MASK], teacher[MASK], LABELS[MASK]))
    assert student.grad[~MASK].abs().max() == 0.0
    nothing = decoupled_kd(student, teacher, torch.full_like(LABELS, -100), torch.zeros_like(MASK))
    assert nothing.item() == 0.0
    assert nothing.requires_grad


@pytest.mark.parametrize("label", [-100, -1, 9, 50_000])
def test_a_label_outside_the_vocabulary_that_counts_is_refused_with_a_way_out(label):
    labels = LABELS.clone()
    labels[1, 2] = label
    with pytest.raises(ValueError, match=rf"labels hold {label} .*expected 0 to 8.*mask"):
        decoupled_kd(logits(2, 4, 9), logits(2, 4, 9), labels)


def test_what_cannot_be_labels_or_weights_is_refused():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9)
    with pytest.raises(ValueError, match=r"labels have shape \(2, 3\), expected \(2, 4\)"):
        decoupled_kd(student, teacher, LABELS[:, :3])
    for labels in (LABELS.double(), LABELS > 2, LABELS.tolist()):
        with pytest.raises(TypeError, match="labels must be"):
            decoupled_kd(student, teacher, labels)
    for weights in ({"alpha": -1.0}, {"beta": math.nan}):
        with pytest.raises(ValueError, match=next(iter(weights))):
            decoupled_kd(student, teacher, LABELS, **weights)
    with pytest.raises(ValueError, match="temperature"):
        decoupled_kd(student, teacher, LABELS, temperature=0)
    with pytest.raises(ValueError, match="vocabularies"):
        decoupled_kd(student, logits(2, 4, 8), LABELS)
    with pytest.raises(ValueError, match="student_logits holds NaN"):
        decoupled_kd(student * math.nan, teacher, LABELS)
    with pytest.raises(ValueError, match=r"teacher_logits holds \+inf"):
        decoupled_kd(student, teacher + INF, LABELS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(2, 4, 9, scale=20).to(dtype), logits(2, 4, 9, seed=1, scale=20).to(dtype)
    assert torch.equal(decoupled_kd(student, teacher, LABELS), decoupled_kd(student.float(), teacher.float(), LABELS))


def test_it_runs_under_vmap_and_func_grad():
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    slopes = torch.func.vmap(torch.func.grad(decoupled_kd))(student, teacher, LABELS, MASK)
    for i in range(2):
        one = student[i].clone().requires_grad_()
        decoupled_kd(one, teacher[i], LABELS[i], MASK[i]).backward()
        torch.testing.assert_close(slopes[i], one.grad)


def test_its_name_tells_that_it_takes_labels():
    loss = loss_by_name("decoupled_kd", beta=2.0)
    student, teacher = logits(2, 4, 9), logits(2, 4, 9, seed=1)
    assert loss(student, teacher, LABELS, MASK) == decoupled_kd(student, teacher, LABELS, MASK, beta=2.0)
    assert "decoupled_kd" in NEEDS_LABELS
    assert loss_options("decoupled_kd")["beta"] == 8.0
    with pytest.raises(ValueError, match="beta"):
        loss_by_name("decoupled_kd", beta=-1.0)
