"""Bytes of weights, inputs in floating point: ``torch._weight_int8pack_mm`` for few tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.quantizers.kernels.int8_codes import refusal_of_bytes, signed_codes, unsigned_codes
from workbench.quantizers.kernels.kernel import Kernel, flat, like, working_dtype
from workbench.quantizers.packing import pack_codes, unpack_codes
from workbench.quantizers.tensor import QuantizedTensor

BLOCK_BYTES = 2**20  # of codes turned into floats at a time
# Tokens from which floats made of the codes multiply as fast as the bytes do (2048 x 2048, one thread).
FLOAT_TOKENS = {torch.float32: 96, torch.bfloat16: 16, torch.float16: 96, torch.float64: 1}


class Int8Weight(Kernel):
    """One signed byte per weight; few tokens go through torch's kernel in bfloat16, many through float blocks.

    torch's kernel has a fast form for bfloat16 inputs only (with float32 it is a reference loop, a hundred times
    slower): float32 inputs are rounded to bfloat16 (relative 2**-9) for it. Its scales are set to 1 and the real
    ones multiplied after in float32: rounded to bfloat16 they would bias a whole row. Many tokens are multiplied in
    the inputs' own dtype, in which bytes are exact. Codes of fewer bits are held in 8.
    """

    name = "int8_weight"

    def __init__(self, quantized: QuantizedTensor):
        super().__init__(quantized)
        codes = unpack_codes(quantized.packed, self.spec.bits, self.shape[1])
        self.signed, self.scale, zero = signed_codes(quantized, codes)
        self.offset = None if zero is None else -zero * self.scale
        self._ones = torch.ones(1, dtype=torch.bfloat16).expand(self.shape[0]).contiguous()
        self._operation = torch.ops.aten._weight_int8pack_mm.default

    @classmethod
    def refusal(cls, quantized: QuantizedTensor) -> str:
        if quantized.device.type != "cpu":
            return "it is not on the CPU"
        return refusal_of_bytes(quantized)

    def multiply(self, inputs: Tensor) -> Tensor:
        tokens = flat(inputs)
        if tokens.shape[0] >= FLOAT_TOKENS[tokens.dtype]:
            return like(self._in_blocks(tokens), inputs)
        narrow = tokens.to(torch.bfloat16)
        outputs = self._operation(narrow, self.signed, self._ones) * self.scale
        if self.offset is not None:
            outputs.addcmul_(narrow.float().sum(1, keepdim=True), self.offset)
        return like(outputs, inputs)

    def _in_blocks(self, tokens: Tensor) -> Tensor:
        work = tokens.to(working_dtype(tokens.dtype))
        outputs = work.new_empty(work.shape[0], self.shape[0])
        step = max(1, BLOCK_BYTES // self.shape[1])
        for start in range(0, self.shape[0], step):
            block = slice(start, start + step)
            outputs[:, block] = F.linear(work, self.signed[block].to(work.dtype))
        outputs = outputs * self.scale  # in float32 of bfloat16 inputs
        if self.offset is not None:
            outputs += work.to(outputs.dtype).sum(1, keepdim=True) * self.offset
        return outputs

    def rows(self, index: Tensor) -> Tensor:
        values = self.signed[index].float().mul_(self.scale[index, None])
        return values if self.offset is None else values.add_(self.offset[index, None])

    def packed(self) -> Tensor:
        return pack_codes(unsigned_codes(self.signed, self.spec.middle), self.spec.bits)

    def own_tensors(self) -> dict[str, Tensor]:
        own = {"signed": self.signed, "scale": self.scale, "ones": self._ones}
        return own if self.offset is None else own | {"offset": self.offset}

    @property
    def says(self) -> str:
        return f"{self.name} (float blocks from {FLOAT_TOKENS[torch.float32]} float32 tokens on)"
