"""Distillation of real models on real text: it pulls, it leaves the teacher alone, it refuses what cannot be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.metrics.language import held_out_scores, log_probabilities
from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import DistillationLoss, Objective, distil, fit, fixed_windows, random_windows

STUDENT, TEACHER = ModelSize(16, 1, 1), ModelSize(32, 1, 2)


@pytest.fixture
def text(task):
    return task.prepare()


@pytest.fixture
def teacher(text):
    model = small_lm(text.vocab_size, TEACHER, context=text.context, seed=1)
    fit(model, windows(text, seed=1), next_token_loss, steps=40, lr=0.01, label=None)
    return model


def windows(text, seed=0):
    return random_windows(text.training, context=text.context, batch_size=4, seed=seed)


def student_of(text):
    return small_lm(text.vocab_size, STUDENT, context=text.context, seed=0)


def oracle(student_logits, teacher_logits, mask=None):
    per_token = F.kl_div(
        student_logits.log_softmax(-1), teacher_logits.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    return per_token.mean() if mask is None else per_token[mask].mean()


def kl(student, teacher, text):
    held_out = fixed_windows(text.held_out, context=text.context, count=40)
    answers = log_probabilities(teacher, held_out)
    return held_out_scores(student, held_out, bytes_per_token=1.0, teacher_log_probs=answers)["kl_to_teacher"]


def test_forward_kl_brings_the_student_nearer_and_leaves_the_teacher_untouched(text, teacher):
    student = student_of(text)
    before, weights = kl(student, teacher, text), [weight.clone() for weight in teacher.parameters()]
    modes = []
    teacher.register_forward_hook(lambda module, _inputs, _output: modes.append(module.training))
    history = distil(student, teacher, windows(text), "forward_kl", steps=60, lr=0.02, label=None)
    assert kl(student, teacher, text) < 0.6 * before
    assert all(torch.equal(a, b) for a, b in zip(weights, teacher.parameters(), strict=True))
    assert not any(modes[:60])
    assert teacher.training
    assert history.steps == 60


def test_a_loss_by_name_is_the_same_loss_as_a_function(text, teacher):
    named, given = student_of(text), student_of(text)
    distil(named, teacher, windows(text), "forward_kl", steps=10, lr=0.01, label=None)
    distil(given, teacher, windows(text), oracle, steps=10, lr=0.01, label=None)
    for a, b in zip(named.parameters(), given.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


def test_labels_alone_are_training_without_a_teacher(text, teacher):
    one, other = student_of(text), student_of(text)
    distil(one, teacher, windows(text), "none", steps=5, lr=0.01, ce_weight=1.0, label=None)
    fit(other, windows(text), next_token_loss, steps=5, lr=0.01, label=None)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_taid_walks_from_its_start_to_its_end_and_t_is_recorded(text, teacher):
    history = distil(
        student_of(text), teacher, windows(text), "taid", steps=40, lr=0.01, record_every=1,
        loss_options={"t_start": 0.3, "alpha": 0.2}, label=None,
    )  # fmt: skip
    t = history.table.query("quantity == 't'").value.tolist()
    assert len(t) == 40
    assert t[0] == 0.3
    assert t == sorted(t)
    assert 0.9 < t[-1] <= 1.0
    assert t[1] == 0.3  # the first divergence is only stored
    assert all(now >= 0.3 + 0.7 * step / 40 - 1e-9 for step, now in enumerate(t) if step > 1)


def test_taid_moves_once_a_step_however_many_batches_make_it():
    loss = DistillationLoss("taid", options={"t_start": 0.5, "adaptive": False}, total_steps=10)
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for wanted in (0.5, 0.5, 0.6):  # the first divergence is only stored
        for _ in range(3):
            loss(logits, logits.flip(0), torch.zeros(2, 3, dtype=torch.long))
            assert loss.t == pytest.approx(wanted)
        loss.advance()
    assert loss.t == pytest.approx(0.65)


def test_weights_mix_cross_entropy_and_divergence():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 7, generator=generator)
    labels = torch.randint(7, (2, 3), generator=generator)
    mixed = DistillationLoss("forward_kl", ce_weight=0.25, kd_weight=0.75, total_steps=1)(student, teacher, labels)
    hand = 0.25 * F.cross_entropy(student.flatten(0, 1), labels.flatten()) + 0.75 * oracle(student, teacher)
    assert mixed.item() == pytest.approx(hand.item(), rel=1e-5)


def test_labels_of_minus_100_do_not_count(text, teacher):
    tokens = next(windows(text))
    labels = tokens.clone()
    labels[:, 8:] = -100
    short, masked = student_of(text), student_of(text)
    distil(short, teacher, [tokens[:, :8]], "forward_kl", steps=3, lr=0.01, ce_weight=1.0, label=None)
    batch = {"input_ids": tokens, "labels": labels}
    distil(masked, teacher, [batch], "forward_kl", steps=3, lr=0.01, ce_weight=1.0, label=None)
    for a, b in zip(short.parameters(), masked.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_plain_modules_can_teach_and_learn():
    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    inputs = torch.randn(64, 4)
    batch = (inputs, teacher(inputs).argmax(-1))
    before = oracle(student(inputs), teacher(inputs)).item()
    distil(student, teacher, [batch], "reverse_kl", steps=100, lr=0.05, label=None)
    assert oracle(student(inputs), teacher(inputs)).item() < 0.1 * before


def test_vocabularies_of_different_size_are_refused_before_any_step(text, teacher):
    other = small_lm(text.vocab_size + 1, STUDENT, context=text.context, seed=0)
    with pytest.raises(ValueError, match=r"vocabulary has \d+ entries and the teacher's \d+"):
        distil(other, teacher, iter(()), "forward_kl", steps=5, lr=0.01, label=None)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective("x", "forward_lk"), "Did you mean 'forward_kl'"),
        (Objective("x", "forward_kl", kd_weight=-1.0), "kd_weight"),
        (Objective("x", "none"), "both 0"),
        (Objective("x", "skew_kl", (("alpha", 2.0),)), "alpha"),
    ],
)
def test_objectives_that_cannot_be_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        objective.check()


@pytest.mark.parametrize(("loss", "options"), [("forward_kl", {"temperature": 2.0}), ("skew_kl", {}), ("taid", {})])
def test_without_logits_of_a_whole_batch_a_student_learns_the_same(text, teacher, loss, options):
    """``chunked`` changes what is held in memory, not a number of the trajectory; for labels in the mixture, too."""
    curves = []
    for chunked in (False, True):
        student = student_of(text)
        history = distil(
            student, teacher, windows(text), loss, loss_options=options, ce_weight=0.5, chunked=chunked, steps=12,
            lr=1e-2, record_every=1, label=None,
        )  # fmt: skip
        curves.append(history.table)
    plain, lean = curves
    assert plain["quantity"].tolist() == lean["quantity"].tolist()
    np.testing.assert_allclose(lean["value"], plain["value"], rtol=1e-4)


def test_what_cannot_do_without_logits_is_refused_before_any_step(text, teacher):
    student = student_of(text)
    with pytest.raises(ValueError, match="total_variation"):
        distil(student, teacher, windows(text), "total_variation", chunked=True, steps=1, lr=1e-2)
    with pytest.raises(ValueError, match="no linear output layer"):
        distil(torch.nn.Linear(2, 3), torch.nn.Linear(2, 3), [], "forward_kl", chunked=True, steps=1, lr=1e-2)
