"""What a student is pulled by: a divergence from its teacher, the labels, or a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import check_choice
from workbench.models.last_layer import LastLayer
from workbench.training.objective_losses import LearntTemperature, loss_names, pull_by_name, without_labels

Divergence = Callable[..., Tensor]
NO_TEACHER = "none"
STRIDES = 8.0  # TAID's alpha times the optimiser steps: 5e-4 over about 16,000 (Shing et al. 2025)


@dataclass(frozen=True)
class Objective:
    """``ce_weight`` times cross-entropy on the labels plus ``kd_weight`` times ``loss`` to the teacher.

    ``loss`` is a name that :class:`DistillationLoss` knows, or ``none`` for labels alone; for ``taid`` the
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
    names: Sequence[str],
    *,
    steps: int,
    skew_alpha: float = 0.1,
    t_start: float = 0.4,
    t_strides: float = STRIDES,
    decoupled_beta: float = 8.0,
) -> list[Objective]:
    """The objectives that papers compare, by name.

    Every loss of :data:`workbench.losses.LOSSES` and ``decoupled_kd`` is one, with its own defaults, and pure.
    Besides: ``cross_entropy`` needs no teacher; ``skew_kl`` mixes ``skew_alpha`` of the teacher into the student,
    ``skew_reverse_kl`` the other way; ``taid`` and ``taid_linear`` (without the adaptive part) start at ``t_start``;
    ``minima`` is half cross-entropy and half forward KL (Zhang et al. 2025, "Towards the Law of Capacity Gap");
    ``curriculum_temperature`` learns its temperature against the student; ``bd_kd`` weighs both directions of
    KL sample by sample, ``bd_kd_fixed`` evenly with the same total; ``topk_kl`` knows the teacher's 16 likeliest
    tokens. ``dist`` and ``standardized_kl`` leave the scale of the logits open, so cross-entropy is added to them.

    Args:
        steps: optimiser steps of a student; TAID's alpha is ``t_strides / steps``. With the paper's
            5e-4 itself a short run never leaves the straight line.
        decoupled_beta: weight of what ``decoupled_kd`` compares besides the label.

    Raises:
        UnknownName: no such objective ("did you mean").
    """
    walk = (("t_start", t_start), ("alpha", t_strides / steps))
    known = {name: Objective(name, name) for name in loss_names()} | {
        "cross_entropy": CROSS_ENTROPY,
        "skew_kl": Objective("skew_kl", "skew_kl", (("alpha", skew_alpha),)),
        "skew_reverse_kl": Objective("skew_reverse_kl", "skew_kl", (("alpha", skew_alpha), ("direction", "reverse"))),
        "taid": Objective("taid", "taid", walk),
        "taid_linear": Objective("taid_linear", "taid", (("t_start", t_start), ("adaptive", False))),
        "minima": Objective("minima", "forward_kl", ce_weight=0.5, kd_weight=0.5),
        "decoupled_kd": Objective("decoupled_kd", "decoupled_kd", (("beta", decoupled_beta),)),
        "bd_kd_fixed": Objective("bd_kd_fixed", "bd_kd", (("mode", "fixed"),)),
        "dist": Objective("dist", "dist", ce_weight=1.0),
        "standardized_kl": Objective("standardized_kl", "standardized_kl", ce_weight=1.0),
    }
    return [known[check_choice("objective", name, known)] for name in names]


class DistillationLoss:
    """The value of an objective at one step; what walks (TAID's ``t``, a learnt temperature) does so once per
    optimiser step through :meth:`advance`.

    Args:
        loss: a name of :data:`workbench.losses.LOSSES`, ``decoupled_kd`` (which reads the labels), ``bd_kd``,
            ``standardized_kl``, ``topk_kl``, ``curriculum_temperature``, ``none``, or
            ``f(student_logits, teacher_logits, mask)``.
        options: keyword arguments of the named loss (of its schedule for ``taid``).
        total_steps: of the run; TAID's schedule and the curriculum's ramp need it.

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
        self.schedule, self.learnt, self.step, self._seen = None, None, 0, []
        options = dict(options or {})
        self._rows = (loss, {} if loss == "taid" else options)  # what from_hidden_states needs to know
        if loss == NO_TEACHER:
            self.divergence = None
        elif callable(loss):
            self.divergence = without_labels(loss if not options else partial(loss, **options))
        elif loss == "taid":
            from workbench.losses import TAIDSchedule, taid

            self.schedule = TAIDSchedule(**options)
            self.divergence = lambda student, teacher, _labels, mask: taid(student, teacher, mask, t=self.t)
        elif loss == "curriculum_temperature":
            self.divergence = self.learnt = LearntTemperature(options, total_steps=total_steps)
        else:
            self.divergence = pull_by_name(check_choice("loss", loss, (*loss_names(), NO_TEACHER)), options)

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
    def walking(self) -> dict[str, float]:
        """What moves with the steps, as the next loss uses it: ``t`` of TAID, ``temperature`` where it is learnt."""
        if self.schedule is not None:
            return {"t": self.t}
        return {} if self.learnt is None else {"temperature": self.learnt.temperature}

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
            kl = self.divergence(student_logits, teacher_logits, labels, mask)
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

    def check_chunked(self) -> None:
        """Raise ``ValueError`` unless :meth:`from_hidden_states` has this loss with these options."""
        one = torch.zeros(1, 1)
        layer = LastLayer(one)
        with torch.no_grad():
            self._chunked(one, layer, one, layer, torch.zeros(1, dtype=torch.long), None, self.ce_weight, 1.0)

    def from_hidden_states(
        self,
        student_hidden: Tensor,
        student_layer: LastLayer,
        teacher_hidden: Tensor | None,
        teacher_layer: LastLayer | None,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The same number from hidden states ``[..., width]``; no logits of a whole batch ever exist.

        For labels alone the teacher may be None.

        Raises:
            ValueError: a loss that :func:`workbench.losses.chunked_linear_distillation` does not have.
        """
        if teacher_hidden is None:  # its weight is 0: it is never multiplied
            teacher_hidden, teacher_layer = student_hidden.detach(), student_layer
        models = (student_hidden, student_layer, teacher_hidden, teacher_layer, labels, mask)
        loss = self._chunked(*models, self.ce_weight, self.kd_weight)
        if self.schedule is not None:  # it wants the divergence alone
            with torch.no_grad():
                alone = self._chunked(*models, 0.0, 1.0) if self.ce_weight else loss.detach() / self.kd_weight
            self._seen.append(alone)
        return loss

    def _chunked(
        self,
        student_hidden: Tensor,
        student: LastLayer,
        teacher_hidden: Tensor,
        teacher: LastLayer,
        labels: Tensor,
        mask: Tensor | None,
        ce_weight: float,
        kd_weight: float,
    ) -> Tensor:
        from workbench.losses.chunked import chunked_linear_distillation

        name, options = self._rows
        if not isinstance(name, str):
            raise ValueError("hidden states need a loss by name: it makes the gradient of the logits by itself.")
        common = {key: options[key] for key in ("temperature", "scale_by_t2") if key in options}
        own = {key: value for key, value in options.items() if key not in common}
        return chunked_linear_distillation(
            student_hidden, student.weight, teacher_hidden, teacher.weight, mask,
            loss="forward_kl" if name == NO_TEACHER else name,
            loss_options=own if self.schedule is None else {"t": self.t}, student_bias=student.bias,
            teacher_bias=teacher.bias, labels=labels, ce_weight=ce_weight, kd_weight=kd_weight,
            softcap=(student.softcap, teacher.softcap), **common,
        )  # fmt: skip

    def advance(self) -> None:
        """End of an optimiser step: TAID's schedule sees the mean divergence of the step's batches, a learnt
        temperature moves."""
        self.step += 1
        if self.learnt is not None:
            self.learnt.advance()
        if self.schedule is not None and self._seen:
            mean = sum(float(value) for value in self._seen) / len(self._seen)
            self.schedule.update(mean, self.step, self.total_steps)
        self._seen = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold between two optimiser steps."""
        walking = {"schedule": self.schedule, "learnt": self.learnt}
        return {"step": self.step} | {name: one and one.state_dict() for name, one in walking.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.step = state["step"]
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.learnt is not None:
            self.learnt.load_state_dict(state["learnt"])
