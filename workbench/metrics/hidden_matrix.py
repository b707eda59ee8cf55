"""The hidden states of a text as a matrix: which tokens count, their mean, and rows of length one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 4.0  # times eps sqrt(tokens): how far from their mean equal tokens may land by rounding alone


def check_hidden(hidden: Tensor, *, argument: str = "hidden", batches: bool = False) -> None:
    """Raise unless ``hidden`` is a float tensor ``[tokens, width]``, or ``[batch, time, width]`` where ``batches``.

    Raises:
        TypeError: no tensor of floats.
        ValueError: other axes, or no width.
    """
    if not isinstance(hidden, Tensor) or not hidden.is_floating_point():
        kind = str(getattr(hidden, "dtype", type(hidden).__name__))
        raise TypeError(f"{argument} must be a float tensor of torch, got {kind}: give the hidden states themselves.")
    if hidden.dim() not in ((2, 3) if batches else (2,)) or hidden.shape[-1] < 1:
        wanted = "[tokens, width] or [batch, time, width]" if batches else "[tokens, width]"
        raise ValueError(f"{argument} must be {wanted}, got {list(hidden.shape)}.")


def of_each_text(
    measure: Callable[[Tensor], Tensor], hidden: Tensor, mask: Tensor | None, *, argument: str = "hidden"
) -> Tensor:
    """``measure`` of the counted tokens ``[tokens, width]``: of one text a scalar, of a batch of them ``[batch]``.

    Half precision is measured in float32; no gradient is kept.

    Raises:
        TypeError, ValueError: as :func:`check_hidden`, or a mask that is not bool ``[tokens]`` or ``[batch, time]``.
    """
    check_hidden(hidden, argument=argument, batches=True)
    _check_mask(mask, hidden)
    with torch.no_grad():
        if hidden.dim() == 2:
            return measure(_wide(select_tokens(hidden, mask)))
        masks = [None] * len(hidden) if mask is None else mask
        found = [measure(_wide(select_tokens(text, one))) for text, one in zip(hidden, masks, strict=True)]
        return torch.stack(found) if found else hidden.new_zeros(0, dtype=wide_dtype(hidden))


def _check_mask(mask: Tensor | None, hidden: Tensor) -> None:
    if mask is None:
        return
    kind = str(getattr(mask, "dtype", type(mask).__name__))
    if kind != "torch.bool":
        raise TypeError(f"mask must be a bool tensor of torch, True where a token counts; got {kind}: try mask.bool().")
    if mask.shape != hidden.shape[:-1]:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected {list(hidden.shape[:-1])}: one entry a token.")


def select_tokens(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of ``hidden [tokens, width]`` where ``mask`` is True; a view where they are one run from the start."""
    if mask is None:
        return hidden
    count = int(mask.sum())
    return hidden[:count] if bool(mask[:count].all()) else hidden[mask]  # padding on the right needs no copy


def wide_dtype(hidden: Tensor) -> torch.dtype:
    """float64 stays, everything else is computed in float32."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _wide(hidden: Tensor) -> Tensor:
    return hidden.detach().to(wide_dtype(hidden)).contiguous()


def token_mean(hidden: Tensor) -> tuple[Tensor, float]:
    """Mean over tokens ``[width]``, and the squared length up to which a centred token counts as equal to it.

    Raises:
        ValueError: NaN or infinity among the hidden states.
    """
    tokens = len(hidden)
    # A product with a vector runs at the speed of memory; torch's mean over the first axis takes several times that.
    mean = torch.mv(hidden.t(), hidden.new_full((tokens,), 1 / tokens))
    length = float(torch.linalg.vector_norm(mean))
    if not math.isfinite(length):
        raise ValueError(
            "hidden holds NaN or infinity: the model's output is broken, or its half precision overflowed."
        )
    return mean, (ROUNDING * torch.finfo(hidden.dtype).eps * math.sqrt(tokens) * length) ** 2


def normalize_hidden(hidden: Tensor) -> Tensor:
    """Hidden states less their mean over tokens, every row then divided by its length, ``[tokens, width]``.

    A token that equals the mean has no direction: its row is NaN (one token, or equal ones). Li et al. 2024,
    the authors' ``normalize``. Half precision gives float32.

    Raises:
        TypeError, ValueError: no float matrix, or NaN or infinity in it.
    """
    check_hidden(hidden)
    with torch.no_grad():
        hidden = _wide(hidden)
        if not len(hidden):
            return hidden.clone()
        mean, nothing = token_mean(hidden)
        centred = hidden - mean
        lengths = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        return centred.div_(lengths.masked_fill_(lengths.square() <= nothing, math.nan))
