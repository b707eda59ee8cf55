"""SpQR: GPTQ on small groups whose scales are quantised too, with the few weights that it would ruin kept apart.

Dettmers et al. 2023, "SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight Compression". Codes and
outliers are those of the authors' code, up to ties that float32 decides.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from workbench.quantizers.columns import PIECE, round_columns, rounding
from workbench.quantizers.feedback import factorise, feedback
from workbench.quantizers.grid import Grid, check_weight
from workbench.quantizers.outliers import SparseOutliers
from workbench.quantizers.spec import MOST_BITS, QuantSpec
from workbench.quantizers.spqr_scales import (
    fit_without_outliers,
    gain_of_leaving_out,
    together,
    two_levels,
    without_pull_of_zeros,
)
from workbench.quantizers.tables import BilevelTable
from workbench.quantizers.tensor import QuantizedTensor

BLOCK = 128
LEAST_SCALE = 1e-30  # a scale that storage made 0 must not divide; what it multiplies is 0 either way


def quantize_spqr(
    weight: Tensor,
    hessian: Tensor,
    spec: QuantSpec,
    *,
    outlier_threshold: float = 0.2,
    damping: float = 1.0,
    scale_bits: int | None = 3,
    scale_group: int = 16,
    act_order: bool = False,
    layer: str = "",
) -> QuantizedTensor:
    """``weight [out, in]`` in few codes per group plus sparse outliers, for inputs with this ``hessian [in, in]``.

    Groups are fitted when their first input comes, on the weight as updated so far. A weight is an outlier if its
    error, divided by the pivot ``U_jj`` of the inverse Hessian's factor and squared, exceeds ``outlier_threshold``
    times the mean over inputs of ``var(weight_j) / U_jj**2``; it is then kept at its updated value, as a float16
    difference from the grid (32 bits with its place). Ranges are fitted without the weights whose leaving out would
    reduce the error by more than the same threshold.

    Args:
        hessian: mean of ``2 x x^T``, of a :class:`~workbench.quantizers.hessian.HessianAccumulator`.
        spec: 16 inputs a group and ``zero="float"`` in the paper; an integer zero and a symmetric grid work too.
        outlier_threshold: 0.2 in the authors' code; infinite keeps none apart. Fewer outliers the larger it is.
        damping: added to the diagonal, in parts of its mean; 1.0 in the authors' code.
        scale_bits: of scales and float zeros; None leaves them in ``spec.scale_dtype``.
        scale_group: neighbouring output rows whose scales share a second-level scale and zero. These are stored in
            ``spec.scale_dtype``: float32 chooses as the authors' code does, float16 is what the paper counts and
            saves a quarter of a bit per weight with runs and groups of 16.
        act_order: round the inputs with the largest diagonal first; groups lie in that order, which is stored.
        layer: name that errors are told with.

    Raises:
        TypeError, ValueError: as :func:`~workbench.quantizers.gptq.quantize_gptq`; a codebook, MSE clipping or one
            group for the whole tensor; rows that ``scale_group`` does not divide; a scale that float16 cannot hold.

    Warns:
        RuntimeWarning: damping was raised; names the layer.
    """
    weight = check_weight(weight, layer)
    rows, width = weight.shape
    _check_options(spec, rows, outlier_threshold, scale_bits, scale_group, layer)
    length = spec.group_length(width, layer)
    factor = factorise(hessian, width, damping=damping, act_order=act_order, count_dead=False, layer=layer)
    root, order, dead = (None if part is None else part.to(weight.device) for part in factor)
    pivots = root.diagonal().reciprocal().float()  # U_jj, since U is the inverse of the root
    work = weight.t().masked_fill(dead[:, None], 0.0)
    if order is not None:
        work = work[order]
    spread = work.var(dim=1) if rows > 1 else work.var(correction=0)  # one row alone has none across rows
    threshold = outlier_threshold * float((spread / pivots.square()).mean()) if outlier_threshold < math.inf else None

    # Of two levels only the second is stored in floating point.
    first_level = spec if scale_bits is None else replace(spec, scale_dtype="float32")
    scale = work.new_empty(width // length, rows)
    zero = torch.empty_like(scale)
    scale_tables: list[BilevelTable] = []
    zero_tables: list[BilevelTable] = []

    def fit(first: int, last: int) -> None:
        if first % length:
            return
        group, place = work[first : first + length].t().contiguous(), first // length
        counted = None
        if threshold is not None:
            counted = gain_of_leaving_out(group, pivots[first : first + length], first_level) <= threshold
        scale[place], zero[place] = fit_without_outliers(group, counted, first_level, layer)
        if scale_bits is None:
            return
        plain = without_pull_of_zeros(scale[place], group, scale_group)
        scale_tables.append(two_levels(plain, scale_bits, scale_group, spec.scale_dtype, layer))
        scale[place] = scale_tables[-1].values().flatten().clamp_(min=LEAST_SCALE)
        if spec.zero == "float":
            zero_tables.append(two_levels(zero[place], scale_bits, scale_group, spec.scale_dtype, layer))
            zero[place] = zero_tables[-1].values().flatten()

    codes = torch.empty(work.shape, dtype=torch.uint8, device=work.device)
    to_grid = rounding(spec, scale, zero, [column // length for column in range(width)], codes)
    kept = torch.zeros_like(work, dtype=torch.bool)
    differences = None if threshold is None else torch.zeros_like(work)
    largest = [] if threshold is None else (threshold * pivots.double().square()).tolist()  # squared error on the grid

    def round_column(column: int, target: Tensor) -> Tensor:
        value = to_grid(column, target)
        if threshold is None:
            return value
        difference = torch.sub(target, value, out=differences[column])
        beyond = torch.gt(difference.square(), largest[column], out=kept[column])
        difference.mul_(beyond)
        return value.add_(difference)

    passed = feedback(factor, "updated").to(weight.device)
    block, piece = _steps(length, width)
    round_columns(work, passed, round_column, block_size=block, piece=piece, at_piece=fit)
    grid = Grid(scale.t().contiguous()[..., None], zero.t().contiguous()[..., None], spec)
    return QuantizedTensor.from_codes(
        codes.t().contiguous(), grid, method="spqr", outliers=_sparse(kept, differences, order), permutation=order,
        scale_table=together(scale_tables), zero_table=together(zero_tables),
    )  # fmt: skip


def _check_options(
    spec: QuantSpec, rows: int, outlier_threshold: float, scale_bits: int | None, scale_group: int, layer: str
) -> None:
    name = layer or "spqr"
    if spec.codebook is not None or spec.clip == "mse" or spec.group_size == "tensor":
        raise ValueError(
            f"{name}: SpQR fits a uniform min-max grid per row and group, leaving outliers out: drop codebook, "
            f"clip='mse' and group_size='tensor' from {spec}, or use gptq."
        )
    if (
        isinstance(outlier_threshold, bool)
        or not isinstance(outlier_threshold, int | float)
        or not (outlier_threshold >= 0)
    ):  # NaN too
        raise ValueError(
            f"{name}: outlier_threshold={outlier_threshold!r} must be a number from 0 up; math.inf keeps none apart."
        )
    if scale_bits is None:
        return
    for argument, value, most in (("scale_bits", scale_bits, MOST_BITS), ("scale_group", scale_group, rows)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"{name}: {argument}={value!r} must be a whole number from 1 to {most}.")
    if rows % scale_group:
        fitting = max(size for size in range(1, scale_group + 1) if rows % size == 0)
        raise ValueError(
            f"{name}: {rows} output rows cannot be divided into runs of {scale_group} that share a second-level "
            f"scale: take a scale_group that divides them ({fitting}), or scale_bits=None."
        )


def _steps(length: int, width: int) -> tuple[int, int]:
    """Block and piece for which every group begins with a piece, on a weight that all former columns have reached."""

    def largest_divisor(most: int) -> int:
        return next(size for size in range(min(most, length), 0, -1) if length % size == 0)

    if length == width:
        return BLOCK, PIECE
    block = BLOCK // length * length if length <= BLOCK else largest_divisor(BLOCK)
    return block, length if length <= 2 * PIECE else largest_divisor(PIECE)


def _sparse(kept: Tensor, differences: Tensor | None, order: Tensor | None) -> SparseOutliers | None:
    """What is to be added to the grid, ``[out, in]`` in the order of the inputs."""
    if differences is None:
        return None
    if order is not None:
        back = torch.argsort(order)
        kept, differences = kept[back], differences[back]
    small = float(differences.abs().max()) <= torch.finfo(torch.float16).max
    dtype = torch.float16 if small else torch.float32
    return SparseOutliers.from_dense(kept.t().contiguous(), differences.t().contiguous(), dtype=dtype)
