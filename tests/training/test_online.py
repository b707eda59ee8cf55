"""Networks that train together: whose loss moves whom, what weights add up to, and that many are as one alone."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.datasets.images import load_images
from workbench.errors import UnknownName
from workbench.losses import forward_kl, reverse_kl
from workbench.losses.mutual import mutual_learning
from workbench.models.classifiers import named_classifier
from workbench.training import fit
from workbench.training.online import PULLS, OnlineLoss, Pair
from workbench.training.online_cell import LR, OnlineCell, batches_of, new_pair, split_of, steps_of, train_cell
from workbench.training.online_grid import online_grid

CELL = OnlineCell(
    data="digits", student="6x1", teacher="16x1", noise=0.2, methods=tuple(PULLS), seeds=(0, 1), train_size=100,
    epochs=2, batch_size=32, delta=2.0, temperature=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def outcome():
    return train_cell(CELL)


def logits(pairs=2, batch=8, classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(pairs, batch, classes, generator=random).requires_grad_() for _ in range(2)]


def pulled(name, student, teacher, **options):
    return PULLS[name](student, teacher, **({"delta": 2.0, "temperature": 1.0} | options))


def gradient(value, of):
    return torch.autograd.grad(value.sum(), of, retain_graph=True, allow_unused=True)[0]


@pytest.mark.parametrize("name", [name for name in PULLS if name != "cross_entropy"])
def test_no_gradient_of_the_students_loss_reaches_the_teacher_nor_the_other_way_round(name):
    student, teacher = logits()
    found = pulled(name, student, teacher)
    assert gradient(found.student, student).abs().sum() > 0
    assert gradient(found.student, teacher) is None
    if found.teacher is not None:
        assert gradient(found.teacher, teacher).abs().sum() > 0
        assert gradient(found.teacher, student) is None


@pytest.mark.parametrize("name", ["fixed", "bd_kd", "bd_kd_batch", "bd_kd_swap"])
@pytest.mark.parametrize("delta", [1.0, 2.0, 5.0])
def test_both_weights_add_up_to_one_plus_delta(name, delta):
    found = pulled(name, *logits(), delta=delta)
    assert torch.equal(found.forward_weight + found.reverse_weight, torch.full((2, 8), 1 + delta))


def test_mode_fixed_is_both_directions_with_constant_weights():
    student, teacher = logits()
    expected = sum(1.5 * loss(student, teacher, reduction="none") for loss in (forward_kl, reverse_kl))
    torch.testing.assert_close(pulled("fixed", student, teacher).student, expected)


def test_the_switch_looks_at_whose_entropy_is_larger():
    sure, unsure = torch.tensor([[[8.0, 0, 0]]]), torch.tensor([[[1.0, 0, 0]]])
    overconfident, underconfident = pulled("bd_kd", sure, unsure), pulled("bd_kd", unsure, sure)
    assert (overconfident.forward_weight.item(), underconfident.forward_weight.item()) == (2, 1)
    assert pulled("bd_kd_swap", sure, unsure).forward_weight.item() == 1
    assert pulled("bd_kd", sure, sure).forward_weight.item() == 1  # equal: as the under-confident


def test_each_pair_decides_its_batch_by_itself():
    student, teacher = logits(pairs=6, batch=3)
    together = pulled("bd_kd_batch", student, teacher)
    for index in range(6):
        alone = pulled("bd_kd_batch", student[index : index + 1], teacher[index : index + 1])
        torch.testing.assert_close(together.student[index], alone.student[0])
    assert {row.unique().numel() for row in together.forward_weight} == {1}
    assert together.forward_weight.unique().numel() == 2


def test_dml_is_mutual_learning():
    student, teacher = logits()
    found = pulled("dml", student, teacher)
    expected = mutual_learning([student, teacher], reduction="none")
    torch.testing.assert_close([found.student, found.teacher], expected)
    torch.testing.assert_close(pulled("dml_x3", student, teacher).student, 3 * found.student)


def test_the_loss_of_a_pair_is_the_sum_written_out():
    pair = Pair(named_classifier("6x1", (1, 8, 8), 10, seed=0), named_classifier("16x1", (1, 8, 8), 10, seed=1))
    images = load_images("digits")
    pictures, labels = torch.from_numpy(images.train_images[:20]), torch.from_numpy(images.train_labels[:20])
    student, teacher = pair(pictures).unbind(1)
    p, q = teacher.softmax(-1), student.softmax(-1)
    forward, reverse = (p * (p / q).log()).sum(-1), (q * (q / p).log()).sum(-1)
    entropy = [-(part * part.log()).sum(-1) for part in (p, q)]
    weight = torch.where(entropy[0] > entropy[1], 2.0, 1.0)
    correct = torch.arange(20), labels
    terms = -q.log()[correct] - p.log()[correct] + weight * forward + (3 - weight) * reverse + forward
    loss = OnlineLoss(["bd_kd"], delta=2.0, temperature=1.0, record_every=1)
    value = loss(lambda inputs: pair(inputs.squeeze(0)).unsqueeze(0), (pictures[None], labels[None]))
    torch.testing.assert_close(value, terms.mean()[None])
    seen = loss.table().iloc[0]
    assert seen["overconfident"] == pytest.approx((weight == 2).float().mean().item())
    assert seen["weights_total"] == 3
    assert seen["student_entropy"] == pytest.approx(entropy[1].mean().item(), rel=1e-5)


@pytest.mark.parametrize("place", [0, 3])
def test_a_pair_among_many_learns_what_it_learns_alone(place):
    images = load_images("digits")
    splits = [split_of(CELL, images, seed) for seed in CELL.seeds]
    keys = [(method, seed) for method in ("dml", "bd_kd") for seed in range(2)]
    method, seed = keys[place]
    alone = new_pair(CELL, images, CELL.seeds[seed])
    batches = ((pictures[place], labels[place]) for pictures, labels in batches_of(CELL, images, splits, 2))
    loss = OnlineLoss([method], delta=2.0, temperature=1.0, record_every=100)
    fit(
        alone, batches,
        lambda pair, batch: loss(lambda inputs: pair(inputs[0])[None], (batch[0][None], batch[1][None])).sum(),
        steps=steps_of(CELL), lr=LR, schedule="constant", betas=(0.9, 0.999), clip=None, label=None,
    )  # fmt: skip
    together = train_cell(CELL).logits
    with torch.no_grad():
        expected = alone.eval()(torch.from_numpy(images.test_images))
    for index, network in enumerate(("student", "teacher")):
        np.testing.assert_allclose(together[method, seed, network], expected[:, index], atol=1e-4)


def test_a_frozen_teacher_stays_what_cross_entropy_made_it(outcome):
    for seed in CELL.seeds:
        frozen, alone = (outcome.logits[method, seed, "teacher"] for method in ("offline_kd", "cross_entropy"))
        np.testing.assert_array_equal(frozen, alone)
        students = [outcome.logits[method, seed, "student"] for method in ("offline_kd", "cross_entropy")]
        assert np.abs(students[0] - students[1]).max() > 0.01


def test_pairs_of_a_seed_start_equal_and_seeds_differ():
    images = load_images("digits")
    one, again, other = (new_pair(CELL, images, seed) for seed in (0, 0, 1))
    pictures = torch.from_numpy(images.test_images[:5])
    assert torch.equal(one(pictures), again(pictures))
    assert not torch.equal(one(pictures), other(pictures))
    pictures, labels = next(batches_of(CELL, images, [split_of(CELL, images, seed) for seed in CELL.seeds], 3))
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(labels[1], labels[5])
    assert not torch.equal(pictures[0], pictures[1])


def test_training_and_validation_labels_are_noisy_and_the_truth_is_kept():
    images = load_images("digits")
    split = split_of(CELL, images, 0)
    assert (split.labels != images.train_labels[split.train]).mean() == pytest.approx(0.2)
    assert (split.validation_labels != split.validation_truth).mean() == pytest.approx(0.2)
    assert not set(split.train) & set(split.validation)


def test_every_network_has_its_row_and_scaling_changes_no_answer(outcome):
    students = outcome.rows.query("network == 'student'").set_index(["method", "seed"])
    assert len(outcome.rows) == 2 * (2 * len(PULLS) + 4)
    for suffix in ("_scaled", "_scaled_clean"):
        pd.testing.assert_series_equal(
            students.loc["dml"]["accuracy"], students.loc[f"dml{suffix}"]["accuracy"], check_names=False
        )
        assert (students.loc[f"dml{suffix}"]["fitted_temperature"] != 1).all()
    assert outcome.reliability.groupby(["network", "method", "seed"])["count"].sum().eq(797).all()
    assert set(outcome.curves["method"]) == set(PULLS)


def test_the_numbers_do_not_depend_on_how_many_cores_there_are():
    cell = OnlineCell(**{**CELL.__dict__, "methods": ("dml", "fixed", "bd_kd"), "epochs": 1})
    grids = [online_grid(cell, noises=(0.2, 0.0), teachers=("8x1", "16x1"), cores=cores) for cores in (1, 2)]
    pd.testing.assert_frame_equal(grids[0].rows, grids[1].rows)
    pd.testing.assert_frame_equal(grids[0].curves, grids[1].curves)
    predictions = grids[0].predictions
    assert predictions.choices("teacher") == ["8x1", "16x1"]
    found = predictions.logits(noise=0.0, teacher="16x1", method="fixed", network="teacher")
    assert found.shape == (2, 797, 10)
    with pytest.raises(UnknownName, match="Did you mean 'fixed'"):
        predictions.logits(noise=0.0, teacher="16x1", method="fixd")
    entropies = predictions.entropies(noise=0.0, teacher="8x1", methods=["dml"])
    assert entropies.groupby("network").size().to_dict() == {"student": 2 * 797, "teacher": 2 * 797}


def test_a_misspelt_method_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'bd_kd'"):
        OnlineLoss(["bdkd"], delta=2.0, temperature=1.0, record_every=1)
