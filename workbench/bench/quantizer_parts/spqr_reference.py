"""SpQR as its authors' code does it, step for step: what :mod:`workbench.quantizers.spqr` is measured against.

Dettmers et al. 2023, "SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight Compression".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseQuantized:
    """Result of :func:`reference_spqr`, columns in the order of the inputs."""

    codes: Tensor  # uint8 [out, in]; an outlier's are not meant
    rounded: Tensor  # float32 [out, in]
    outliers: Tensor  # bool [out, in]


def fit_range(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and real zero ``[rows, 1]`` of a min-max range per row."""
    low, high = weight.min(1).values, weight.max(1).values
    flat = low == high
    low[flat], high[flat] = -1, 1
    scale = (high - low) / (2**bits - 1)
    return scale[:, None], (-low / scale)[:, None]


def to_codes(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Codes nearest to ``weight``, as floats."""
    return torch.clamp(torch.round(weight / scale.clamp_min(1e-9) + zero), 0, 2**bits - 1)


def quantized_statistics(values: Tensor, bits: int, run: int, *, half: bool) -> Tensor:
    """``values [rows, 1]`` rounded in runs of neighbouring rows; ``half`` rounds the second level's numbers too."""
    runs = values.reshape(-1, run)
    scale, zero = fit_range(runs, bits)
    if half:
        low, scale = -zero * scale, scale.half().float()
        zero = (-low / scale).half().float()
    return (scale * (to_codes(runs, scale, zero, bits) - zero)).reshape_as(values)


def leave_one_out_gain(group: Tensor, pivots: Tensor, bits: int) -> Tensor:
    """Fall of a row's squared error when one weight is left out, with a range of its own for each one left out."""
    inputs = group.shape[1]
    gains = torch.zeros_like(group)
    scale, zero = fit_range(group, bits)
    baseline = (((scale * (to_codes(group, scale, zero, bits) - zero)) - group) / pivots).square().sum(1)
    for left_out in range(inputs):
        others = [place for place in range(inputs) if place != left_out]
        rest = group[:, others]
        scale, zero = fit_range(rest, bits)
        error = ((scale * (to_codes(rest, scale, zero, bits) - zero) - rest) / pivots[others]).square().sum(1)
        gains[:, left_out] = baseline - error
    return gains


def reference_spqr(
    weight: Tensor,
    hessian: Tensor,
    *,
    bits: int,
    group_size: int = 16,
    outlier_threshold: float = 0.2,
    damping: float = 1.0,
    scale_bits: int | None = 3,
    scale_group: int = 16,
    act_order: bool = False,
    block_size: int = 128,
    half_statistics: bool = False,
) -> SparseQuantized:
    """What the published algorithm chooses; ``half_statistics`` stores its second level as the paper counts it."""
    width = weight.shape[1]
    order = torch.argsort(torch.diag(hessian), descending=True, stable=True) if act_order else torch.arange(width)
    weight, hessian = weight[:, order].clone(), hessian[order][:, order].clone()
    dead = torch.diag(hessian) == 0
    diagonal = torch.arange(width)
    hessian[diagonal, diagonal] += damping * torch.diag(hessian).abs().mean()
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    pivots = torch.diag(inverse)
    threshold = outlier_threshold * (weight.var(dim=0) / pivots.square()).mean().item()
    errors, codes = torch.zeros_like(weight), torch.zeros_like(weight)
    outliers = torch.zeros_like(weight, dtype=torch.bool)

    for start in range(0, width, block_size):
        stop = min(start + block_size, width)
        for column in range(start, stop):
            if column % group_size == 0:
                group = weight[:, column : column + group_size]
                if threshold != float("inf"):
                    gains = leave_one_out_gain(group, pivots[column : column + group_size], bits)
                    stay = (gains <= threshold).float()
                    mean = (group * stay).sum(1, keepdim=True) / stay.sum(1, keepdim=True).clamp_min(1)
                    group = group * stay + mean * (1 - stay)
                scale, zero = fit_range(group, bits)
                if scale_bits is not None:
                    scale = quantized_statistics(scale, scale_bits, scale_group, half=half_statistics)
                    zero = quantized_statistics(zero, scale_bits, scale_group, half=half_statistics)
            target = weight[:, column].clone()
            code = to_codes(target[:, None], scale, zero, bits)
            value = (scale * (code - zero)).flatten()
            if threshold != float("inf"):
                beyond = ((target - value) / pivots[column]).square() > threshold
                outliers[:, column] = beyond
                value = torch.where(beyond, target, value)
            codes[:, column] = code.flatten()
            errors[:, column] = (target - value) / pivots[column]
            weight[:, column] = value
            weight[:, column + 1 : stop].addr_(errors[:, column], inverse[column, column + 1 : stop], alpha=-1)
        weight[:, stop:].addmm_(errors[:, start:stop], inverse[start:stop, stop:], alpha=-1)

    back = torch.argsort(order)
    return SparseQuantized(codes[:, back].to(torch.uint8), weight[:, back], outliers[:, back])
