"""What a student is pulled by: a divergence from its teacher, the labels, or a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from workbench.errors import check_choice

Divergence = Callable[..., Tensor]
NO_TEACHER = "none"
STRIDES = 8.0  # TAID's alpha times the optimiser steps: 5e-4 over about 16,000 (Shing et al. 2025)


@dataclass(frozen=True)
class Objective:
    """``ce_weight`` times cross-entropy on the labels plus ``kd_weight`` times ``loss`` to the teacher.

    ``loss`` is a name of :data:`workbench.losses.LOSSES`, or ``none`` for labels alone; for ``taid`` the
    options are those of :class:`workbench.losses.TAIDSchedule`.
    """

    name: str
    loss: str
    options: tuple[tuple[str, Any], ...] = ()
    ce_weight: float = 0.0
    kd_weight: float = 1.0

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is asked at all."""
        return self.loss != NO_TEACHER and self.kd_weight != 0

    def check(self) -> None:
        """Raise now what training with this objective would raise later (unknown loss, option or weight)."""
        DistillationLoss.of(self, total_steps=1)


CROSS_ENTROPY = Objective("cross_entropy", NO_TEACHER, ce_weight=1.0, kd_weight=0.0)  # the baseline without a teacher


def named_objectives(
    names: Sequence[str], *, steps: int, skew_alpha: float = 0.1, t_start: float = 0.4, t_strides: float = STRIDES
) -> list[Objective]:
    """The objectives that papers compare, by name.

    ``cross_entropy`` needs no teacher; ``forward_kl``, ``reverse_kl``, ``generalized_jsd`` and
    ``total_variation`` are pure; ``skew_kl`` mixes ``skew_alpha`` of the teacher into the student;
    ``taid`` and ``taid_linear`` (without the adaptive part) start at ``t_start``; ``minima`` is half
    cross-entropy and half forward KL (Zhang et al. 2025, "Towards the Law of Capacity Gap").

    Args:
        steps: optimiser steps of a student; TAID's alpha is ``t_strides / steps``. With the paper's
            5e-4 itself a short run never leaves the straight line.

    Raises:
        UnknownName: no such objective ("did you mean").
    """
    walk = (("t_start", t_start), ("alpha", t_strides / steps))
    known = {
        "cross_entropy": CROSS_ENTROPY,
        "skew_kl": Objective("skew_kl", "skew_kl", (("alpha", skew_alpha),)),
        "taid": Objective("taid", "taid", walk),
        "taid_linear": Objective("taid_linear", "taid", (("t_start", t_start), ("adaptive", False))),
        "minima": Objective("minima", "forward_kl", ce_weight=0.5, kd_weight=0.5),
    } | {name: Objective(name, name) for name in ("forward_kl", "reverse_kl", "generalized_jsd", "total_variation")}
    return [known[check_choice("objective", name, known)] for name in names]


class DistillationLoss:
    """The value of an objective at one step; TAID's ``t`` moves once per optimiser step through :meth:`advance`.

    Args:
        loss: a name of :data:`workbench.losses.LOSSES`, ``none``, or ``f(student_logits, teacher_logits, mask)``.
        options: keyword arguments of the named loss (of its schedule for ``taid``).
        total_steps: of the run; TAID's schedule needs it.

    Raises:
        UnknownName: no such loss.
        ValueError: weights that are negative or all 0.
    """

    def __init__(
        self,
        loss: str | Divergence,
        *,
        options: Mapping[str, Any] | None = None,
        ce_weight: float = 0.0,
        kd_weight: float = 1.0,
        total_steps: int,
    ) -> None:
        for name, weight in {"ce_weight": ce_weight, "kd_weight": kd_weight}.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}={weight!r} must be a finite number, 0 or above.")
        if loss == NO_TEACHER:
            kd_weight = 0.0
        if ce_weight == 0 and kd_weight == 0:
            raise ValueError("ce_weight and kd_weight are both 0: the student would not be pulled by anything.")
        self.ce_weight, self.kd_weight, self.total_steps = ce_weight, kd_weight, total_steps
        self.schedule, self.step, self._seen = None, 0, []
        options = dict(options or {})
        if loss == NO_TEACHER:
            self.divergence = None
        elif callable(loss):
            self.divergence = loss if not options else _with_options(loss, options)
        elif loss == "taid":
            from workbench.losses import TAIDSchedule, taid

            self.schedule = TAIDSchedule(**options)
            self.divergence = lambda student, teacher, mask=None: taid(student, teacher, mask, t=self.t)
        else:
            from workbench.losses import LOSSES, loss_by_name

            self.divergence = loss_by_name(check_choice("loss", loss, (*LOSSES, NO_TEACHER)), **options)

    @classmethod
    def of(cls, objective: Objective, *, total_steps: int) -> DistillationLoss:
        """The loss of a named objective."""
        return cls(
            objective.loss,
            options=dict(objective.options),
            ce_weight=objective.ce_weight,
            kd_weight=objective.kd_weight,
            total_steps=total_steps,
        )

    @property
    def t(self) -> float:
        """TAID's interpolation now; NaN for other losses."""
        return math.nan if self.schedule is None else float(self.schedule.t)

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Nats per token of logits ``[..., vocab]`` against the teacher's and labels ``[...]``."""
        total = student_logits.new_zeros(())
        if self.kd_weight:
            kl = self.divergence(student_logits, teacher_logits, mask)
            if self.schedule is not None:
                self._seen.append(kl.detach())
            total = total + (kl if self.kd_weight == 1 else self.kd_weight * kl)
        if self.ce_weight:
            wanted = labels if mask is None else labels.masked_fill(~mask, -100)
            flat = student_logits.flatten(0, -2)
            total = total + self.ce_weight * F.cross_entropy(
                flat if flat.dtype.itemsize > 2 else flat.float(), wanted.flatten()
            )
        return total

    def advance(self) -> None:
        """End of an optimiser step: TAID's schedule sees the mean divergence of the step's batches."""
        self.step += 1
        if self.schedule is not None and self._seen:
            mean = sum(float(value) for value in self._seen) / len(self._seen)
            self.schedule.update(mean, self.step, self.total_steps)
        self._seen = []


def _with_options(loss: Divergence, options: dict[str, Any]) -> Divergence:
    return lambda student, teacher, mask=None: loss(student, teacher, mask, **options)
