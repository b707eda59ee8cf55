"""Losses that match logits or correlations instead of a divergence, and logits brought to one scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.errors import check_mask, check_positive
from workbench.losses.closed_form import check_floating, check_logits, closed_form_loss, refuse_nan, wide_dtype
from workbench.losses.reduction import reduce_tokens

STILL = 1e-12  # a class or a row whose probabilities vary by less (as a norm) varies by nothing


def logit_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Mean over the vocabulary of the squared difference of the logits (Kim et al. 2021).

    .. math:: \frac1V \sum_v \left(\frac{z_v - y_v}{T}\right)^2

    Not nats, and the only loss here that a constant added to the logits changes: of centred logits,
    half of it is what ``forward_kl`` at ``temperature=T`` tends to as T grows. ``temperature`` divides
    both logits; ``scale_by_t2`` is taken for the common signature and changes nothing. Words that both
    forbid leave the mean; one that a single side forbids makes the loss +inf, without a finite gradient.
    Arguments, result and errors otherwise as in :func:`forward_kl`.
    """
    del scale_by_t2
    return closed_form_loss(
        _squared_difference, student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=False, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def _squared_difference(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    difference, words = student - teacher, student.shape[-1]
    value = difference.square().sum(-1)
    if careful and not math.isfinite(value.sum()):  # something is forbidden or unusable
        nowhere = difference.isnan()
        difference.masked_fill_(nowhere, 0.0)
        words = (~nowhere).sum(-1).clamp_(min=1)
        value = difference.square().sum(-1).add_((student.amax(-1) + teacher.amax(-1)) * 0)
    value = value / words
    if not wants_gradient:
        return value, None
    return value, difference.mul_(2 / words if isinstance(words, int) else (2 / words).unsqueeze(-1))


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""One minus Pearson's correlation over classes, and over the batch (Huang et al. 2022, DIST).

    .. math:: T^2 \left[\beta (1 - \rho_{classes}(q_i, p_i)) + \gamma \frac1V \sum_v (1 - \rho_{rows}(q_v, p_v))\right]

    The first part belongs to a position, the second to all positions that count together; each
    position's value holds the second part whole, so that ``token_mean`` is the paper's sum. Masked
    positions leave both. A class whose probability varies over the batch on neither side says nothing
    and leaves the mean over classes, one that varies on one side only has no correlation: a
    loss of 1 without a gradient. So a batch of one position has the first part alone. The official
    code instead adds 1e-8 below the fraction, which differs where probabilities are near that.

    Plain autograd, differentiable more than once; about six arrays of the logits' size live at once.
    Arguments and errors as in :func:`forward_kl`, and ``beta``, ``gamma`` from 0 up. Not nats: from 0
    (equal up to scale) to 2 (``beta`` + ``gamma``), times T^2.
    """
    check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    check_positive(temperature=temperature)
    for name, weight in {"beta": beta, "gamma": gamma}.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}={weight!r} must be a finite number from 0 up.")
    positions = student_logits.shape[:-1]
    check_mask(mask, positions)
    dtype = wide_dtype(student_logits, teacher_logits)
    student, teacher = student_logits.to(dtype), teacher_logits.detach().to(dtype)
    if mask is not None:
        student, teacher = (x.masked_fill(~mask.unsqueeze(-1), 0.0) for x in (student, teacher))
    forbidden = student.isneginf() & teacher.isneginf()
    q, p = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    # Within a position: p and q sum to 1, so that the mean over the allowed words is 1 over their number.
    mean = 1 / (~forbidden).sum(-1, keepdim=True).to(dtype)
    within, _ = _decorrelation((q - mean).masked_fill(forbidden, 0.0), (p - mean).masked_fill(forbidden, 0.0), -1)
    within = within + (q[..., 0] + p[..., 0]).detach() * 0  # unusable logits stay NaN
    counts = torch.ones(positions, dtype=dtype, device=q.device) if mask is None else mask.to(dtype)
    across = _across(q.reshape(-1, q.shape[-1]), p.reshape(-1, p.shape[-1]), counts.reshape(-1, 1))
    per_token = beta * within + gamma * across
    if scale_by_t2:
        per_token = per_token * temperature**2
    reduced = reduce_tokens(per_token, mask, reduction=reduction, num_items=num_items)
    if _is_nan(reduced.detach().sum()):
        counted = within if mask is None else within.masked_fill(~mask, 0.0)
        refuse_nan(counted, student_logits, teacher_logits)
    return reduced


def _across(q: Tensor, p: Tensor, counts: Tensor) -> Tensor:
    """The mean over the classes that vary of 1 - correlation over the rows ``[rows, vocab]`` that count."""
    rows = counts.sum().clamp(min=1)
    q, p = ((x - (x * counts).sum(0) / rows) * counts for x in (q, p))
    apart, varies = _decorrelation(q, p, 0)
    return apart.sum() / varies.sum().clamp(min=1)


def _decorrelation(first: Tensor, second: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """1 - correlation of centred values along ``axis``, 0 where neither varies, and where at least one does."""
    lengths = [x.square().sum(axis) for x in (first, second)]
    moving = [length > STILL**2 for length in lengths]
    both, either = moving[0] & moving[1], moving[0] | moving[1]
    lengths = [torch.where(both, length, 1.0).sqrt() for length in lengths]  # chosen before the root: its slope at 0
    correlation = torch.where(both, (first * second).sum(axis) / (lengths[0] * lengths[1]), 0.0)
    return torch.where(either, 1 - correlation, 0.0), either


def _is_nan(total: Tensor) -> bool:
    try:
        return math.isnan(total)
    except RuntimeError:  # inside torch.func.vmap no value can be read
        return False


def standardize_logits(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Logits ``[..., vocab]`` with mean 0 and standard deviation 1 over the vocabulary (Sun et al. 2024).

    .. math:: (z_v - \bar z) / (\sigma + 10^{-7})

    Given to both sides of a loss, they let a student match the order of the teacher's words without its
    range; the paper then uses ``forward_kl`` at temperature 2. The deviation is the unbiased one; words at
    -inf leave mean and deviation and stay -inf; of a single word, or of equal ones, all become 0.

    Args:
        logits: any float dtype; the gradient flows through mean and deviation.
        mask: ``[...]`` bool; what lies where it is False becomes 0 and has no gradient, whatever it is.

    Returns:
        float32 (float64 stays float64).

    Raises:
        ValueError: no vocabulary axis, or a mask of another shape.
        TypeError: logits that are not floating-point, or a mask that is not bool.
    """
    check_floating(logits=logits)
    check_mask(mask, logits.shape[:-1])
    wide = logits.to(wide_dtype(logits))
    if mask is not None:
        wide = wide.masked_fill(~mask.unsqueeze(-1), 0.0)
    forbidden = wide.isneginf()
    words = (~forbidden).sum(-1, keepdim=True)
    allowed = wide.masked_fill(forbidden, 0.0)
    centred = (allowed - allowed.sum(-1, keepdim=True) / words.clamp(min=1)).masked_fill(forbidden, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (words - 1).clamp(min=1)
    still = variance == 0
    deviation = torch.where(still, 1.0, variance).sqrt().masked_fill(still, 0.0)  # the root's slope at 0 is infinite
    return (centred / (deviation + 1e-7)).masked_fill(forbidden, -math.inf)
