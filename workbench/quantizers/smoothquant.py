"""SmoothQuant: part of the inputs' outliers moved into the weight, so that both can be rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import check_between
from workbench.quantizers.grid import check_weight, fit_grid
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputScale

SMALLEST = 1e-5  # of a weight's column and of a scale (the released code)
EIGHT_BITS = QuantSpec(8, symmetric=True)


def smoothquant_scales(
    input_absmax: Tensor, weight: Tensor | Sequence[Tensor], *, alpha: float = 0.5, layer: str = ""
) -> Tensor:
    """What each input is divided by and its weights are multiplied with: ``max|x|**alpha / max|w|**(1 - alpha)``.

    Args:
        input_absmax: ``[in]``, the largest magnitude of each input over the calibration tokens.
        weight: ``[out, in]``, or all weights that read the same inputs: they get one scale together.
        alpha: from 0 (all of the weight's own range is evened out) to 1 (all of the inputs').

    Returns:
        ``[in]`` float32, at least 1e-5 (Xiao et al. 2023, equation 4; limits from the released code). An input that
        was never seen above 0 is left alone.

    Raises:
        TypeError, ValueError: no finite matrix, magnitudes that do not fit it, are negative or not finite.
    """
    check_between(0.0, 1.0, alpha=alpha)
    weights = [check_weight(one, layer) for one in ([weight] if isinstance(weight, Tensor) else weight)]
    if not weights:
        raise ValueError(f"{layer or 'weight'}: expected one weight or more, got none.")
    largest = _check_absmax(input_absmax, weights[0].shape[1], layer)
    if any(one.shape[1] != weights[0].shape[1] for one in weights):
        widths = [one.shape[1] for one in weights]
        raise ValueError(f"{layer or 'weight'}: weights of the same inputs must be equally wide, got {widths}.")
    columns = torch.stack([one.abs().amax(0) for one in weights]).amax(0).clamp(min=SMALLEST)
    scales = (largest.pow(alpha) / columns.pow(1 - alpha)).clamp(min=SMALLEST)
    return torch.where(largest > 0, scales, 1.0)


def quantize_smoothquant(
    weight: Tensor,
    input_absmax: Tensor,
    spec: QuantSpec = EIGHT_BITS,
    *,
    alpha: float = 0.5,
    scales: Tensor | None = None,
    layer: str = "",
) -> QuantizedTensor:
    """``weight [out, in]`` times :func:`smoothquant_scales`, rounded to nearest; its inputs are divided by them.

    Meant for products with inputs of 8 bits, one scale per token (kernel ``int8_dynamic``).

    Args:
        input_absmax: ``[in]`` as for :func:`smoothquant_scales`.
        spec: 8 bits, symmetric, one scale per output by default.
        alpha: as for :func:`smoothquant_scales`.
        scales: ``[in]``, those found for several weights together; None finds them for this one.

    Raises:
        TypeError, ValueError: as :func:`smoothquant_scales` and ``quantize_rtn``.
    """
    weight = check_weight(weight, layer)
    if scales is None:
        scales = smoothquant_scales(input_absmax, weight, alpha=alpha, layer=layer)
    elif scales.shape != weight.shape[1:]:
        raise ValueError(
            f"{layer or 'weight'}: scales have shape {tuple(scales.shape)}, expected {tuple(weight.shape[1:])}."
        )
    transform = InputScale(scales)
    smoothed = transform.apply_to_weight(weight)
    grid = fit_grid(smoothed, spec, layer=layer)
    return QuantizedTensor.from_codes(grid.encode(smoothed), grid, method="smoothquant", transform=transform)


def _check_absmax(input_absmax: Tensor, width: int, layer: str) -> Tensor:
    name = layer or "weight"
    if not isinstance(input_absmax, Tensor) or not input_absmax.is_floating_point():
        kind = getattr(input_absmax, "dtype", type(input_absmax).__name__)
        raise TypeError(f"{name}: input_absmax must be a floating vector [in], got {kind}.")
    if input_absmax.shape != (width,):
        raise ValueError(f"{name}: input_absmax has shape {tuple(input_absmax.shape)}, expected ({width},).")
    largest = input_absmax.detach().float()
    if not bool((torch.isfinite(largest) & (largest >= 0)).all()):
        raise ValueError(
            f"{name}: input_absmax has NaN, infinite or negative entries: the calibration run met inputs that are "
            "no numbers, or it saw none; take other calibration text."
        )
    return largest
