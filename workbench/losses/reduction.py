"""From one number per position to the number that is minimised: means, sums, and what counts in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.errors import check_choice, check_mask

REDUCTIONS = ("token_mean", "sequence_mean", "sum", "none")


def reduce_tokens(
    per_token: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Reduce ``[...]`` values over the positions that count.

    Args:
        per_token: ``[...]``; positions that do not count may hold NaN or inf, their value and
            gradient are exactly 0.
        mask: ``[...]`` bool, True where a position counts; None counts all.
        reduction: ``token_mean`` (over every position that counts), ``sequence_mean`` (over those of
            the last axis, then over the sequences that have one), ``sum`` or ``none`` (keeps ``[...]``).
        num_items: divide the sum by this number instead, so that the parts of an accumulated batch
            add up to the mean over the whole: the whole's tokens (sequences for ``sequence_mean``).

    Returns:
        A scalar, or ``[...]`` for ``none``; exactly 0 and connected to the graph when nothing counts.

    Raises:
        ValueError: an unknown reduction, a mask of another shape, a ``num_items`` that cannot divide.
        TypeError: a mask that is not bool.
    """
    check_mask(mask, per_token.shape)
    weights = token_weights(
        per_token.shape, mask, reduction=reduction, num_items=num_items, dtype=per_token.dtype, device=per_token.device
    )
    # Chosen, not multiplied away: 0 * inf is NaN, and so is its gradient.
    counted = per_token if mask is None else per_token.masked_fill(~mask, 0.0)
    if reduction == "none":
        return counted
    return (counted * weights).sum()


def token_weights(
    shape: torch.Size,
    mask: Tensor | None,
    *,
    reduction: str,
    num_items: float | Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """What each position of ``shape`` is multiplied by before the sum: ``[...]``, or a scalar without a mask."""
    if mask is None:
        weight = uniform_weight(shape, reduction=reduction, num_items=num_items)
        return torch.full((), weight, dtype=dtype, device=device)
    check_choice("reduction", reduction, REDUCTIONS)
    if num_items is not None:
        num_items = _divisor(num_items, reduction)
    weights = mask.to(dtype)
    if reduction == "token_mean":
        return weights / (weights.sum().clamp(min=1) if num_items is None else num_items)
    if reduction == "sequence_mean":
        per_sequence = weights.sum(-1, keepdim=True) if weights.dim() else weights
        sequences = (per_sequence > 0).sum().clamp(min=1) if num_items is None else num_items
        return weights / per_sequence.clamp(min=1) / sequences
    return weights if num_items is None else weights / num_items


def uniform_weight(shape: torch.Size, *, reduction: str, num_items: float | Tensor | None) -> float:
    """:func:`token_weights` of ``shape`` where every position counts: one number."""
    if reduction not in REDUCTIONS:
        check_choice("reduction", reduction, REDUCTIONS)
    if num_items is not None:
        num_items = _divisor(num_items, reduction)
    if reduction in ("sum", "none"):
        return 1.0 if num_items is None else 1.0 / num_items
    if reduction == "sequence_mean" and num_items is not None:
        return 1.0 / (num_items * max(1, shape[-1] if shape else 1))
    return 1.0 / (max(1, math.prod(shape)) if num_items is None else num_items)


def _divisor(num_items: float | Tensor, reduction: str) -> float:
    if reduction == "none":
        raise ValueError("num_items divides a sum, and reduction='none' takes none: leave num_items out.")
    number = float(num_items)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"num_items={number:g} must be a finite number above 0: the tokens of the whole batch.")
    return number
