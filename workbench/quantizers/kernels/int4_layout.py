"""The order of codes in torch's packed 4-bit weights, which depends on the CPU: written by torch, read here."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LEAST_ROWS = 64  # outputs are filled up to a multiple of it, so that only whole blocks occur
ROWS_AT_ONCE = 16 * LEAST_ROWS


def pack_layout(codes: Tensor) -> Tensor:
    """Uint8 codes ``[out, in]`` below 16 in torch's layout, with rows of zeros up to a multiple of 64."""
    filled = torch.nn.functional.pad(codes, (0, 0, 0, -codes.shape[0] % LEAST_ROWS))
    # Torch wants 32 bits for each code: not for all of them at a time.
    parts = [torch.ops.aten._convert_weight_to_int4pack_for_cpu(part.int(), 1) for part in filled.split(ROWS_AT_ONCE)]
    return torch.cat(parts).contiguous() if len(parts) > 1 else parts[0]


def unpack_layout(layout: Tensor, width: int, start: int, stop: int) -> Tensor:
    """Codes of the outputs ``start`` (a multiple of 64) to ``stop``, transposed: uint8 ``[in, rows]``.

    A block of 64 (32, 16) outputs holds, input by input, bytes whose low halves are its first outputs and whose high
    halves are the others, in order: for every input 32 (16, 8) bytes.
    """
    size = block_rows()
    last = -(-stop // size) * size
    blocks = layout.view(-1, width, size // 2)[start // size : last // size].transpose(0, 1)  # [in, blocks, bytes]
    codes = layout.new_empty(width, blocks.shape[1], 2, size // 2)
    torch.bitwise_and(blocks, 15, out=codes[:, :, 0])
    torch.bitwise_right_shift(blocks, 4, out=codes[:, :, 1])
    return codes.view(width, -1)[:, : stop - start]


def read_rows(layout: Tensor, width: int, out: int, index: Tensor) -> Tensor:
    """Codes ``[n, in]`` of some outputs; raises ``IndexError`` beyond ``out``."""
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= out):
        raise IndexError(f"index out of range: rows are numbered 0 to {out - 1}.")
    size = block_rows()
    within = index % size
    half = size // 2
    found = layout.view(-1, width, half)[index // size, :, within % half]  # [n, in]
    return torch.where((within < half)[:, None], found & 15, found >> 4)


def refusal() -> str:
    """Why packed 4-bit weights cannot be used on this machine; empty where they can."""
    return "" if block_rows() else "this CPU's layout of packed 4-bit weights is not known here"


@lru_cache(maxsize=1)
def block_rows() -> int:
    """Outputs in a block of the layout, found by packing known codes; 0 for a layout that is not understood."""
    width, rows = 32, 2 * LEAST_ROWS
    codes = torch.randint(16, (rows, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        layout = pack_layout(codes)
    except (RuntimeError, NotImplementedError):
        return 0
    for size in (64, 32, 16):
        blocks = codes.view(-1, size, width).transpose(1, 2)  # [blocks, in, rows]
        expected = blocks[..., : size // 2] | (blocks[..., size // 2 :] << 4)
        if torch.equal(expected.flatten(), layout.flatten()):
            return size
    return 0
