"""Codes of 1 to 8 bits packed without gaps: a little-endian stream of bits along the last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantizers.spec import MOST_BITS

CODES = 8  # eight codes of b bits fill b bytes exactly, whatever b is


def packed_width(columns: int, bits: int) -> int:
    """Bytes that ``columns`` codes take."""
    return -(-columns * bits // 8)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Uint8 codes ``[..., columns]`` below ``2**bits`` as bytes ``[..., ceil(columns * bits / 8)]``.

    Code ``j`` occupies the bits ``j * bits`` and following, the lowest of a byte first.

    Raises:
        TypeError: codes are not uint8.
        ValueError: a code needs more bits, or ``bits`` is not from 1 to 8.
    """
    _check(codes, bits, "codes")
    if codes.numel() and int(codes.max()) >= 2**bits:
        raise ValueError(f"code {int(codes.max())} does not fit into {bits} bits.")
    columns = codes.shape[-1]
    if bits == MOST_BITS:
        return codes.contiguous()
    whole, ratio = codes, 8 // bits
    if 8 % bits == 0:  # whole codes in a byte: shifted and added in place
        whole = _filled(codes, ratio).unflatten(-1, (-1, ratio))
        packed = whole[..., 0].clone()
        for place in range(1, ratio):
            packed |= whole[..., place] << (bits * place)
        return packed.contiguous()
    # Eight codes are one integer of 8 b bits (at most 56), of which b bytes are kept.
    wide = _filled(codes, CODES).unflatten(-1, (-1, CODES)).to(torch.int64)
    word = wide[..., 0].clone()
    for place in range(1, CODES):
        word |= wide[..., place] << (bits * place)
    packed = torch.stack([(word >> (8 * place)) & 0xFF for place in range(bits)], dim=-1).to(torch.uint8)
    return packed.flatten(-2)[..., : packed_width(columns, bits)].contiguous()


def unpack_codes(packed: Tensor, bits: int, columns: int) -> Tensor:
    """The uint8 codes ``[..., columns]`` that :func:`pack_codes` packed into bytes ``[..., width]``.

    Raises:
        TypeError: not uint8.
        ValueError: the width is not that of ``columns`` codes.
    """
    _check(packed, bits, "packed")
    if packed.shape[-1] != packed_width(columns, bits):
        raise ValueError(
            f"{packed.shape[-1]} bytes do not hold {columns} codes of {bits} bits: "
            f"expected {packed_width(columns, bits)}."
        )
    if bits == MOST_BITS:
        return packed
    if 8 % bits == 0:
        ratio = 8 // bits
        codes = packed.new_empty(*packed.shape, ratio)
        for place in range(ratio):
            torch.bitwise_right_shift(packed, bits * place, out=codes[..., place])
        if ratio > 1:
            codes &= 2**bits - 1
        return codes.flatten(-2)[..., :columns]
    parts = _filled(packed, bits).unflatten(-1, (-1, bits))
    codes = parts.new_empty(*parts.shape[:-1], CODES)
    for place in range(CODES):
        byte, shift = divmod(bits * place, 8)
        code = codes[..., place]
        torch.bitwise_right_shift(parts[..., byte], shift, out=code)
        if shift + bits > 8:  # the rest of it begins the next byte
            code |= parts[..., byte + 1] << (8 - shift)
    codes &= 2**bits - 1
    return codes.flatten(-2)[..., :columns]


def _filled(values: Tensor, multiple: int) -> Tensor:
    """With zeros behind, up to a multiple of so many."""
    missing = -values.shape[-1] % multiple
    return torch.nn.functional.pad(values, (0, missing)) if missing else values


def _check(values: Tensor, bits: int, argument: str) -> None:
    if values.dtype != torch.uint8:
        raise TypeError(f"{argument} must be uint8, got {values.dtype}.")
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits={bits!r} must be from 1 to {MOST_BITS}.")
