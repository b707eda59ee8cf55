"""Learning rate over the steps of a run."""

from __future__ import annotations

import math

from workbench.errors import check_between, check_choice

SCHEDULES = ("cosine", "constant", "linear")


def lr_factor(step: int, total: int, *, schedule: str = "cosine", warmup: float = 0.0) -> float:
    """Factor on the learning rate at ``step`` (from 0) of ``total``; ``warmup`` is the share of steps that rise.

    Cosine and linear fall to 0 just after the last step.
    """
    check_choice("schedule", schedule, SCHEDULES)
    check_between(0, 1, warmup=warmup)
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    through = (step - rising) / max(1, total - rising)
    return 1.0 - through if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * through))
