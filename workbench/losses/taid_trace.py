"""The whole walk of TAID's ``t`` at once, for a loss that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.errors import check_between
from workbench.losses.taid_schedule import NOTHING, TAIDSchedule


def trace_t(losses: Sequence[float], *, t_start: float = 0.4, alpha: float = 5e-4, beta: float = 0.99) -> np.ndarray:
    """``t`` after every update of a :class:`TAIDSchedule` that ends at the teacher, 40,000 steps in milliseconds.

    Each update leaves the share ``1 - alpha sigmoid(m)`` of the way to the teacher, or what the
    straight line leaves if that is less. In logarithms the walk is then a running minimum, exact up to rounding.

    Args:
        losses: the divergence of the steps 1, 2, ... in nats; those that are not finite are skipped.

    Returns:
        ``[steps + 1]``, ``t_start`` first.

    Raises:
        ValueError: a number outside its range.
    """
    from scipy.signal import lfilter

    TAIDSchedule(t_start=t_start, alpha=alpha, beta=beta)  # refuses what it would refuse
    check_between(0, 1, alpha=alpha)
    losses = np.asarray(losses, dtype=float)
    t = np.full(len(losses) + 1, float(t_start))
    used = np.flatnonzero(np.isfinite(losses))
    if t_start == 1 or len(used) < 2:
        return t
    before, now = losses[used[:-1]], losses[used[1:]]
    changes = np.where(before > NOTHING, (before - now) / (before + 1e-15), 0.0)
    momentum = lfilter([1 - beta], [1, -beta], changes)
    with np.errstate(divide="ignore"):  # nothing is left of the way at the end of the line
        kept = np.log1p(-alpha * 0.5 * (1 + np.tanh(momentum / 2)))
        straight = np.log((1 - t_start) * (1 - (used[1:] + 1) / len(losses)))
    total = np.cumsum(kept)
    held = np.minimum(np.minimum.accumulate(straight - total), np.log(1 - t_start))
    t[used[1:] + 1] = 1 - np.exp(total + held)
    return np.maximum.accumulate(t)
