"""The loop of GPTQ and SpQR: round one input after the other, and pass each error on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from workbench.quantizers.grid import decode, encode
from workbench.quantizers.spec import QuantSpec

PIECE = 32  # columns whose errors reach each other one by one


def round_columns(
    weight: Tensor,
    feedback: Tensor,
    round_column: Callable[[int, Tensor], Tensor],
    *,
    original: Tensor | None = None,
    block_size: int = 128,
    piece: int = PIECE,
    at_block: Callable[[int, int], None] | None = None,
    at_piece: Callable[[int, int], None] | None = None,
) -> None:
    """Go through ``weight [columns, rows]`` (inputs first, so that one input's weights lie together) in place.

    Errors reach the columns of the same piece one by one, the rest of the block after each piece, and everything
    behind after each block: the same sums, in products that are large enough to be fast.

    Args:
        weight: overwritten by the targets that were rounded.
        feedback: ``[columns, columns]`` of :func:`workbench.quantizers.feedback.feedback`.
        round_column: ``(column, target [rows]) -> value [rows]``.
        original: ``[columns, rows]`` weights that errors are taken from; None takes them from the targets.
        block_size: columns between two updates of everything behind.
        piece: columns between two updates of a block.
        at_block: called with the first column of a block and the one behind it, when all former *blocks* have
            been passed on.
        at_piece: the same for a piece, when all former *columns* have been passed on within its block.
    """
    columns, rows = weight.shape
    whole = weight.new_zeros(min(block_size, columns), rows)
    wanted = weight if original is None else original
    for start, stop in spans(0, columns, block_size):
        if at_block is not None:
            at_block(start, stop)
        errors = whole[: stop - start]
        for first, last in spans(start, stop, piece):
            if at_piece is not None:
                at_piece(first, last)
            here = errors[first - start : last - start]
            turned = here.t()
            # One view for each column, made for a piece at a time: indexing costs as much as arithmetic here.
            targets, minuends, each = (part.unbind(0) for part in (weight[first:last], wanted[first:last], here))
            # Rows of the feedback end in zeros, so that what stands in `here` from a former block counts nothing.
            passed = feedback[first:last, first:last].unbind(0)
            for place, target in enumerate(targets):
                if place:
                    target.addmv_(turned, passed[place])
                torch.sub(minuends[place], round_column(first + place, target), out=each[place])
            if last < stop:
                weight[last:stop].addmm_(feedback[last:stop, first:last], here)
        if stop < columns:
            weight[stop:].addmm_(feedback[stop:, start:stop], errors)


def spans(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """``(start, start + step), ...`` up to ``stop``, the last one shorter where it must be."""
    return ((first, min(first + step, stop)) for first in range(start, stop, step))


def rounding(
    spec: QuantSpec, scale: Tensor, zero: Tensor | None, group_of: Sequence[int], codes: Tensor
) -> Callable[[int, Tensor], Tensor]:
    """A ``round_column`` that writes into ``codes`` (uint8 ``[columns, rows]``) and takes one group's scales.

    What it computes is :func:`~workbench.quantizers.grid.encode` and then ``decode``, bit for bit; for uniform grids
    in one buffer, since making tensors is half of the time of a column. The value it returns is valid until the next
    call.

    Args:
        scale: ``[groups, rows]``; what is written into it later counts.
        zero: ``[groups, rows]``, None for a codebook.
        group_of: group of each column.
    """
    scales, chosen = scale.unbind(0), codes.unbind(0)
    if zero is None:

        def nearest(column: int, target: Tensor) -> Tensor:
            scale = scales[group_of[column]]
            code = encode(target, scale, None, spec)
            chosen[column].copy_(code)
            return decode(code, scale, None, spec)

        return nearest

    zeros, buffer = zero.unbind(0), torch.empty_like(scale[0])
    top, real_zero = spec.levels - 1, spec.zero == "float"

    def uniform(column: int, target: Tensor) -> Tensor:
        group = group_of[column]
        scale, zero = scales[group], zeros[group]
        torch.div(target, scale, out=buffer)
        if real_zero:
            buffer.add_(zero).round_()
        else:
            buffer.round_().add_(zero)
        chosen[column].copy_(buffer.clamp_(0, top))
        return buffer.sub_(zero).mul_(scale)

    return uniform
