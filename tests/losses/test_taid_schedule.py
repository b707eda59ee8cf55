"""TAID's t: the official rule stepped by hand, and what the adaptive part is worth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.cases import logits
from workbench.losses import TAIDLoss, TAIDSchedule, taid, taid_target


def test_a_dozen_updates_follow_the_official_rule():
    alpha, beta, start, total = 0.05, 0.9, 0.2, 200
    schedule = TAIDSchedule(start, 1.0, alpha, beta)
    losses = [2.0, 1.5, 1.6, 1.0, 0.9, 0.95, 0.7, 0.7, 2.0, 0.5, 0.4, 0.3, 0.29]
    t, momentum, previous = start, 0.0, None
    for step, loss in enumerate(losses):
        if previous is not None:
            momentum = beta * momentum + (1 - beta) * (previous - loss) / (previous + 1e-15)
            delta = alpha * torch.sigmoid(torch.tensor(momentum, dtype=torch.float64)).item() * (1 - t)
            t = min(1.0, max(start + (1 - start) * step / total, t + delta))
        previous = loss
        assert schedule.update(torch.tensor(loss, dtype=torch.float64), step, total) == pytest.approx(t, rel=1e-12)
    assert t > start + (1 - start) * 12 / total  # the adaptive part was at work


def walk(steps: int, **options) -> list[float]:
    schedule = TAIDSchedule(**options)
    return [schedule.update(2.0 * math.exp(-3 * step / steps) + 0.5, step, steps) for step in range(steps + 1)]


def gap_to_the_line(steps: int, **options) -> float:
    adaptive, line = walk(steps, **options), walk(steps, adaptive=False, **options)
    return max(a - b for a, b in zip(adaptive, line, strict=True))


def test_with_the_default_alpha_a_short_run_is_a_straight_line():
    assert gap_to_the_line(400) == 0.0


def test_with_alpha_scaled_to_the_length_the_adaptive_rule_differs():
    assert gap_to_the_line(400, alpha=8 / 400) > 0.1


def test_the_published_length_differs_by_a_quarter():
    assert gap_to_the_line(16_000) == pytest.approx(0.24, abs=0.02)


def test_a_falling_loss_moves_t_further_than_a_rising_one():
    falling, rising = (TAIDSchedule(0.2, alpha=0.05, beta=0.5) for _ in range(2))
    for step in range(10):
        falling.update(0.7**step, step, 1000)
        rising.update(1.3**step, step, 1000)
    assert falling.t > rising.t


def test_the_first_loss_is_only_stored():
    schedule = TAIDSchedule(0.4)
    assert schedule.update(1.0, 50, 100) == 0.4
    assert schedule.update(1.0, 51, 100) > 0.4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_leaves_no_trace(bad):
    schedule = TAIDSchedule(0.2, alpha=0.05)
    schedule.update(2.0, 0, 100)
    schedule.update(1.5, 1, 100)
    before = schedule.state_dict()
    assert schedule.update(bad, 2, 100) == before["t"]
    assert schedule.state_dict() == before


def test_a_first_loss_of_zero_does_not_paralyse_the_schedule():
    schedule = TAIDSchedule(0.0, alpha=0.05)
    schedule.update(0.0, 0, 1000)  # at t = 0 the divergence is exactly 0
    schedule.update(1e-3, 1, 1000)
    for step in range(2, 50):
        schedule.update(1e-3, step, 1000)
    assert schedule.t > 0.5  # 48 strides of half of alpha


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=30),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 2),
    st.integers(0, 40),
    st.booleans(),
)
def test_t_never_goes_back_and_never_beyond_its_end(losses, first, second, alpha, total, adaptive):
    start, end = sorted((first, second))
    schedule = TAIDSchedule(start, end, alpha, 0.9, adaptive)
    path = [schedule.t, *(schedule.update(loss, step, total) for step, loss in enumerate(losses))]
    assert path == sorted(path)
    assert path[0] == start
    assert path[-1] <= end


def test_steps_beyond_the_total_and_a_total_of_zero_are_the_end():
    beyond, nothing = TAIDSchedule(0.4, 0.9), TAIDSchedule(0.4, 0.9)
    for schedule, total in ((beyond, 10), (nothing, 0)):
        schedule.update(1.0, 99, total)
        assert schedule.update(1.0, 100, total) == 0.9


def test_a_resumed_schedule_goes_on_where_it_was():
    losses = [2.0, 1.6, 1.5, 1.1, 1.0, 0.8]
    whole, first = TAIDSchedule(0.2, alpha=0.05), TAIDSchedule(0.2, alpha=0.05)
    path = [whole.update(loss, step, 50) for step, loss in enumerate(losses)]
    for step in range(3):
        first.update(losses[step], step, 50)
    second = TAIDSchedule(0.2, alpha=0.05)
    second.load_state_dict(first.state_dict())
    assert [second.update(losses[step], step, 50) for step in range(3, 6)] == path[3:]


def test_a_checkpoint_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        TAIDSchedule().load_state_dict({"t": 0.5, "previous_loss": 1.0})
    with pytest.raises(ValueError, match="t="):
        TAIDSchedule(0.4).load_state_dict({"t": 0.1, "momentum": 0.0, "previous_loss": 1.0})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"t_start": 0.9, "t_end": 0.5}, "t_start"),
        ({"t_start": -0.1}, "t_start"),
        ({"t_end": 1.1}, "t_end"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"beta": 1.5}, "beta"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        TAIDSchedule(**options)


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="step=-1"):
        TAIDSchedule().update(1.0, -1, 10)


def test_the_target_is_a_distribution_from_student_to_teacher():
    student, teacher = logits(3, 7), logits(3, 7, seed=1)
    torch.testing.assert_close(taid_target(student, teacher, 0.0), student.softmax(-1))
    torch.testing.assert_close(taid_target(student, teacher, 1.0), teacher.softmax(-1))
    middle = taid_target(student, teacher, 0.5)
    geometric = (student.softmax(-1) * teacher.softmax(-1)).sqrt()
    torch.testing.assert_close(middle, geometric / geometric.sum(-1, keepdim=True))
    assert not taid_target(student.requires_grad_(), teacher, 0.5).requires_grad


def test_calling_the_loss_does_not_move_t_but_stepping_does():
    loss = TAIDLoss(t_start=0.2)
    student, teacher = logits(3, 7), logits(3, 7, seed=1)
    for _ in range(5):
        value = loss(student, teacher)
    assert loss.t == 0.2
    torch.testing.assert_close(value, taid(student, teacher, t=0.2))
    loss.step(value, 0, 10)
    loss.step(value, 1, 10)
    assert loss.t > 0.2
    other = TAIDLoss(t_start=0.2)
    other.load_state_dict(loss.state_dict())
    assert other.t == loss.t
