"""Objectives by name: what each is, and what walks while a student learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from workbench.losses.bd_kd import bd_kd
from workbench.losses.divergence import forward_kl, jeffreys
from workbench.losses.matching import standardize_logits
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import LeanLM
from workbench.training import distil, random_windows
from workbench.training.objective import DistillationLoss, Objective, named_objectives
from workbench.training.objective_losses import loss_names

WORDS = 7
EVERY = sorted({*loss_names(), "cross_entropy", "skew_reverse_kl", "taid_linear", "minima", "bd_kd_fixed"})


@pytest.fixture
def pair():
    random = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(4, 5, WORDS, generator=random, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(WORDS, (4, 5), generator=random)


def named(name, steps=100, **options):
    return DistillationLoss.of(named_objectives([name], steps=steps, **options)[0], total_steps=steps)


@pytest.mark.parametrize("name", EVERY)
def test_every_name_is_a_finite_number_with_a_gradient_and_a_mask_leaves_positions_out(name, pair):
    student, teacher, labels = pair
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0], mask[:, 3] = False, False
    loss = named(name)(student, teacher, labels, mask)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad[mask].abs().sum() > 0
    assert student.grad[~mask].abs().sum() == 0


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"cross_entropy", "minima", "dist", "standardized_kl", "topk_kl"}))
def test_a_student_that_is_its_teacher_loses_nothing(name, pair):
    _, teacher, labels = pair
    assert named(name)(teacher.clone(), teacher, labels).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["dist", "standardized_kl"])
def test_losses_that_leave_the_scale_open_come_with_cross_entropy(name, pair):
    _, teacher, labels = pair
    wanted = F.cross_entropy(teacher.flatten(0, 1), labels.flatten()).item()
    assert named(name)(teacher.clone(), teacher, labels).item() == pytest.approx(wanted, abs=1e-9)


def test_standardised_kl_is_the_kl_of_standardised_logits_at_temperature_two(pair):
    student, teacher, labels = pair
    loss = DistillationLoss("standardized_kl", total_steps=1)(student, teacher, labels)
    wanted = forward_kl(standardize_logits(student), standardize_logits(teacher), temperature=2.0)
    assert loss.item() == pytest.approx(wanted.item())
    assert loss.item() == pytest.approx(DistillationLoss("standardized_kl", total_steps=1)(
        3 * student, teacher, labels).item(), rel=1e-5)  # fmt: skip


def test_bd_kd_beside_a_finished_teacher_is_its_students_part(pair):
    student, teacher, labels = pair
    assert named("bd_kd")(student, teacher, labels).item() == pytest.approx(bd_kd(student, teacher).student_loss.item())
    assert named("bd_kd_fixed")(student, teacher, labels).item() == pytest.approx(
        1.5 * jeffreys(student, teacher).item()
    )


def test_the_top_of_the_vocabulary_is_the_whole_of_it_when_k_is(pair):
    student, teacher, labels = pair
    exact = forward_kl(student, teacher).item()
    few, all_of_it = (DistillationLoss("topk_kl", options={"k": k}, total_steps=1) for k in (2, WORDS))
    assert all_of_it(student, teacher, labels).item() == pytest.approx(exact, rel=1e-6)
    assert few(student, teacher, labels).item() < exact


def test_decoupled_kd_at_the_labels_weight_is_forward_kl(pair):
    student, teacher, labels = pair
    rest = 1 - teacher.softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    one = DistillationLoss("decoupled_kd", options={"beta": 0.0}, total_steps=1)
    two = DistillationLoss("decoupled_kd", options={"alpha": 0.0, "beta": 1.0}, total_steps=1)
    total = 0.0
    for row in range(4):
        for place in range(5):
            at = (slice(row, row + 1), slice(place, place + 1))
            parts = [loss(student[at], teacher[at], labels[at]).item() for loss in (one, two)]
            total += (parts[0] + rest[row, place].item() * parts[1]) / 20
    assert total == pytest.approx(forward_kl(student, teacher).item(), rel=1e-9)


def test_a_learnt_temperature_walks_against_the_student_and_only_after_its_curriculum_begins(pair):
    student, teacher, labels = pair
    loss = named("curriculum_temperature", steps=48)
    seen = []
    for _ in range(40):
        student.grad = None
        loss(student, teacher, labels).backward()
        theta = loss.learnt.curriculum.theta
        seen.append((loss.walking["temperature"], theta.item(), 0.0 if theta.grad is None else theta.grad.item()))
        loss.advance()
    assert seen[0][0] == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    assert seen[1][1] == seen[0][1]  # strength 0
    before = forward_kl(student, teacher, temperature=seen[0][0]).item()
    after = forward_kl(student, teacher, temperature=loss.walking["temperature"]).item()
    assert after > before  # harder for the student, whose logits nobody moved
    assert all(math.isfinite(value) for row in seen for value in row)


def test_a_gradient_that_is_not_a_number_does_not_stay_in_the_temperature(pair):
    student, teacher, labels = pair
    loss = named("curriculum_temperature")
    loss(student, teacher, labels).backward()
    loss.learnt.curriculum.theta.grad.fill_(math.nan)
    loss.advance()
    assert math.isfinite(loss.walking["temperature"])


@pytest.mark.parametrize("name", ["taid", "curriculum_temperature"])
def test_what_walks_goes_on_from_a_checkpoint(name, pair):
    student, teacher, labels = pair
    whole, again = named(name, steps=30), named(name, steps=30)
    for step in range(20):
        whole(student, teacher, labels).backward()
        whole.advance()
        if step == 9:
            again.load_state_dict(whole.state_dict())
            again.load_state_dict(torch.load(_saved(again.state_dict()), weights_only=True))
        if step > 9:
            again(student, teacher, labels).backward()
            again.advance()
    assert again.walking == whole.walking
    assert again.step == whole.step


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_distil_records_the_temperature_it_learns(task):
    text = task.prepare()
    size = ModelSize(16, 1, 1)
    student, teacher = (LeanLM(initial_weights(text.vocab_size, size, seed=seed), size, context=16) for seed in (0, 1))
    batches = random_windows(text.training, context=16, batch_size=4, seed=0)
    history = distil(student, teacher, batches, "curriculum_temperature", steps=12, lr=0.01, record_every=4, label=None)
    found = history.table.query("quantity == 'temperature'")
    assert found.step.tolist() == [1, 4, 8, 12]
    assert found.value.between(1, 21).all()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective("x", "curriculum_temprature"), "Did you mean 'curriculum_temperature'"),
        (Objective("x", "curriculum_temperature", (("rampe", 3),)), "Did you mean 'ramp'"),
        (Objective("x", "bd_kd", (("delta", 0.5),)), "delta=0.5 must be 1 or above"),
        (Objective("x", "topk_kl", (("kk", 3),)), "Did you mean 'k'"),
        (Objective("x", "decoupled_kd", (("gamma", 3),)), "option of decoupled_kd"),
    ],
)
def test_what_is_misspelt_or_cannot_work_is_refused_before_training(objective, message):
    with pytest.raises(ValueError, match=message):
        objective.check()
