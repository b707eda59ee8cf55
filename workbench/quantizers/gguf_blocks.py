"""Quantised weights as the blocks of the GGUF format that have the same values: Q4_0, Q4_1 and Q8_0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workbench.quantizers.tensor import QuantizedTensor

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType
    from torch import Tensor

BLOCK = 32  # inputs of a block


def gguf_blocks(quantized: QuantizedTensor, layer: str) -> tuple[np.ndarray, GGMLQuantizationType]:
    """The codes and scales of ``quantized [out, in]`` as bytes ``[out, bytes]``, and the format's type.

    Nothing is rounded again: 4 bits symmetric become ``Q4_0`` (``scale * (code - 8)``), 4 bits with a zero ``Q4_1``
    (``scale * code + minimum``), 8 bits symmetric ``Q8_0``. A group of several blocks repeats its scale. ``Q4_1``
    stores ``minimum = -scale * zero`` in float16, which moves the values of a group by up to 2**-11 of its minimum;
    the other two are exact.

    Raises:
        ValueError: anything else than these; says which recipe would do.
    """
    from gguf import GGMLQuantizationType

    kind = gguf_type(quantized, layer)
    codes = quantized.codes.unflatten(1, (-1, BLOCK))  # [out, blocks, 32]
    blocks = codes.shape[:2]
    scale = _half(_by_block(quantized.scales, blocks), layer, "scales")
    if kind == GGMLQuantizationType.Q8_0:
        return _joined(scale, (codes.to(torch.int16) - 128).to(torch.int8).view(torch.uint8)), kind
    halves = codes.unflatten(-1, (2, BLOCK // 2))  # code j and code j + 16 share byte j
    nibbles = halves[..., 0, :] | (halves[..., 1, :] << 4)
    if kind == GGMLQuantizationType.Q4_0:
        return _joined(scale, nibbles), kind
    low = (-_by_block(quantized.scales, blocks) * _by_block(quantized.zeros, blocks)).half()
    if not bool(torch.isfinite(low).all()):
        raise ValueError(f"{layer}: a group's minimum is beyond float16, which Q4_1 stores it in.")
    return _joined(scale, low, nibbles), kind


def gguf_type(quantized: QuantizedTensor, layer: str) -> GGMLQuantizationType:
    """The format's type that has the values of ``quantized``; raises ``ValueError`` where none does."""
    from gguf import GGMLQuantizationType

    spec, width = quantized.spec, quantized.shape[1]
    if quantized.transform is not None:
        raise ValueError(
            f"{layer}: GGUF has no place for the change of inputs that {quantized.method} or rotate=True made: "
            "take rtn, gptq or hqq without rotation."
        )
    if quantized.outliers is not None:
        raise ValueError(f"{layer}: GGUF has no place for outliers: take gptq in the place of {quantized.method}.")
    if quantized.permutation is not None or quantized.axis != 1:
        raise ValueError(f"{layer}: groups must be runs of inputs: static_groups=True for gptq, axis=1 for hqq.")
    if spec.group_length(width, layer) % BLOCK or width % BLOCK:
        raise ValueError(
            f"{layer}: blocks of GGUF hold {BLOCK} inputs, and {spec.label} over {width} inputs does not fit them: "
            f"take group_size={BLOCK} or a multiple."
        )
    if spec.codebook is None and spec.bits == 4:
        return GGMLQuantizationType.Q4_0 if spec.symmetric else GGMLQuantizationType.Q4_1
    if spec.symmetric and spec.bits == 8:
        return GGMLQuantizationType.Q8_0
    raise ValueError(
        f"{layer}: GGUF defines no block of {spec.label}: take 4 bits (symmetric for Q4_0, else Q4_1) or 8 bits "
        "symmetric (Q8_0), or save_quantized, which keeps every scheme."
    )


def _by_block(values: Tensor, blocks: torch.Size) -> Tensor:
    """``[rows, groups]``, or ``[1, 1]`` of a whole tensor, repeated to ``[out, blocks]``."""
    repeated = values.repeat_interleave(blocks[1] // values.shape[1], dim=1)
    return repeated.expand(blocks)


def _half(values: Tensor, layer: str, what: str) -> Tensor:
    stored = values.half()
    if not torch.equal(stored.float(), values):
        raise ValueError(
            f"{layer}: GGUF stores {what} in float16, but these were not chosen for it: "
            "quantise with scale_dtype='float16'."
        )
    return stored


def _joined(*parts: Tensor) -> np.ndarray:
    """Parts ``[out, blocks, ...]`` of every block, one behind the other, as ``[out, bytes]``."""
    as_bytes = [
        (part[..., None] if part.dim() == 2 else part).contiguous().view(torch.uint8).flatten(2) for part in parts
    ]
    return torch.cat(as_bytes, dim=-1).flatten(1).cpu().numpy()
