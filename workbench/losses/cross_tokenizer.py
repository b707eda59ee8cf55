"""Distillation between models that do not share a vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import check_mask
from workbench.losses.closed_form import check_floating, row_loss


def uld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_mask: Tensor | None = None,
    teacher_mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Distance of the sorted probabilities, whatever the words are (Boizard et al. 2024, ULD).

    .. math:: \sum_v |q_{(v)} - p_{(v)}|, \qquad q_{(1)} \ge q_{(2)} \ge ..., \text{ the shorter filled up with 0}

    The k-th position that counts of a student's sequence meets the k-th that counts of the teacher's;
    what is left over on the longer side counts nothing. From 0 to 2; ``scale_by_t2`` is taken for the common
    signature and changes nothing.

    Args:
        student_logits: ``[..., time, vocab]``; the gradient flows into these.
        teacher_logits: ``[..., other time, other vocab]``: only the last two axes may differ.
        student_mask: ``[..., time]`` bool, True where a position counts; None counts all.
        teacher_mask: ``[..., other time]`` bool likewise; it is not taken from ``student_mask``.
        temperature: T above 0, which both logits are divided by.
        reduction: over the pairs; ``none`` keeps the student's ``[..., time]``, 0 where no partner is.
        num_items: divide the sum by this instead (gradient accumulation).

    Returns:
        float32 (float64 if an input is); 0 when no positions meet.

    Raises:
        ValueError: no time axis, leading axes that differ, and what :func:`forward_kl` refuses.
        TypeError: logits that are not floating-point, or a mask that is not bool.
    """
    del scale_by_t2
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    shapes = student_logits.shape, teacher_logits.shape
    if min(map(len, shapes)) < 2 or shapes[0][:-2] != shapes[1][:-2]:
        raise ValueError(
            f"student_logits {tuple(shapes[0])} and teacher_logits {tuple(shapes[1])}: expected [..., time, vocab] "
            "each, alike but for time and vocabulary."
        )
    check_mask(student_mask, shapes[0][:-1], argument="student_mask")
    check_mask(teacher_mask, shapes[1][:-1], argument="teacher_mask")
    meets, partners = _pairs(student_logits, teacher_logits, student_mask, teacher_mask)
    return row_loss(
        _sorted_distance, student_logits, partners, meets,
        temperature=temperature, scale_by_t2=False, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def _pairs(
    student: Tensor, teacher: Tensor, student_mask: Tensor | None, teacher_mask: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Which of the student's positions have a partner (None: all), and the teacher's logits put beside them."""
    length, other_length = student.shape[-2], teacher.shape[-2]
    if student_mask is None and teacher_mask is None and other_length >= length:
        return None, teacher[..., :length, :]
    if student_mask is None:
        student_mask = torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device)
    if teacher_mask is None:
        teacher_mask = torch.ones(teacher.shape[:-1], dtype=torch.bool, device=teacher.device)
    rank = student_mask.cumsum(-1)
    meets = student_mask & (rank <= teacher_mask.sum(-1, keepdim=True))
    if not other_length:
        return meets, teacher.new_zeros(*student.shape[:-1], teacher.shape[-1])
    # The teacher's counting positions first, in their order; those of rank k then stand at k - 1.
    order = teacher_mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    partner = order.gather(-1, (rank - 1).clamp(0, other_length - 1))
    return meets, teacher.detach().gather(-2, partner.unsqueeze(-1).expand(*partner.shape, teacher.shape[-1]))


def _sorted_distance(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    del careful  # nothing here is infinite
    q = student.softmax(-1)
    ordered, words = q.sort(dim=-1, descending=True)
    of_teacher = teacher.softmax(-1).sort(dim=-1, descending=True).values
    missing = ordered.shape[-1] - of_teacher.shape[-1]
    if missing > 0:
        of_teacher = F.pad(of_teacher, (0, missing))
    value = 0.0
    if missing < 0:  # words that the student has not: their partners are 0
        value = of_teacher[..., ordered.shape[-1] :].sum(-1)
        of_teacher = of_teacher[..., : ordered.shape[-1]]
    difference = ordered.sub_(of_teacher)
    value = difference.abs().sum(-1) + value
    if not wants_gradient:
        return value, None
    slope = torch.empty_like(q).scatter_(-1, words, difference.sign_()).mul_(q)
    return value, slope.addcmul_(q, slope.sum(-1, keepdim=True), value=-1)
