"""Decoupled knowledge distillation: how sure of the target, and how the rest is shared out."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import check_mask
from workbench.losses.closed_form import check_logits, row_loss
from workbench.losses.kernels import gap_and_probabilities, sum_possible


def decoupled_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL of target against all others, and KL among the others, weighed apart (Zhao et al. 2022, DKD).

    .. math:: T^2 [\alpha\, KL(b_p \| b_q) + \beta\, KL(\hat p \| \hat q)], \qquad
        b = (p_{label}, 1 - p_{label}), \quad \hat p_v = p_v / (1 - p_{label}) \text{ for } v \ne label

    With ``alpha = 1`` and ``beta = 1 - p_label`` it would be ``forward_kl``: the plain divergence counts the
    second part the less, the surer the teacher is. The target is taken out exactly, not by a large
    negative number. The second part is 0 where target is the only word that either side allows.

    Args:
        labels: ``[...]`` integers from 0 to vocab - 1; where ``mask`` is False anything, such as -100.
        mask: ``[...]`` bool; to leave out ignored labels give ``labels != -100``.
        alpha, beta: from 0 up; the paper has 1 and 8 for small residual networks on CIFAR-100, 0.5 to
            8 elsewhere, temperature 4, and raises the weight of the whole over the first epochs.

    Other arguments, result and errors as in :func:`forward_kl`, and:

    Raises:
        ValueError: labels of another shape, or outside the vocabulary at a position that counts;
            ``alpha`` or ``beta`` below 0.
        TypeError: labels that are not integers.
    """
    check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    for name, weight in {"alpha": alpha, "beta": beta}.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}={weight!r} must be a finite number from 0 up.")
    _check_labels(labels, student_logits)
    if mask is not None:
        check_mask(mask, student_logits.shape[:-1])
    return row_loss(
        partial(_target_and_rest, alpha=alpha, beta=beta), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
        extra=labels.unsqueeze(-1),
    )  # fmt: skip


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of integers, one word of the vocabulary per position; got {kind}.")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, expected {tuple(logits.shape[:-1])}: "
            "the logits' shape without the vocabulary axis."
        )


def _target_and_rest(
    student: Tensor, teacher: Tensor, wants_gradient: bool, labels: Tensor, *, alpha: float, beta: float
) -> tuple[Tensor, Tensor | None]:
    labels = labels.long()
    outside = (labels < 0) | (labels >= student.shape[-1])
    if outside.any():
        raise ValueError(
            f"labels hold {int(labels[outside][0])} at a position that counts, expected 0 to {student.shape[-1] - 1}: "
            "give mask=labels != -100 (or your ignored label) to leave such positions out."
        )
    rest_of_student, rest_of_teacher = (x.scatter(-1, labels, -math.inf) for x in (student, teacher))
    # The target's lead over all others together, in nats: b = sigmoid(lead).
    lead_of_student, lead_of_teacher = (
        x.gather(-1, labels).squeeze(-1) - rest.logsumexp(-1)
        for x, rest in ((student, rest_of_student), (teacher, rest_of_teacher))
    )
    sign = torch.tensor([1.0, -1.0], dtype=student.dtype, device=student.device)
    log_b_student, log_b_teacher = (
        F.logsigmoid(lead.unsqueeze(-1) * sign) for lead in (lead_of_student, lead_of_teacher)
    )
    value = (student.amax(-1) + teacher.amax(-1)) * 0  # NaN where logits are unusable
    slope = torch.zeros_like(student) if wants_gradient else None
    of_target = 0.0
    if alpha:
        b_student, b_teacher = log_b_student[:, 0].exp(), log_b_teacher[:, 0].exp()
        value.add_(sum_possible(log_b_teacher.exp() * (log_b_teacher - log_b_student)), alpha=alpha)
        of_target = (b_student - b_teacher).mul_(alpha)
    alone = lead_of_student.isposinf() | lead_of_teacher.isposinf()  # one side allows the target only
    if beta or (wants_gradient and alpha):
        gap, p, q = gap_and_probabilities(rest_of_student, rest_of_teacher)
        if beta:
            terms = gap.mul_(p).masked_fill_(alone.unsqueeze(-1), 0.0)
            value.add_(sum_possible(terms), alpha=beta)
        if wants_gradient:
            if beta:
                slope = torch.sub(q, p, out=p).mul_(beta).masked_fill_(alone.unsqueeze(-1), 0.0)
            if alpha:
                q.masked_fill_(lead_of_student.isposinf().unsqueeze(-1), 0.0)
                slope.addcmul_(q, of_target.unsqueeze(-1), value=-1)
                slope.scatter_(-1, labels, of_target.unsqueeze(-1))
    return value, slope
