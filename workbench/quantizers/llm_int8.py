"""LLM.int8(): inputs of large magnitude are multiplied in floating point, all others in 8 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from workbench.quantizers.grid import Grid, check_weight
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor

LARGEST = 127  # of a code; -128 is not used, so that the codes of x and -x mirror each other
EIGHT_BITS = QuantSpec(8, symmetric=True)


def llm_int8_linear(
    inputs: Tensor, weight: Tensor, *, threshold: float = 6.0, bias: Tensor | None = None, layer: str = ""
) -> Tensor:
    """``inputs @ weight.T`` in mixed precision (Dettmers et al. 2022, LLM.int8()).

    A column of ``inputs`` with any magnitude of ``threshold`` or more is multiplied in float32 by the dequantised
    column of the weight. All others meet in 8 bits: every row of the inputs in parts of its largest magnitude / 127,
    every output's weights likewise, with sums in int32. The paper leaves whole outlier columns out of a row's largest
    magnitude; here, as in bitsandbytes, only the outliers themselves are, so a small number of an outlier column may
    still set the scale.

    Args:
        inputs: ``[..., in]``, any floating dtype; the result has it too, and float32 is used in between.
        weight: ``[out, in]``; for one that is used again, :class:`LLMInt8Linear` keeps the codes.
        threshold: magnitude of an outlier; 0 means none is, everything is rounded.
        bias: ``[out]``.
        layer: name that errors are told with.

    Returns:
        ``[..., out]``, without a gradient: rounding has none. A row that holds a NaN becomes NaN; no rows give no rows.

    Raises:
        TypeError, ValueError: as ``check_weight``; inputs that are no floating tensor or of another width; a
            threshold below 0.
    """
    quantized = quantize_llm_int8(weight, layer=layer)
    scale = quantized.scales[:, 0]
    return _multiply(inputs, _signed(quantized.codes), scale, check_threshold(threshold), bias, layer)


def quantize_llm_int8(weight: Tensor, spec: QuantSpec = EIGHT_BITS, *, layer: str = "") -> QuantizedTensor:
    """``weight [out, in]`` in 8 bits with ``scale = max|w| / 127`` per output; codes are those of bitsandbytes + 128.

    The symmetric grid of ``quantize_rtn`` differs by its ``2 max|w| / 255``.

    Raises:
        TypeError, ValueError: as ``check_weight``, or a spec that is not 8 bits, symmetric, one scale per output.
    """
    if spec != EIGHT_BITS:
        raise ValueError(f"{layer or 'weight'}: LLM.int8() is defined for {EIGHT_BITS.label}, got {spec.label}.")
    weight = check_weight(weight, layer)
    largest = weight.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)  # a row of zeros gets zeros at any scale
    codes = torch.round(weight * (LARGEST / largest)).add_(spec.middle).to(torch.uint8)
    scale = (largest / LARGEST)[..., None]
    return QuantizedTensor.from_codes(codes, Grid(scale, torch.full_like(scale, spec.middle), spec), method="llm_int8")


class LLMInt8Linear(nn.Module):
    """A linear layer that runs :func:`llm_int8_linear` on codes it keeps; its float weight is let go.

    Args:
        quantized: 8 bits, symmetric, one scale per output or one for all.
        bias: ``[out]`` or None.
        threshold: magnitude of an outlier; 0 for none.

    Raises:
        ValueError: a quantised weight of another kind, a threshold below 0.
    """

    def __init__(self, quantized: QuantizedTensor, bias: Tensor | None = None, *, threshold: float = 6.0):
        super().__init__()
        _check_kind(quantized)
        self.out_features, self.in_features = quantized.shape
        self.threshold = check_threshold(threshold)
        self.method = quantized.method
        # Signed, as the product wants them; `quantized` is made of them when it is asked for, not kept beside them.
        self._codes = _signed(quantized.codes)
        self._scales = quantized.scales
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, quantized: QuantizedTensor | None = None, *, threshold: float = 6.0, layer: str = ""
    ) -> LLMInt8Linear:
        """The layer with the weight of ``linear``, or with ``quantized`` in its place, and the bias of ``linear``."""
        quantized = quantize_llm_int8(linear.weight, layer=layer) if quantized is None else quantized
        return cls(quantized, linear.bias, threshold=threshold)

    @property
    def quantized(self) -> QuantizedTensor:
        """The weight as it is stored."""
        scale = self._scales[..., None]
        grid = Grid(scale, torch.full_like(scale, EIGHT_BITS.middle), EIGHT_BITS)
        codes = (self._codes.to(torch.int16) + EIGHT_BITS.middle).to(torch.uint8)
        return QuantizedTensor.from_codes(codes, grid, method=self.method)

    def forward(self, inputs: Tensor) -> Tensor:
        scale = self._scales[:, 0].expand(self.out_features)
        return _multiply(inputs, self._codes, scale, self.threshold, self.bias, "")

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, threshold={self.threshold:g}, bias={self.bias is not None}"


def outlier_columns(inputs: Tensor, *, threshold: float = 6.0) -> Tensor:
    """Bool ``[in]``: columns of ``inputs [..., in]`` with a magnitude of ``threshold`` or more; none at threshold 0."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    if check_threshold(threshold) == 0:
        return torch.zeros(flat.shape[1], dtype=torch.bool)
    return (flat.abs() >= threshold).any(0)


def quantize_rows(inputs: Tensor, *, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Signed 8-bit codes ``[rows, in]`` of float32 ``inputs``, and each row's largest magnitude ``[rows, 1]``.

    Outliers do not count for the magnitude; their whole columns have the code 0. A row of zeros has codes 0.
    """
    counted = inputs
    columns = outlier_columns(inputs, threshold=threshold)
    if columns.any():
        counted = inputs.masked_fill(inputs.abs() >= threshold, 0.0)
    largest = counted.abs().amax(1, keepdim=True) if inputs.shape[1] else inputs.new_zeros(len(inputs), 1)
    codes = torch.round(counted * (LARGEST / largest.clamp(min=torch.finfo(torch.float32).tiny)))
    codes = codes.nan_to_num_(nan=0.0).clamp_(-LARGEST, LARGEST).to(torch.int8)  # the magnitude carries the NaN on
    codes[:, columns] = 0
    return codes, largest


def int8_product(first: Tensor, second: Tensor) -> Tensor:
    """``first [rows, in] @ second [out, in].T`` of int8, summed in int32."""
    if first.shape[1] == 1:
        # torch 2.13 mistakes the stride of a transposed vector here and returns wrong numbers.
        return first.to(torch.int32) * second.to(torch.int32).t()
    return torch._int_mm(first.contiguous(), second.t())


def check_threshold(threshold: float) -> float:
    """``threshold`` if it is a number, 0 or above; raises ``ValueError`` otherwise."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
        raise ValueError(f"threshold={threshold!r} must be a finite number, 0 (no outliers) or above.")
    return float(threshold)


def _multiply(
    inputs: Tensor, codes: Tensor, scale: Tensor, threshold: float, bias: Tensor | None, layer: str
) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = getattr(inputs, "dtype", type(inputs).__name__)
        raise TypeError(f"{layer or 'inputs'}: expected a floating tensor [..., in], got {kind}.")
    if inputs.shape[-1:] != codes.shape[1:]:
        raise ValueError(
            f"{layer or 'inputs'}: shape {tuple(inputs.shape)} does not end in the weight's {codes.shape[1]} inputs."
        )
    flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
    rounded, largest = quantize_rows(flat, threshold=threshold)
    output = int8_product(rounded, codes).float().mul_(largest / LARGEST).mul_(scale)
    columns = outlier_columns(flat, threshold=threshold).nonzero()[:, 0]
    if columns.numel():
        output.addmm_(flat[:, columns], (codes[:, columns].float() * scale[:, None]).t())
    if bias is not None:
        output += bias
    return output.to(inputs.dtype).reshape(*inputs.shape[:-1], codes.shape[0])


def _signed(codes: Tensor) -> Tensor:
    return (codes.to(torch.int16) - EIGHT_BITS.middle).to(torch.int8).contiguous()


def _check_kind(quantized: QuantizedTensor) -> None:
    spec = quantized.spec
    plain = quantized.outliers is None and quantized.transform is None and quantized.axis == 1
    if spec.bits != EIGHT_BITS.bits or not spec.symmetric or quantized.scales.shape[1] != 1 or not plain:
        raise ValueError(
            f"LLM.int8() multiplies weights of 8 bits, symmetric, with one scale per output and inputs as they are; "
            f"got {spec.label}: make one with quantize_llm_int8."
        )
