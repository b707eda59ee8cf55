"""TAID: a target that walks from the student to the teacher (Shing et al. 2025, arXiv 2501.16937)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from workbench.errors import check_between, check_positive
from workbench.losses.closed_form import check_logits, closed_form_loss, wide_dtype
from workbench.losses.kernels import blend, kl_to_blend
from workbench.losses.reduction import reduce_tokens
from workbench.losses.taid_schedule import TAIDSchedule


def taid(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    t: float,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL of the target at ``t`` to the student; no gradient flows through the target.

    .. math:: T^2 KL(p_t \| q), \qquad p_t = \mathrm{softmax}([(1 - t) z_{student} + t z_{teacher}] / T)

    The divergence of the paper, not the cross-entropy of its official code (see :class:`TAIDLoss`).
    At ``t = 0`` value and gradient are exactly 0, at ``t = 1`` it is :func:`forward_kl`. Arguments,
    result and errors as there, and ``t`` from 0 to 1 (a number or a tensor of one element).
    """
    t = float(t)
    check_between(0, 1, t=t)
    return closed_form_loss(
        partial(kl_to_blend, t=t), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def taid_target(student_logits: Tensor, teacher_logits: Tensor, t: float, *, temperature: float = 1.0) -> Tensor:
    """The target's probabilities ``[..., vocab]`` at ``t``: softmax of ``(1 - t) * student + t * teacher`` logits.

    In float32 (float64 if an input is), detached from both.

    Raises:
        ValueError: ``t`` outside 0 to 1, other shapes.
    """
    t = float(t)
    check_between(0, 1, t=t)
    check_positive(temperature=temperature)
    check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    dtype = wide_dtype(student_logits, teacher_logits)
    return (blend(student_logits.detach().to(dtype), teacher_logits.detach().to(dtype), t) / temperature).softmax(-1)


class TAIDLoss:
    """:func:`taid` with its own schedule: call it for the loss, ``step`` it once per optimiser step.

    Evaluation may call it as often as it likes: only :meth:`step` moves ``t``.

    Args:
        t_start, t_end, alpha, beta, adaptive: as in :class:`TAIDSchedule`.
        return_ce: return the cross-entropy, as the official code does: the same gradient, the value
            higher by the target's entropy. The schedule should still be given the divergence.

    >>> loss = TAIDLoss(t_start=0.2)
    >>> kl = loss(student(batch), teacher(batch), mask)   # doctest: +SKIP
    >>> kl.backward(); optimizer.step()                   # doctest: +SKIP
    >>> loss.step(kl, step, total_steps)                  # doctest: +SKIP
    """

    def __init__(
        self,
        t_start: float = 0.4,
        t_end: float = 1.0,
        alpha: float = 5e-4,
        beta: float = 0.99,
        adaptive: bool = True,
        return_ce: bool = False,
    ):
        self.schedule = TAIDSchedule(t_start, t_end, alpha, beta, adaptive)
        self.return_ce = return_ce

    @property
    def t(self) -> float:
        """Where the target stands: 0 at the student, 1 at the teacher."""
        return self.schedule.t

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        mask: Tensor | None = None,
        *,
        temperature: float = 1.0,
        scale_by_t2: bool = True,
        reduction: str = "token_mean",
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """The loss at the present ``t``; arguments, result and errors as in :func:`taid`."""
        loss = taid(
            student_logits, teacher_logits, mask, t=self.t,
            temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
        )  # fmt: skip
        if not self.return_ce:
            return loss
        target = taid_target(student_logits, teacher_logits, self.t, temperature=temperature)
        entropy = torch.special.entr(target).sum(-1)
        if scale_by_t2:
            entropy = entropy * temperature**2
        return loss + reduce_tokens(entropy, mask, reduction=reduction, num_items=num_items)

    def step(self, loss: float | Tensor, step: int, total_steps: int) -> float:
        """Move ``t`` by the divergence of this optimiser step; see :meth:`TAIDSchedule.update`."""
        return self.schedule.update(loss, step, total_steps)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: ``t``, ``momentum`` and ``previous_loss``."""
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; see :meth:`TAIDSchedule.load_state_dict`."""
        self.schedule.load_state_dict(state)
