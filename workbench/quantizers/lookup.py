"""Values of packed codes, looked up several at a time and straight from their bytes."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from workbench.quantizers.codebooks import codebook_levels
from workbench.quantizers.packing import unpack_codes

# Bits of a word that is looked up at once: whole codes in it, and a table that stays in the first-level cache.
WORD = {2: 8, 3: 12, 4: 8}
# A word's values move as one number of as many bytes, which is several times as fast as moving them one by one.
MOVED = {2: torch.float64, 4: torch.complex128}


def look_up(packed: Tensor, bits: int, columns: int, codebook: str | None = None) -> Tensor:
    """Float32 ``[rows, columns]``: the level of each code of ``packed [rows, bytes]``, without a codebook the code.

    The same as ``levels[unpack_codes(packed, bits, columns)]``.

    Raises:
        TypeError, ValueError: as :func:`~workbench.quantizers.packing.unpack_codes`.
    """
    if bits not in WORD or packed.device.type == "mps" or not packed.numel():  # that device has no wide numbers
        codes = unpack_codes(packed, bits, columns)
        return codes.float() if codebook is None else codebook_levels(codebook, codes.device)[codes.long()]
    words = packed.int() if WORD[bits] == 8 else _twelve(packed)
    values = _table(bits, codebook, packed.device).index_select(0, words.flatten())
    return values.view(torch.float32).view(packed.shape[0], -1)[:, :columns]


@lru_cache(maxsize=16)
def _table(bits: int, codebook: str | None, device: torch.device) -> Tensor:
    """The values of all codes of a word, as one number each, ``[2**word]``."""
    levels = torch.arange(2**bits, device=device).float() if codebook is None else codebook_levels(codebook, device)
    words, each = torch.arange(2 ** WORD[bits], device=device), WORD[bits] // bits
    values = torch.stack([levels[(words >> (bits * place)) & (2**bits - 1)] for place in range(each)], dim=1)
    pairs = values.view(torch.float64)
    return (pairs if MOVED[each] == torch.float64 else pairs.view(torch.complex128)).flatten()


def _twelve(packed: Tensor) -> Tensor:
    """Three bytes as two words of twelve bits, ``[rows, words]``."""
    missing = -packed.shape[1] % 3
    filled = torch.nn.functional.pad(packed, (0, missing)) if missing else packed
    first, middle, last = filled.int().unflatten(1, (-1, 3)).unbind(-1)
    return torch.stack([first | (middle & 15) << 8, middle >> 4 | last << 4], dim=-1).flatten(1)
