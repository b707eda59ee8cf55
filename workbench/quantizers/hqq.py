"""HQQ: zero points that make a sparse error of the weights small, found without data in a few half-quadratic steps."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from workbench.errors import check_between, check_positive
from workbench.quantizers.grid import STORED, Grid, check_weight
from workbench.quantizers.layout import grouped_along_outputs
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor

FLAT = 1e-4  # a group whose range is below keeps one level, its own value (the code of HQQ)
FINEST = 2e4  # levels per unit of weight at most, which half precision can hold (the code of HQQ)
ROUNDED_BITS = 4  # where the first zero is rounded to a whole number (the code of HQQ)


def quantize_hqq(
    weight: Tensor,
    spec: QuantSpec,
    *,
    iterations: int = 20,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    axis: int = 1,
    round_zero: bool | None = None,
    layer: str = "",
) -> QuantizedTensor:
    r"""Minimise the sum of ``|W - W^|**p`` over the zeros; scales stay the min-max ones (Badri & Shaji 2023).

    In turn: the error ``E = W - W^`` is shrunk, :math:`E_e = \mathrm{sign}(E)\,\max(|E| - |E|^{p-1}/\beta, 0)`; each
    zero becomes the mean of ``code - (W - E_e) / scale`` over its group; :math:`\beta` grows by ``kappa``. It ends at
    the first step that did not lower the mean error of the whole matrix. Zeros are real numbers, whatever ``spec.zero``
    says: the result's spec has ``zero="float"``.

    The package ``hqq`` 0.2.8 has ``kappa`` among its options and leaves :math:`\beta` as it is: ``kappa=1`` gives its
    numbers. The two differ where an error is above ``beta**(-1 / (2 - p))``, 0.17 by default: nowhere for weights
    around 0.02, in up to 0.4 % of the codes for those of SmolLM2-135M (around 0.2) at 2 bits, in none at 4.

    Args:
        weight: ``[out, in]``.
        spec: uniform and asymmetric; ``group_size`` along ``axis``.
        iterations: at most so many steps; 0 leaves the min-max grid.
        p: norm of the error, in (0, 1].
        beta: weight of the quadratic term at first.
        kappa: growth of ``beta`` per step, at least 1.
        axis: 1 groups inputs of one output, 0 outputs of one input (of a weight in ``group_size`` slices of outputs,
            those at equal places, as in the package).
        round_zero: round the zero that the steps start from; None does at 4 bits, as the package's configuration.
        layer: name that errors are told with.

    Raises:
        TypeError, ValueError: as ``check_weight``; a symmetric grid, a codebook or a clip; a group that does not
            divide; a scale or zero beyond ``spec.scale_dtype``.
    """
    weight = check_weight(weight, layer)
    _check(spec, iterations, p, beta, kappa, axis)
    spec = replace(spec, zero="float")
    grouped, group_axis = _in_groups(weight, spec, axis, layer)
    inverse, zero = _first_grid(grouped, group_axis, spec.levels - 1)
    if spec.bits == ROUNDED_BITS if round_zero is None else round_zero:
        zero = zero.round()
    limits = {"iterations": iterations, "p": p, "beta": beta, "kappa": kappa}
    zero = _half_quadratic(grouped, group_axis, inverse, zero, spec.levels - 1, **limits)
    scale, zero = _stored(1.0 / inverse, spec, "scale", layer), _stored(zero, spec, "zero", layer)
    if spec.scale_dtype != "float32":
        inverse = 1.0 / scale  # codes belong to the grid as it is stored
    codes = _codes(grouped, inverse, zero, spec.levels - 1).to(torch.uint8)
    if axis == 1:
        return QuantizedTensor.from_codes(codes.flatten(1), Grid(scale, zero, spec), method="hqq")
    # Stored with the groups along the columns of another matrix, as layout.py says.
    codes, scale, zero = (values.permute(1, 2, 0) for values in (codes, scale, zero))
    grid = Grid(scale.contiguous(), zero.contiguous(), spec)
    return QuantizedTensor.from_codes(codes.flatten(1), grid, method="hqq", shape=tuple(weight.shape))


def _in_groups(weight: Tensor, spec: QuantSpec, axis: int, layer: str) -> tuple[Tensor, int]:
    """The weight in three axes, and which of them holds a group; in the package's order, so that sums round alike."""
    rows, columns = weight.shape
    if axis == 1:
        return weight.view(rows, -1, spec.group_length(columns, layer)), 2
    length = rows // grouped_along_outputs(weight, spec, layer).shape[0]
    return weight.view(length, -1, columns), 0


def _first_grid(grouped: Tensor, axis: int, top: int) -> tuple[Tensor, Tensor]:
    """Levels per unit of weight, and zeros, of the groups' ranges."""
    low, high = grouped.aminmax(dim=axis, keepdim=True)
    width = high - low
    # The package works with the inverse of the scale, and so does this: a product rounds otherwise than a quotient.
    inverse = torch.where(width <= FLAT, 1.0, top / width).clamp(max=FINEST)
    return inverse, -low * inverse


def _half_quadratic(
    grouped: Tensor, axis: int, inverse: Tensor, zero: Tensor, top: int,
    *, iterations: int, p: float, beta: float, kappa: float,
) -> Tensor:  # fmt: skip
    """Zeros after so many steps, or after the first that did not help: its zeros are kept, as in the package."""
    least = math.inf
    for _ in range(iterations):
        codes = _codes(grouped, inverse, zero, top)
        error = grouped - (codes - zero) / inverse
        size = error.abs()
        mean = float(size.mean())
        shrunk = torch.sign(error) * (size - size.pow(p - 1) / beta).clamp_(min=0)
        zero = torch.mean(codes - (grouped - shrunk) * inverse, dim=axis, keepdim=True)
        if mean >= least:
            break
        least = mean
        beta *= kappa
    return zero


def _codes(grouped: Tensor, inverse: Tensor, zero: Tensor, top: int) -> Tensor:
    return torch.round(grouped * inverse + zero).clamp_(0, top)


def _stored(values: Tensor, spec: QuantSpec, what: str, layer: str) -> Tensor:
    """``values`` as ``spec.scale_dtype`` keeps them."""
    stored = values.to(STORED[spec.scale_dtype]).float()
    if beyond := int((~torch.isfinite(stored)).sum()):
        raise ValueError(
            f"{layer or 'weight'}: {beyond} groups have a {what} beyond {spec.scale_dtype} (largest magnitude "
            f"{float(values.abs().max()):.3g}): store them with scale_dtype='float32'."
        )
    return stored


def _check(spec: QuantSpec, iterations: int, p: float, beta: float, kappa: float, axis: int) -> None:
    if spec.symmetric or spec.codebook is not None or spec.clip != "minmax" or spec.group_size == "tensor":
        raise ValueError(
            f"HQQ moves the zeros of a uniform min-max grid of groups, got {spec.label}: "
            f"take QuantSpec({spec.bits}, group_size, zero='float')."
        )
    check_positive(beta=beta)
    check_between(0, 1, p=p)
    check_positive(p=p)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations={iterations!r} must be a whole number, 0 or above.")
    if not (isinstance(kappa, int | float) and math.isfinite(kappa) and kappa >= 1):
        raise ValueError(f"kappa={kappa!r} must be a finite number, 1 or above: it lets beta grow.")
    if axis not in (0, 1):
        raise ValueError(f"axis={axis!r} must be 1 (groups of inputs) or 0 (groups of outputs).")
