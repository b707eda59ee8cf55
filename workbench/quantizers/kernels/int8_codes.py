"""Codes with one scale per row as signed bytes, for the kernels that multiply bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantizers.kernels.kernel import row_table
from workbench.quantizers.tensor import QuantizedTensor


def refusal_of_bytes(quantized: QuantizedTensor) -> str:
    """Why ``quantized`` is no matrix of bytes with one scale per row; empty where it is."""
    if quantized.spec.codebook is not None:
        return f"its codes are numbers of {quantized.spec.codebook} levels, not of equal steps"
    if quantized.axis != 1:
        return "its groups run along the outputs"
    if quantized.scales.shape[1] != 1:
        return f"it has {quantized.scales.shape[1]} scales in a row; quantise with group_size=None (one scale per row)"
    return ""


def signed_codes(quantized: QuantizedTensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Int8 ``[out, in]`` around the middle of the codes, float32 scales ``[out]`` and zeros ``[out]``.

    ``weight = scale * (signed - zero)``; the zeros are None where all are 0.
    """
    rows, middle = quantized.shape[0], quantized.spec.middle
    signed = (codes - middle).view(torch.int8)  # bytes wrap around: no wider copy is made
    zeros = row_table(quantized.zeros, rows) - middle
    return signed, row_table(quantized.scales, rows), zeros if bool(zeros.any()) else None


def unsigned_codes(signed: Tensor, middle: int) -> Tensor:
    """The uint8 codes that :func:`signed_codes` shifted."""
    return signed.view(torch.uint8) + middle
