"""How far TAID's target has walked (Shing et al. 2025, arXiv 2501.16937, the adaptive update)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from workbench.errors import check_between

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = 1e-8  # nats; below float32's rounding of a divergence, a relative change means nothing


class TAIDSchedule:
    """``t`` goes from ``t_start`` to ``t_end``: at least as fast as a straight line, faster while the loss falls.

    Args:
        t_start: where the target begins, 0 (the student, whose first step is idle) to ``t_end``;
            the paper uses 0.4 for one pair of models and 0.2 for two.
        t_end: where it ends, up to 1 (the teacher).
        alpha: the largest part of the way to the teacher that one update may go.
        beta: memory of the relative change of the loss, 0 to below 1.
        adaptive: False follows the straight line alone.

    With the default ``alpha`` the adaptive part overtakes the line only in runs of more than about
    2 / alpha = 4000 updates; shorter runs need ``alpha`` scaled up, about 8 / updates.

    Raises:
        ValueError: a number outside its range, or ``t_start`` above ``t_end``.
    """

    def __init__(
        self,
        t_start: float = 0.4,
        t_end: float = 1.0,
        alpha: float = 5e-4,
        beta: float = 0.99,
        adaptive: bool = True,
    ):
        check_between(0, 1, t_start=t_start, t_end=t_end, beta=beta)
        if t_start > t_end:
            raise ValueError(
                f"t_start={t_start} must not be above t_end={t_end}: the target walks towards the teacher."
            )
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha={alpha!r} must be a finite number from 0 up.")
        self.t_start, self.t_end, self.alpha, self.beta, self.adaptive = t_start, t_end, alpha, beta, adaptive
        self._t = float(t_start)
        self._momentum = 0.0
        self._previous: float | None = None

    @property
    def t(self) -> float:
        """Where the target stands: 0 at the student, 1 at the teacher."""
        return self._t

    def update(self, loss: float | Tensor, step: int, total_steps: int) -> float:
        """Move ``t`` once per optimiser step and return it.

        Args:
            loss: the divergence of this step in nats per token, of the whole batch; the first one is
                only stored, one that is not finite is skipped.
            step: optimiser steps done so far; beyond ``total_steps`` the line stays at ``t_end``.
            total_steps: optimiser steps of the whole training; with 0 the line is at its end.

        Raises:
            ValueError: a negative ``step`` or ``total_steps``.
        """
        if step < 0 or total_steps < 0:
            raise ValueError(f"step={step} and total_steps={total_steps} must not be negative.")
        loss = float(loss.detach() if hasattr(loss, "detach") else loss)
        if not math.isfinite(loss):
            return self._t
        if self._previous is None:
            self._previous = loss
            return self._t
        progress = min(1.0, step / total_steps) if total_steps else 1.0
        line = self.t_start + (self.t_end - self.t_start) * progress
        target = max(line, self._t + self._stride(loss)) if self.adaptive else line
        self._previous = loss
        self._t = min(self.t_end, max(self._t, target))
        return self._t

    def _stride(self, loss: float) -> float:
        # After a loss of 0, as at t = 0, the change is not known; taken at its word it would be 1e15.
        known = self._previous > NOTHING
        change = (self._previous - loss) / (self._previous + 1e-15) if known else 0.0
        self._momentum = self.beta * self._momentum + (1 - self.beta) * change
        sigmoid = 0.5 * (1 + math.tanh(self._momentum / 2))  # this form cannot overflow
        return self.alpha * sigmoid * (1 - self._t)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: ``t``, ``momentum`` and ``previous_loss`` (None before the first)."""
        return {"t": self._t, "momentum": self._momentum, "previous_loss": self._previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: a missing entry, or ``t`` outside ``t_start`` to ``t_end``.
        """
        if missing := {"t", "momentum", "previous_loss"} - set(state):
            raise ValueError(f"the state of a TAIDSchedule lacks {sorted(missing)}; got {sorted(state)}.")
        check_between(self.t_start, self.t_end, t=state["t"])
        self._t, self._momentum, self._previous = state["t"], state["momentum"], state["previous_loss"]
