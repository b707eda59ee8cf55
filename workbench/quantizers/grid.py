"""The grid of a weight: fitted once, and the only place where values become codes and codes values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.quantizers.codebooks import SMALLEST, codebook_levels, nearest_code
from workbench.quantizers.lookup import look_up
from workbench.quantizers.spec import QuantSpec

CLIP_STEPS, CLIP_LEAST, CLIP_POWER = 100, 0.2, 2.4  # shrinks of the range that are tried (the code of GPTQ)
STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CHECKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Grid:
    """Levels that the weights of each group are rounded to.

    ``scale`` and ``zero`` are float32 ``[rows, groups, 1]`` (``[1, 1, 1]`` of a whole tensor) and have the values
    that storage keeps; ``zero`` is None for a codebook.
    """

    scale: Tensor
    zero: Tensor | None
    spec: QuantSpec

    def encode(self, values: Tensor) -> Tensor:
        """Codes (uint8) of ``values [rows, columns]``."""
        grouped = values.unflatten(1, (self.scale.shape[1], -1))
        return encode(grouped, self.scale, self.zero, self.spec).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Float32 values of ``codes [rows, columns]``."""
        grouped = codes.unflatten(1, (self.scale.shape[1], -1))
        return decode(grouped, self.scale, self.zero, self.spec).flatten(1)

    def decode_packed(self, packed: Tensor, columns: int) -> Tensor:
        """:meth:`decode` of packed codes ``[rows, bytes]``, without unpacking them first."""
        values = look_up(packed, self.spec.bits, columns, self.spec.codebook).unflatten(1, (self.scale.shape[1], -1))
        if self.zero is not None:
            values.sub_(self.zero)
        return values.mul_(self.scale).flatten(1)

    def round(self, values: Tensor) -> Tensor:
        """The nearest values of the grid."""
        return self.decode(self.encode(values))

    def per_column(self, rows: int, columns: int) -> tuple[Tensor, Tensor | None]:
        """Scale and zero of every weight, ``[rows, columns]``."""
        length = columns // self.scale.shape[1]

        def wide(values: Tensor) -> Tensor:
            return values.expand(rows, -1, length).flatten(1)

        return wide(self.scale), None if self.zero is None else wide(self.zero)

    def rows(self, start: int, stop: int) -> Grid:
        """The grid of some rows."""
        if self.scale.shape[0] == 1:
            return self
        return replace(self, scale=self.scale[start:stop], zero=None if self.zero is None else self.zero[start:stop])


def encode(values: Tensor, scale: Tensor, zero: Tensor | None, spec: QuantSpec) -> Tensor:
    """Codes (uint8) of ``values``; ``scale`` and ``zero`` broadcast against them."""
    if spec.codebook is not None:
        return nearest_code((values * (1.0 / scale)).clamp_(-1, 1), spec.codebook)
    steps = values / scale
    codes = steps.add_(zero).round_() if spec.zero == "float" else steps.round_().add_(zero)
    return codes.clamp_(0, spec.levels - 1).to(torch.uint8)


def decode(codes: Tensor, scale: Tensor, zero: Tensor | None, spec: QuantSpec) -> Tensor:
    """Float32 values of ``codes``; ``scale`` and ``zero`` broadcast against them."""
    if spec.codebook is not None:
        return codebook_levels(spec.codebook, codes.device)[codes.long()].mul_(scale)
    return (codes.float() - zero).mul_(scale)


def fit_grid(
    weight: Tensor,
    spec: QuantSpec,
    *,
    layer: str = "",
    counted: Tensor | None = None,
) -> Grid:
    """The grid of ``weight [rows, columns]`` under ``spec``.

    Args:
        layer: name that errors are told with.
        counted: bool ``[rows, columns]``, the weights whose range counts (SpQR leaves outliers out); None, all.

    Raises:
        TypeError, ValueError: as :func:`check_weight`; the group does not divide the inputs; a scale or zero is
            beyond ``spec.scale_dtype``.
    """
    weight = check_weight(weight, layer)
    rows, columns = weight.shape
    length = spec.group_length(columns, layer)
    shape = (1, 1, -1) if spec.group_size == "tensor" else (rows, columns // length, length)
    grouped = weight.reshape(shape)
    marked = None if counted is None else counted.reshape(shape)
    low, high = _range(grouped, marked)
    if spec.codebook is not None:
        largest = torch.maximum(-low, high).clamp_(min=SMALLEST)
        return Grid(as_stored(largest, spec, "scale", layer), None, spec)
    if spec.zero == "integer":
        low, high = low.clamp(max=0), high.clamp(min=0)
    if spec.clip == "mse":
        return _least_error(grouped, marked, low, high, spec, layer)
    return _between(low, high, spec, layer)


def check_weight(weight: Tensor, layer: str = "") -> Tensor:
    """``weight`` in float32, or an error that names the layer.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not a matrix, without outputs or inputs, or with NaN or infinite entries.
    """
    name = layer or "weight"
    if not isinstance(weight, Tensor) or weight.dtype not in CHECKED:
        kind = getattr(weight, "dtype", type(weight).__name__)
        raise TypeError(f"{name}: expected a floating matrix [out, in], got {kind}.")
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(f"{name}: expected a matrix [out, in] with entries, got shape {tuple(weight.shape)}.")
    weight = weight.detach().float()
    # One sum tells in nearly all cases; only one that is not finite asks for each entry.
    bad = 0 if math.isfinite(weight.sum()) else weight.numel() - int(torch.isfinite(weight).sum())
    if bad:
        raise ValueError(
            f"{name}: {bad} of {weight.numel()} weights are NaN or infinite: repair the checkpoint, "
            "or leave this layer as it is (None in the recipe)."
        )
    return weight


def _range(grouped: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group ``[rows, groups, 1]``; 0 and 0 where none counts."""
    if counted is None:
        low, high = grouped.aminmax(dim=-1, keepdim=True)
        return low, high
    none = ~counted.any(-1, keepdim=True)
    low = grouped.masked_fill(~counted, torch.inf).amin(-1, keepdim=True).masked_fill_(none, 0.0)
    high = grouped.masked_fill(~counted, -torch.inf).amax(-1, keepdim=True).masked_fill_(none, 0.0)
    return low, high


def _between(low: Tensor, high: Tensor, spec: QuantSpec, layer: str) -> Grid:
    """The grid whose first level is at ``low`` and whose last is at ``high``, as it is stored."""
    top = spec.levels - 1
    if spec.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    if spec.zero == "float":
        # A constant group has no range: its value becomes level 0 exactly, whatever the bits.
        constant = high == low
        value = low.abs()
        scale = torch.where(constant, torch.where(value > 0, value, 1.0), (high - low) / top)
    else:
        empty = (low == 0) & (high == 0)
        low, high = low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)
        scale = (high - low) / top
    scale = as_stored(scale, spec, "scale", layer)
    if spec.symmetric:
        return Grid(scale, torch.full_like(scale, spec.middle), spec)
    zero = -low / scale
    if spec.zero == "float":
        return Grid(scale, as_stored(zero, spec, "zero", layer), spec)
    # A scale that storage made larger or smaller may push the zero out of the codes by one.
    return Grid(scale, zero.round_().clamp_(0, top), spec)


def _least_error(
    grouped: Tensor, counted: Tensor | None, low: Tensor, high: Tensor, spec: QuantSpec, layer: str
) -> Grid:
    """The shrunk range with the least sum of ``|error|**2.4`` in each group; at a tie the widest."""
    best, least = _between(low, high, spec, layer), None
    for step in range(round((1 - CLIP_LEAST) * CLIP_STEPS)):
        part = 1 - step / CLIP_STEPS
        tried = _between(part * low, part * high, spec, layer)
        values = decode(encode(grouped, tried.scale, tried.zero, spec), tried.scale, tried.zero, spec)
        error = values.sub_(grouped).abs_().pow_(CLIP_POWER)
        if counted is not None:
            error *= counted
        error = error.sum(-1, keepdim=True)
        if least is None:
            best, least = tried, error
            continue
        better = error < least
        least = torch.where(better, error, least)
        best = Grid(torch.where(better, tried.scale, best.scale), torch.where(better, tried.zero, best.zero), spec)
    return best


def as_stored(values: Tensor, spec: QuantSpec, what: str, layer: str) -> Tensor:
    """``values`` rounded to what ``spec.scale_dtype`` can hold, in float32; ``what`` is ``scale`` or ``zero``.

    Raises:
        ValueError: one is beyond that type; names the layer.
    """
    kind = STORED[spec.scale_dtype]
    if kind == torch.float32:
        return values
    stored = values.to(kind).float()
    beyond = int((~torch.isfinite(stored)).sum())
    if beyond:
        raise ValueError(
            f"{layer or 'weight'}: {beyond} groups have a {what} beyond {spec.scale_dtype} (largest magnitude "
            f"{float(values.abs().max()):.3g}): store them with scale_dtype='float32'."
        )
    if what == "scale":
        # A scale that vanished would divide by zero; the least one there is rounds such a group to about 0.
        stored.clamp_(min=float(torch.finfo(kind).smallest_normal) if kind == torch.bfloat16 else 2.0**-24)
    return stored
