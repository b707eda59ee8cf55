"""AWQ: columns with large inputs are scaled up before rounding, by what lowers the error of the real outputs most."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from workbench.quantizers.grid import check_weight, fit_grid
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputScale

SMALLEST = 1e-4  # of a scale before it is normalised (the released code)
CLIP_STEPS, CLIP_PART = 20, 0.5  # the range is shrunk by i/20 while that is below a half (the released code)


def quantize_awq(
    weight: Tensor, inputs: Tensor, spec: QuantSpec, *, grid: int = 20, clip: bool = True, layer: str = ""
) -> QuantizedTensor:
    """``weight * s`` rounded to nearest, its inputs divided by ``s``: the best of a few ``s`` (Lin et al. 2024).

    ``s = mean|x|**e`` per input, divided by the geometric mean of its extremes, for ``e = i / grid``; ``e = 0`` is
    plain rounding. The one with the least mean squared error of the outputs on ``inputs`` is taken. After it, with
    ``clip``, the range of every group is shrunk to where the error of that group's part of the outputs is least.

    Args:
        weight: ``[out, in]``.
        inputs: ``[..., in]``, what the layer saw in a calibration run.
        spec: a uniform grid, in the paper of 4 bits, groups of 128, asymmetric.
        grid: how many exponents are tried.
        clip: search the ranges of groups too.
        layer: name that errors are told with.

    Raises:
        TypeError, ValueError: no finite matrix, no inputs, inputs of another width or not finite, a group that does
            not divide.
    """
    weight = check_weight(weight, layer)
    seen = _check_inputs(inputs, weight.shape[1], layer)
    if isinstance(grid, bool) or not isinstance(grid, int) or grid < 1:
        raise ValueError(f"grid={grid!r} must be a whole number of exponents, 1 or above.")
    if clip and (spec.group_size == "tensor" or spec.clip != "minmax"):
        raise ValueError(
            f"{layer or 'weight'}: clip=True searches the range of every group itself, got {spec.label}: "
            "take groups or rows with clip='minmax' in the spec, or clip=False here."
        )
    scale = _best_scale(weight, seen, spec, grid, layer)
    transform = InputScale(scale)
    scaled = transform.apply_to_weight(weight)
    if clip:
        scaled = _clipped(scaled, transform.apply_to_inputs(seen), spec, layer)
    fitted = fit_grid(scaled, spec, layer=layer)
    return QuantizedTensor.from_codes(fitted.encode(scaled), fitted, method="awq", transform=transform)


def _best_scale(weight: Tensor, inputs: Tensor, spec: QuantSpec, grid: int, layer: str) -> Tensor:
    typical = inputs.abs().mean(0)
    gram = _gram(inputs) if len(inputs) > inputs.shape[1] else None
    best, least = torch.ones_like(typical), torch.inf
    for step in range(grid):
        scale = typical.pow(step / grid).clamp(min=SMALLEST)
        scale = scale / (scale.max() * scale.min()).sqrt()
        rounded = fit_grid(weight * scale, spec, layer=layer).round(weight * scale) / scale
        error = _output_error(rounded.sub_(weight), inputs, gram)
        if error < least:
            best, least = scale, error
    return best


def _output_error(difference: Tensor, inputs: Tensor, gram: Tensor | None) -> float:
    """Mean squared error of the outputs for a weight that is off by ``difference [out, in]``."""
    if gram is None:
        return float((inputs @ difference.t()).square_().mean())
    # The sum over tokens of (difference @ x)**2, of which only the products of inputs are needed.
    return float(((difference @ gram) * difference).sum()) / len(difference)


def _gram(inputs: Tensor) -> Tensor:
    return inputs.t() @ inputs / len(inputs)


def _clipped(weight: Tensor, inputs: Tensor, spec: QuantSpec, layer: str) -> Tensor:
    """``weight`` with every group cut to the range that is best for its part of the outputs."""
    columns = weight.shape[1]
    length = spec.group_length(columns, layer)
    one_group = replace(spec, group_size=None)
    result = torch.empty_like(weight)
    for start in range(0, columns, length):
        part = weight[:, start : start + length]
        gram = _gram(inputs[:, start : start + length])
        result[:, start : start + length] = _best_range(part, gram, one_group, layer)
    return result


def _best_range(part: Tensor, gram: Tensor, spec: QuantSpec, layer: str) -> Tensor:
    """One group of all rows ``[rows, length]``, cut where that lowers ``error @ gram @ error`` of the row."""
    largest = part.abs().amax(-1, keepdim=True)
    best, least = part, None
    for step in range(int(CLIP_PART * CLIP_STEPS)):
        limit = largest * (1 - step / CLIP_STEPS)
        cut = torch.minimum(torch.maximum(part, -limit), limit)
        difference = fit_grid(cut, spec, layer=layer).round(cut).sub_(part)
        error = ((difference @ gram) * difference).sum(-1, keepdim=True)
        if least is None:
            least = error
            continue
        better = error < least
        best, least = torch.where(better, cut, best), torch.where(better, error, least)
    return best


def _check_inputs(inputs: Tensor, width: int, layer: str) -> Tensor:
    name = layer or "weight"
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"{name}: inputs must be a floating tensor [tokens, in], got {_kind(inputs)}.")
    if inputs.shape[-1:] != (width,):
        raise ValueError(f"{name}: inputs have shape {tuple(inputs.shape)}, expected [tokens, {width}].")
    seen = inputs.detach().reshape(-1, width).float()
    if not len(seen):
        raise ValueError(f"{name}: no inputs were given; run the model on some calibration text first.")
    if bad := int((~torch.isfinite(seen)).any(-1).sum()):
        raise ValueError(
            f"{name}: {bad} of {len(seen)} inputs have NaN or infinite entries: take other calibration text, "
            "or run the model in float32."
        )
    return seen


def _kind(value: object) -> str:
    return str(getattr(value, "dtype", type(value).__name__))
