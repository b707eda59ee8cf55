"""The walk computed at once is the walk taken step by step."""

import numpy as np
import pytest

from workbench.losses import TAIDSchedule
from workbench.losses.taid_trace import trace_t


def stepped(losses, **options):
    schedule = TAIDSchedule(**options)
    return [schedule.t, *(schedule.update(loss, step, len(losses)) for step, loss in enumerate(losses, 1))]


@pytest.mark.parametrize("alpha", [0.0, 5e-4, 0.02, 0.5])
@pytest.mark.parametrize(("t_start", "beta"), [(0.2, 0.99), (0.0, 0.0), (1.0, 0.5)])
def test_at_once_and_step_by_step_agree(alpha, t_start, beta):
    losses = np.exp(np.random.default_rng(0).normal(size=300))
    options = {"t_start": t_start, "alpha": alpha, "beta": beta}
    np.testing.assert_allclose(trace_t(losses, **options), stepped(losses, **options), rtol=0, atol=1e-12)


def test_what_is_not_finite_or_nothing_is_skipped_as_the_schedule_does():
    losses = np.exp(np.random.default_rng(1).normal(size=200))
    losses[[0, 5, 6, 199]], losses[50] = np.nan, 0.0
    np.testing.assert_allclose(trace_t(losses, alpha=0.03), stepped(losses, alpha=0.03), rtol=0, atol=1e-12)


def test_a_run_without_steps_or_with_one_stays_at_its_start():
    assert trace_t([], t_start=0.3).tolist() == [0.3]
    assert trace_t([2.0], t_start=0.3).tolist() == [0.3, 0.3]


def test_numbers_that_the_schedule_refuses_are_refused():
    with pytest.raises(ValueError, match="beta"):
        trace_t([1.0, 2.0], beta=1.5)
    with pytest.raises(ValueError, match="alpha"):
        trace_t([1.0, 2.0], alpha=2.0)
