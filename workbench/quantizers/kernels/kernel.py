"""What a kernel is: one storage of a quantised weight, and its product with inputs."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from workbench.quantizers.tables import stored_bytes
from workbench.quantizers.tensor import QuantizedTensor


class Kernel:
    """Codes of a weight in the layout that one way of multiplying wants, and nothing twice.

    A kernel multiplies by the codes as they are stored: :class:`QuantizedLinear` transforms and permutes the inputs
    before and adds outliers and bias. Scales and zeros are kept as the quantiser stored them too, beside what the
    kernel makes of them, so that :attr:`quantized` is exact.
    """

    name: ClassVar[str]

    def __init__(self, quantized: QuantizedTensor):
        self.spec, self.shape = quantized.spec, quantized.shape
        self._rest = replace(quantized, packed=quantized.packed.new_empty(0))
        self._known = weakref.ref(quantized)

    @classmethod
    def refusal(cls, quantized: QuantizedTensor) -> str:
        """Why this kernel cannot multiply by ``quantized``; empty where it can."""
        raise NotImplementedError

    def multiply(self, inputs: Tensor) -> Tensor:
        """Products ``[..., out]`` of ``inputs [..., in]`` (at least one token), in their dtype; a new tensor."""
        raise NotImplementedError

    def rows(self, index: Tensor) -> Tensor:
        """Float32 rows ``[n, in]`` of the weight, in the order of storage, for ``index [n]``."""
        raise NotImplementedError

    def packed(self) -> Tensor:
        """The codes as :class:`QuantizedTensor` packs them."""
        raise NotImplementedError

    def own_tensors(self) -> dict[str, Tensor]:
        """What the layout holds, besides what the quantiser stored and is not codes."""
        raise NotImplementedError

    @property
    def quantized(self) -> QuantizedTensor:
        """The weight as its quantiser gave it: unpacked from the layout on demand, and not kept here."""
        known = self._known()
        if known is None:
            known = replace(self._rest, packed=self.packed())
            self._known = weakref.ref(known)
        return known

    @property
    def nbytes(self) -> int:
        """Bytes that are held: the layout, and scales, zeros, outliers, permutation and transform as stored."""
        return stored_bytes(self.own_tensors()) + self._rest.nbytes

    @property
    def says(self) -> str:
        """How it multiplies, for ``repr``."""
        return self.name

    def __reduce__(self) -> tuple[type[Kernel], tuple[QuantizedTensor]]:
        # Layouts differ between machines, and some torch keeps where pickle cannot see them.
        return type(self), (self.quantized,)


def row_table(values: Tensor, rows: int) -> Tensor:
    """Scales or zeros ``[rows, 1]`` (or ``[1, 1]``, of a whole tensor) as ``[rows]``."""
    return values.expand(rows, 1).reshape(rows).contiguous()


def flat(inputs: Tensor) -> Tensor:
    """``[..., in]`` as ``[tokens, in]`` without gaps, which torch's packed products need."""
    return (inputs if inputs.dim() == 2 else inputs.reshape(-1, inputs.shape[-1])).contiguous()


def like(outputs: Tensor, inputs: Tensor) -> Tensor:
    """``outputs [tokens, out]`` with the leading axes of ``inputs``, in its dtype."""
    if outputs.dtype != inputs.dtype:
        outputs = outputs.to(inputs.dtype)
    return outputs if inputs.dim() == 2 else outputs.view(*inputs.shape[:-1], outputs.shape[-1])


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which a dequantised weight is multiplied: that of the inputs, but float32 for float16."""
    return torch.float32 if dtype == torch.float16 else dtype
