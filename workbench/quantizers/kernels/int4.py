"""Two codes in a byte, multiplied as they are: ``torch.ops.aten._weight_int4pack_mm_for_cpu``."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantizers.kernels.int4_layout import LEAST_ROWS, pack_layout, read_rows, unpack_layout
from workbench.quantizers.kernels.int4_layout import refusal as layout_refusal
from workbench.quantizers.kernels.kernel import Kernel, flat, like, working_dtype
from workbench.quantizers.packing import pack_codes, unpack_codes
from workbench.quantizers.tensor import QuantizedTensor

GROUPS = (256, 128, 64, 32)  # inputs that share a scale in torch's kernel
MIDDLE = 8  # its value is (code - 8) * scale + zero
BITS = 4
BLOCK_BYTES = 2**21  # of a dequantised block
# Tokens from which dequantised blocks multiply as fast as packed codes do (2048 x 2048). Measured: 35 against 58 ms
# at 512 tokens in bfloat16, and 117 against 103 ms at 1024 in float32, where nothing but exactness is won.
FLOAT_TOKENS = {torch.float32: 1024, torch.bfloat16: 256, torch.float16: 1024, torch.float64: 1}


class Int4(Kernel):
    """Codes of at most 4 bits in torch's layout for this CPU, with a scale and an offset per group in bfloat16.

    Inputs are rounded to bfloat16: torch's kernel has a fast form for it only. Scales and offsets in bfloat16 are the
    kernel's too, and cost a relative error of up to 2**-9 in every weight. Groups of 32, 64, 128 or 256 inputs,
    or a multiple of one of these (a whole row, say), whose scale is then repeated. Codes of 2 or 3 bits are held in 4.
    """

    name = "int4"

    def __init__(self, quantized: QuantizedTensor):
        super().__init__(quantized)
        out, width = self.shape
        self.group = kernel_group(width // quantized.scales.shape[1])
        codes = unpack_codes(quantized.packed, self.spec.bits, width)
        # Around the kernel's middle: its offset is then small, and with it the error of rounding it to bfloat16.
        self._shift = MIDDLE - self.spec.middle
        self.layout = pack_layout(codes + self._shift)
        self.tables = self._tables(quantized)
        self._padded = self.tables.shape[1] != out
        self._operation = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    @classmethod
    def refusal(cls, quantized: QuantizedTensor) -> str:
        if quantized.device.type != "cpu":
            return "it is not on the CPU"
        if quantized.spec.codebook is not None:
            return f"its codes are numbers of {quantized.spec.codebook} levels, not of equal steps"
        if quantized.spec.bits > BITS:
            return f"its codes have {quantized.spec.bits} bits"
        if quantized.axis != 1:
            return "its groups run along the outputs"
        length = quantized.shape[1] // quantized.scales.shape[1]
        if kernel_group(length) is None:
            return f"{length} inputs share a scale, which is no multiple of 32; take a group of 32, 64, 128 or 256"
        return layout_refusal()

    def multiply(self, inputs: Tensor) -> Tensor:
        tokens = flat(inputs)
        if tokens.shape[0] >= FLOAT_TOKENS[tokens.dtype]:
            return like(self._in_blocks(tokens), inputs)
        outputs = self._operation(tokens.to(torch.bfloat16), self.layout, self.group, self.tables)
        if self._padded:
            outputs = outputs[:, : self.shape[0]].contiguous()
        return like(outputs, inputs)

    def _in_blocks(self, tokens: Tensor) -> Tensor:
        """In the inputs' dtype and with the tables as stored: in float32 no more is rounded than was quantised."""
        work = tokens.to(working_dtype(tokens.dtype))
        out, width = self.shape
        outputs = work.new_empty(work.shape[0], out)
        scale, zero = (table.expand(out, -1).t() for table in (self._rest.scales, self._rest.zeros))  # [groups, out]
        step = max(LEAST_ROWS, BLOCK_BYTES // (4 * width) // LEAST_ROWS * LEAST_ROWS)
        for start in range(0, out, step):
            stop = min(start + step, out)
            values = unpack_layout(self.layout, width, start, stop).float().unflatten(0, (scale.shape[0], -1))
            values.sub_(zero[:, None, start:stop] + self._shift).mul_(scale[:, None, start:stop])
            outputs[:, start:stop] = work @ values.flatten(0, 1).to(work.dtype)
        return outputs

    def rows(self, index: Tensor) -> Tensor:
        grid_scale, zero = self._rest.scales, self._rest.zeros
        if grid_scale.shape[0] > 1:
            grid_scale, zero = grid_scale[index], zero[index]
        codes = read_rows(self.layout, self.shape[1], self.shape[0], index).unflatten(1, (grid_scale.shape[1], -1))
        return (codes.float() - (zero[..., None] + self._shift)).mul_(grid_scale[..., None]).flatten(1)

    def packed(self) -> Tensor:
        codes = torch.empty(self.shape, dtype=torch.uint8)
        step = LEAST_ROWS * 16
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            codes[start:stop] = unpack_layout(self.layout, self.shape[1], start, stop).t() - self._shift
        return pack_codes(codes, self.spec.bits)

    def own_tensors(self) -> dict[str, Tensor]:
        return {"layout": self.layout, "tables": self.tables}

    def _tables(self, quantized: QuantizedTensor) -> Tensor:
        """Scales and offsets ``[groups, out, 2]``, rows filled up to the kernel's least number."""
        out, width = self.shape
        scale, zero = quantized.scales, quantized.zeros
        offset = scale * (self.spec.middle - zero)
        pairs = torch.stack([scale, offset], -1).expand(out, -1, -1).transpose(0, 1)  # [groups, out, 2]
        pairs = pairs.repeat_interleave(width // self.group // pairs.shape[0], dim=0)
        filled = torch.nn.functional.pad(pairs, (0, 0, 0, -out % LEAST_ROWS))
        return filled.to(torch.bfloat16).contiguous()

    @property
    def says(self) -> str:
        return f"{self.name} (dequantised from {FLOAT_TOKENS[torch.float32]} float32 tokens on)"


def kernel_group(length: int) -> int | None:
    """The largest group of torch's kernel that divides a group of ``length`` inputs; None where none does."""
    return next((size for size in GROUPS if length % size == 0), None)
