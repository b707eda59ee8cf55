"""GPTQ as its authors' code does it, step for step: what :mod:`workbench.quantizers.gptq` is measured against.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers". Three
factorisations of the Hessian, one quantizer object per group, and in every column an outer product that is
written out before it is subtracted. Nothing here is slower than there, and nothing faster.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class RowQuantizer:
    """A uniform grid per row, fitted to the columns it is shown."""

    def __init__(self, bits: int, *, symmetric: bool = False) -> None:
        self.most = torch.tensor(2**bits - 1)
        self.symmetric = symmetric
        self.scale = self.zero = torch.zeros(1)

    def fit(self, weight: Tensor) -> None:
        """Min-max range of each row of ``[rows, columns]``, 0 included."""
        nothing = torch.zeros(weight.shape[0])
        low = torch.minimum(weight.min(1)[0], nothing)
        high = torch.maximum(weight.max(1)[0], nothing)
        if self.symmetric:
            high = torch.maximum(low.abs(), high)
            below = low < 0
            if torch.any(below):
                low[below] = -high[below]
        empty = (low == 0) & (high == 0)
        low[empty] = -1
        high[empty] = 1
        self.scale = (high - low) / self.most
        self.zero = torch.full_like(self.scale, (self.most + 1) / 2) if self.symmetric else (-low / self.scale).round()
        self.scale, self.zero = self.scale.reshape(-1, 1), self.zero.reshape(-1, 1)

    def round(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of a ``[rows, 1]`` column, and what they stand for."""
        codes = torch.clamp(torch.round(column / self.scale) + self.zero, 0, self.most)
        return codes, self.scale * (codes - self.zero)


def reference_gptq(
    weight: Tensor,
    hessian: Tensor,
    *,
    bits: int = 4,
    group_size: int | None = None,
    symmetric: bool = False,
    block_size: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    static_groups: bool = True,
) -> tuple[Tensor, Tensor]:
    """Codes and values ``[out, in]`` that the published algorithm chooses, in the dtype of ``weight``."""
    weight, hessian = weight.clone(), hessian.clone()
    columns = weight.shape[1]
    quantizer = RowQuantizer(bits, symmetric=symmetric)
    quantizer.fit(weight)
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    grids = []
    if group_size is not None and static_groups:
        for first in range(0, columns, group_size):
            grid = copy.deepcopy(quantizer)
            grid.fit(weight[:, first : first + group_size])
            grids.append(grid)
    if act_order:
        order = torch.argsort(torch.diag(hessian), descending=True)
        weight = weight[:, order]
        hessian = hessian[order][:, order]
    losses, values, codes = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(weight)
    diagonal = torch.arange(columns)
    hessian[diagonal, diagonal] += damping * torch.mean(torch.diag(hessian))
    hessian = torch.linalg.cholesky(hessian)
    hessian = torch.cholesky_inverse(hessian)
    inverse = torch.linalg.cholesky(hessian, upper=True)

    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        block = weight[:, start:stop].clone()
        block_values, errors, block_losses = torch.zeros_like(block), torch.zeros_like(block), torch.zeros_like(block)
        here = inverse[start:stop, start:stop]
        for place in range(stop - start):
            column = block[:, place]
            pivot = here[place, place]
            index = start + place
            if group_size is not None:
                if grids:
                    original = order[index] if act_order else index
                    quantizer = grids[original // group_size]
                elif index % group_size == 0:
                    # Of the weight that former blocks have updated: this block's own updates are in `block` alone.
                    quantizer.fit(weight[:, index : index + group_size])
            code, value = quantizer.round(column.unsqueeze(1))
            codes[:, index] = code.flatten()
            rounded = value.flatten()
            block_values[:, place] = rounded
            block_losses[:, place] = (column - rounded) ** 2 / pivot**2
            error = (column - rounded) / pivot
            block[:, place:] -= error.unsqueeze(1).matmul(here[place, place:].unsqueeze(0))
            errors[:, place] = error
        values[:, start:stop] = block_values
        losses[:, start:stop] = block_losses / 2
        weight[:, stop:] -= errors.matmul(inverse[start:stop, stop:])

    if act_order:
        back = torch.argsort(order)
        values, codes = values[:, back], codes[:, back]
    return codes.to(torch.uint8), values
