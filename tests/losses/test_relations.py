"""Losses on relations among samples: official forms, what they cannot notice, and the degenerate cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from tests.losses.cases import logits as states
from workbench.losses.relations import cka, relational_kd, similarity_preserving

EVERY = {"relational_kd": relational_kd, "similarity_preserving": similarity_preserving, "cka": cka}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def rotation(width, seed=5):
    return torch.linalg.qr(states(width, width, seed=seed)).Q


def eager_rkd(student, teacher, distance_weight=25.0, angle_weight=50.0):
    """Pairs and triples in loops, with the means of the official code: over every index, equal ones included."""
    count = len(student)

    def distances(rows):
        table = torch.stack([torch.stack([(a - b).norm() for b in rows]) for a in rows])
        return table / table[table > 0].mean()

    def angles(rows):
        table = torch.zeros(count, count, count, dtype=rows.dtype)
        for i in range(count):
            for j in range(count):
                for k in range(count):
                    if i != j and i != k:
                        table[i, j, k] = F.cosine_similarity(rows[j] - rows[i], rows[k] - rows[i], dim=0)
        return table

    return distance_weight * F.smooth_l1_loss(distances(student), distances(teacher)) + angle_weight * F.smooth_l1_loss(
        angles(student), angles(teacher)
    )


def test_relational_kd_is_that_written_with_loops():
    student, teacher = states(5, 3), states(5, 7, seed=1)
    torch.testing.assert_close(relational_kd(student, teacher), eager_rkd(student, teacher))
    only = relational_kd(student, teacher, angle_weight=0.0), relational_kd(student, teacher, distance_weight=0.0)
    torch.testing.assert_close(sum(only), eager_rkd(student, teacher))


def test_relational_kd_of_two_samples_by_hand_is_zero():
    # Any two pairs of points are alike: one distance over its own mean.
    assert relational_kd(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0, 2.0], [5.0, 5.0]])).item() == 0


def test_relational_kd_of_three_samples_on_a_line_by_hand():
    # Distances 1, 1, 2 (mean 4/3) against 1, 2, 3 (mean 2); every triple lies on a line, in the same order.
    student, teacher = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    gaps = [3 / 4 - 1 / 2, 3 / 4 - 1, 3 / 2 - 3 / 2]
    wanted = 25 * 2 * sum(0.5 * gap**2 for gap in gaps) / 9
    assert relational_kd(student, teacher).item() == pytest.approx(wanted)


def test_similarity_preserving_is_the_formula():
    student, teacher = states(5, 3), states(5, 7, seed=1)
    grams = [F.normalize(x @ x.T, dim=1) for x in (student, teacher)]
    torch.testing.assert_close(similarity_preserving(student, teacher), (grams[0] - grams[1]).norm() ** 2 / 25)
    pictures = states(5, 2, 3, 4)
    torch.testing.assert_close(
        similarity_preserving(pictures, teacher), similarity_preserving(pictures.flatten(1), teacher)
    )


@pytest.mark.parametrize("samples", [4, 40])  # fewer and more than dimensions
def test_cka_is_the_formula_whichever_matrix_is_smaller(samples):
    student, teacher = states(samples, 6), states(samples, 9, seed=1)
    x, y = (one - one.mean(0) for one in (student, teacher))
    wanted = 1 - (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    torch.testing.assert_close(cka(student, teacher), wanted)


def test_cka_of_correlated_numbers_is_one_minus_the_squared_correlation():
    x, y = states(50, 1), states(50, 1) + states(50, 1, seed=1)
    correlation = torch.corrcoef(torch.cat([x, y], 1).T)[0, 1]
    torch.testing.assert_close(cka(x, y), 1 - correlation**2)


def test_cka_takes_positions_of_sentences_as_samples():
    student, teacher = states(3, 4, 6), states(3, 4, 9, seed=1)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.3
    torch.testing.assert_close(cka(student, teacher, mask), cka(student[mask], teacher[mask]))


@every_loss
def test_equal_representations_cost_nothing_others_do(loss):
    assert abs(loss(states(6, 4), states(6, 4))) < 1e-12
    assert loss(states(6, 4), states(6, 4, seed=1)) > 1e-2


@every_loss
def test_turning_and_scaling_change_nothing(loss):
    student, teacher = states(6, 4), states(6, 5, seed=1)
    value = loss(student, teacher)
    for changed in (student @ rotation(4), 1e4 * student, 1e-4 * student, -student):
        torch.testing.assert_close(loss(changed, teacher), value)
    torch.testing.assert_close(loss(student, 3 * teacher @ rotation(5)), value)


@pytest.mark.parametrize("loss", [relational_kd, cka])
def test_moving_changes_nothing_either(loss):
    student, teacher = states(6, 4), states(6, 5, seed=1)
    torch.testing.assert_close(loss(student + 3.0, teacher), loss(student, teacher))


@every_loss
def test_gradients_are_the_numerical_ones_and_the_teacher_gets_none(loss):
    mask = torch.tensor([True, True, False, True, True])
    student, teacher = states(5, 3).requires_grad_(), states(5, 4, seed=1).requires_grad_()
    assert gradcheck(lambda rows: loss(rows, teacher, mask), student)
    assert torch.autograd.grad(loss(student, teacher), teacher, allow_unused=True) == (None,)


@every_loss
def test_samples_that_do_not_count_are_not_read(loss):
    mask = torch.tensor([True, True, False, True, False, True])
    student, teacher = states(6, 3), states(6, 4, seed=1)
    wanted = loss(student[mask], teacher[mask])
    student[2], teacher[4] = torch.nan, torch.inf
    student.requires_grad_()
    value = loss(student, teacher, mask)
    torch.testing.assert_close(value, wanted)
    value.backward()
    assert not student.grad[~mask].any()
    assert student.grad[mask].isfinite().all()


@every_loss
@pytest.mark.parametrize("counted", [0, 1])
def test_fewer_than_two_samples_are_zero_with_a_connected_graph(loss, counted):
    student = torch.full((3, 4), torch.nan)
    student[:counted] = 1.0
    student.requires_grad_()
    value = loss(student, states(3, 4), torch.arange(3) < counted)
    assert value == 0
    value.backward()
    assert not student.grad.any()


@every_loss
def test_an_empty_batch_is_zero(loss):
    student = torch.zeros(0, 4, requires_grad=True)
    value = loss(student, torch.zeros(0, 4))
    assert value == 0
    value.backward()


@every_loss
def test_samples_that_coincide_have_finite_values_and_gradients(loss):
    for rows in (torch.zeros(4, 3), torch.ones(4, 3), torch.tensor([[1.0, 2, 3]] * 2 + [[0.0, 0, 1]] * 2)):
        student = rows.clone().requires_grad_()
        for teacher in (states(4, 5).float(), rows):
            value = loss(student, teacher)
            (gradient,) = torch.autograd.grad(value, student)
            assert value.isfinite()
            assert gradient.isfinite().all()


def test_a_representation_that_does_not_vary_has_no_alignment():
    assert cka(torch.ones(4, 3), states(4, 5).float()) == 1
    assert cka(states(4, 5).float(), torch.ones(4, 3)) == 1


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_float64_stays(loss, dtype):
    student, teacher = states(6, 4, scale=3000).to(dtype), states(6, 5, seed=1, scale=3000).to(dtype)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert math.isfinite(value)
    assert torch.equal(value, loss(student.float(), teacher.float()))
    assert loss(student.double(), teacher).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher), value)


@every_loss
def test_another_batch_is_refused(loss):
    with pytest.raises(ValueError, match=r"student is \(4, 3\) and teacher \(5, 3\)"):
        loss(states(4, 3), states(5, 3))
    with pytest.raises(TypeError, match="floating-point"):
        loss(torch.ones(4, 3, dtype=torch.long), states(4, 3))
    with pytest.raises(TypeError, match="bool"):
        loss(states(4, 3), states(4, 3), torch.ones(4))


@pytest.mark.parametrize("options", [{"distance_weight": -1.0}, {"angle_weight": math.nan}])
def test_weights_that_are_not_numbers_from_zero_up_are_refused(options):
    with pytest.raises(ValueError, match="_weight"):
        relational_kd(states(3, 2), states(3, 2), **options)
