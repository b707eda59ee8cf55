"""Losses that pull a student's next-token distribution q towards a teacher's p, one side weighing the other."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from workbench.errors import check_between
from workbench.losses.closed_form import closed_form_loss
from workbench.losses.kernels import distance, weighted_kl


def forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL(teacher || student), which covers every word the teacher likes (Hinton, Vinyals & Dean 2015, sec. 2).

    .. math:: T^2 \sum_v p_v (\log p_v - \log q_v), \qquad \partial / \partial z_v = T (q_v - p_v)

    Args:
        student_logits: ``[..., vocab]``, any float dtype; the gradient flows into these.
        teacher_logits: the same shape; no gradient flows into them.
        mask: ``[...]`` bool, True where a position counts; None counts all. What lies elsewhere
            is not read.
        temperature: T above 0, which both logits are divided by.
        scale_by_t2: multiply by T^2, so that the gradient keeps its size at every temperature.
        reduction: ``token_mean | sequence_mean | sum | none``, see :func:`reduce_tokens`.
        num_items: divide the sum by this instead (gradient accumulation).

    Returns:
        Nats per token in float32 (float64 if an input is): 0 when the two agree or nothing counts,
        +inf where the teacher allows a word (logit above -inf) that the student forbids. Words that
        both forbid, such as the padding of a vocabulary, count nothing.

    Raises:
        ValueError: other shapes, temperature not above 0, unknown reduction, or logits that are
            NaN, +inf or nothing but -inf at a position that counts.
        TypeError: logits that are not floating-point, or a mask that is not bool.
    """
    return closed_form_loss(
        partial(weighted_kl, forward=1.0, reverse=0.0), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL(student || teacher), which avoids every word the teacher dislikes (Gu et al. 2024, MiniLLM).

    .. math:: T^2 \sum_v q_v (\log q_v - \log p_v)

    Arguments, result and errors as in :func:`forward_kl`; +inf (without a finite gradient) where the
    student allows a word that the teacher forbids.
    """
    return closed_form_loss(
        partial(weighted_kl, forward=0.0, reverse=1.0), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def jeffreys(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""The sum of both directions, the same whoever is called teacher (Jeffreys 1946).

    .. math:: T^2 \sum_v (p_v - q_v) (\log p_v - \log q_v)

    Arguments, result and errors as in :func:`forward_kl`; +inf where either side forbids what the other allows.
    """
    return closed_form_loss(
        partial(weighted_kl, forward=1.0, reverse=1.0), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def symmetric_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    weight: float = 0.5,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""A weighted mean of both directions: ``(1 - weight)`` forward plus ``weight`` reverse.

    Arguments, result and errors as in :func:`forward_kl`, and ``weight`` from 0 (forward KL) to 1 (reverse KL).
    """
    check_between(0, 1, weight=weight)
    return closed_form_loss(
        partial(weighted_kl, forward=1.0 - weight, reverse=weight), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def total_variation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""The probability that must move, from 0 (equal) to 1 (no word in common) (Wen et al. 2023, f-distill).

    .. math:: \tfrac12 \sum_v |p_v - q_v|

    Arguments and errors as in :func:`forward_kl`; ``scale_by_t2`` is taken for the common signature
    and changes nothing, since a probability stays one. Its gradient vanishes once the two no longer overlap.
    """
    del scale_by_t2
    return closed_form_loss(
        distance, student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=False, reduction=reduction, num_items=num_items, factor=0.5,
    )  # fmt: skip
