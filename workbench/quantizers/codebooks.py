"""The 16 levels of NF4 and FP4, and the 8-bit dynamic code that their scales are compressed with."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from workbench.errors import check_choice

# Quantiles of a normal distribution with an exact zero (Dettmers et al. 2023, QLoRA, appendix E), by code.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# Sign, two bits of exponent, one of fraction, in parts of the largest (12), by code; code 8 is a negative zero.
FP4 = tuple(sign * part / 12 for sign in (1.0, -1.0) for part in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0))
CODEBOOKS = {"nf4": NF4, "fp4": FP4}

DYNAMIC_BLOCK = 256  # scales that share a second-level scale (Dettmers et al. 2023, QLoRA)
SMALLEST = 1e-38  # below it a group counts as zeros


@lru_cache(maxsize=16)
def codebook_levels(name: str, device: torch.device) -> Tensor:
    """Values ``[16]`` in [-1, 1] by code."""
    check_choice("codebook", name, CODEBOOKS)
    return torch.tensor(CODEBOOKS[name], dtype=torch.float32, device=device)


@lru_cache(maxsize=16)
def _order(name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes by rising value (uint8), and the midpoints between neighbours."""
    levels = codebook_levels(name, device)
    rising = torch.argsort(levels, stable=True)
    ordered = levels[rising]
    return rising.to(torch.uint8), (ordered[:-1] + ordered[1:]) / 2


def nearest_code(values: Tensor, name: str) -> Tensor:
    """The code (uint8) of the level nearest to each of ``values``; at a midpoint the lower one."""
    rising, midpoints = _order(name, values.device)
    place = torch.bucketize(values, midpoints, out_int32=True)
    return place.to(torch.uint8) if name == "nf4" else rising[place.long()]


@lru_cache(maxsize=4)
def dynamic_levels(device: torch.device) -> Tensor:
    """The 256 values of the signed dynamic 8-bit code, rising (Dettmers et al. 2022, 8-bit optimizers).

    Seven decades, of which the k-th from below holds ``2**k`` levels of each sign in the middle of equal parts
    of [0.1, 1] times its power of ten; besides them 0 and 1.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        middles = ((edges[:-1] + edges[1:]) / 2) * 10.0 ** (decade - 6)
        values += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)


def encode_dynamic(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat ``values`` in 8 bits: codes (uint8, flat), largest magnitude by block of 256, and the mean taken off."""
    flat = values.flatten().float()
    offset = flat.mean() if flat.numel() else flat.new_zeros(())
    blocks = _blocks(flat - offset)
    largest = blocks.abs().amax(1).clamp(min=SMALLEST)
    levels = dynamic_levels(values.device)
    midpoints = (levels[:-1] + levels[1:]) / 2
    scaled = (blocks * (1.0 / largest)[:, None]).clamp(-1, 1)
    codes = torch.bucketize(scaled, midpoints, out_int32=True).to(torch.uint8)
    return codes.flatten()[: flat.numel()], largest, offset


def decode_dynamic(codes: Tensor, largest: Tensor, offset: Tensor) -> Tensor:
    """The flat values that :func:`encode_dynamic` encoded."""
    levels = dynamic_levels(codes.device)
    values = _blocks(levels[codes.long()]) * largest[:, None]
    return values.flatten()[: codes.numel()] + offset


def _blocks(flat: Tensor) -> Tensor:
    missing = -flat.numel() % DYNAMIC_BLOCK
    return torch.nn.functional.pad(flat, (0, missing)).view(-1, DYNAMIC_BLOCK)
