"""Bytes times bytes: inputs rounded to 8 bits as they come, ``torch.ops.quantized.linear_dynamic``."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from workbench.quantizers.kernels.blocked import Blocked
from workbench.quantizers.kernels.int8_codes import refusal_of_bytes, signed_codes, unsigned_codes
from workbench.quantizers.kernels.kernel import Kernel, flat
from workbench.quantizers.packing import pack_codes, unpack_codes
from workbench.quantizers.tensor import QuantizedTensor

ENGINES = ("x86", "fbgemm")  # the others take symmetric weights only, or keep the plain ones beside the packed
TINY = torch.finfo(torch.float32).tiny
ROW_BYTES = 12  # what FBGEMM keeps of a row beside its bytes: scale, zero and sum of codes


class Int8Dynamic(Kernel):
    """Weights of one byte each in FBGEMM's layout, inputs rounded to 8 bits per token.

    torch's operation rounds all its inputs with one scale and one zero, from their least and largest entry: right
    for one token, and wrong for many where one of them has an outlier. Here every token is divided by its largest
    magnitude first and its outputs are multiplied by it after, so that the common scale is every token's own.
    An integer zero of the weights is folded in by the operation itself (it keeps the sums of its codes); a real one
    is added as ``sum(inputs) * offset``.

    ``quantize_dynamic`` of torch rounds inputs to 7 bits (``reduce_range``), because without VNNI instructions sums
    of byte products saturate; here they have 8 where the CPU has VNNI.

    Of several tokens, one with a NaN or an infinity gives NaN and leaves the others alone; of a single token torch's
    operation may overlook a NaN, and looking for it would cost a tenth of a decoding step.
    """

    name = "int8_dynamic"

    def __init__(self, quantized: QuantizedTensor):
        super().__init__(quantized)
        codes = unpack_codes(quantized.packed, self.spec.bits, self.shape[1])
        signed, scale, zero = signed_codes(quantized, codes)
        self.offset = None
        if zero is not None and self.spec.zero == "float":
            self.offset, zero = -zero * scale, None
        places = torch.zeros(self.shape[0], dtype=torch.int64) if zero is None else zero.to(torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its own quantised tensors deprecated; the operation is not
            typed = torch._make_per_channel_quantized_tensor(signed, scale.double(), places, 0)
            self._weight = torch.ops.quantized.linear_prepack(typed, None)
        self._operation = torch.ops.quantized.linear_dynamic.default
        self._narrow = not torch.cpu.get_capabilities().get("avx512_vnni", False)

    @classmethod
    def refusal(cls, quantized: QuantizedTensor) -> str:
        if quantized.device.type != "cpu":
            return "it is not on the CPU"
        if torch.backends.quantized.engine not in ENGINES:
            return f"torch.backends.quantized.engine is {torch.backends.quantized.engine!r}, not one of {ENGINES}"
        return refusal_of_bytes(quantized)

    def multiply(self, inputs: Tensor) -> Tensor:
        wide = inputs if inputs.dtype == torch.float32 else inputs.float()
        if wide.numel() == self.shape[1]:
            outputs = self._alone(wide)
        else:
            largest = wide.abs().amax(-1, keepdim=True).clamp_(min=TINY)  # of a token of zeros: 0 / TINY is 0
            # One NaN would make the operation forget the range of the tokens before it.
            if not math.isfinite(largest.sum()):
                outputs = self._usable(wide)
            else:
                outputs = self._operation(wide / largest, self._weight, self._narrow).mul_(largest)
        if self.offset is not None:
            outputs.addcmul_(wide.sum(-1, keepdim=True), self.offset)
        return outputs if outputs.dtype == inputs.dtype else outputs.to(inputs.dtype)

    def _alone(self, token: Tensor) -> Tensor:
        if token.dim() == 1:  # which the operation refuses
            return self._alone(token[None])[0]
        try:
            return self._operation(token, self._weight, self._narrow)
        except RuntimeError:
            if bool(torch.isfinite(token).all()):
                raise
            return self._usable(token)  # the operation found no range between NaN and NaN

    def _usable(self, wide: Tensor) -> Tensor:
        """The product, with NaN for all outputs of a token that has a NaN or an infinity."""
        tokens = flat(wide)
        unusable = ~torch.isfinite(tokens).all(-1, keepdim=True)
        clean = tokens.masked_fill(unusable, 0.0)
        largest = clean.abs().amax(-1, keepdim=True).clamp_(min=TINY)
        outputs = self._operation(clean / largest, self._weight, self._narrow).mul_(largest)
        return outputs.masked_fill_(unusable, torch.nan).view(*wide.shape[:-1], self.shape[0])

    def rows(self, index: Tensor) -> Tensor:
        return Blocked(self.quantized).rows(index)  # FBGEMM's layout has no rows: all of it is unpacked

    def packed(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            typed, _ = torch.ops.quantized.linear_unpack(self._weight)
            return pack_codes(unsigned_codes(typed.int_repr(), self.spec.middle), self.spec.bits)

    def own_tensors(self) -> dict[str, Tensor]:
        return {} if self.offset is None else {"offset": self.offset}

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.shape[0] * (self.shape[1] + ROW_BYTES)
