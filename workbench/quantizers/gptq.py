"""GPTQ: round input after input, and let those still to come make up for each error.

Frantar, Ashkboos, Hoefler & Alistarh 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers". Codes are those of the authors' code, up to ties that float32 decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.quantizers.columns import round_columns, rounding
from workbench.quantizers.feedback import Factor, factorise, feedback
from workbench.quantizers.grid import Grid, check_weight, fit_grid
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tables import DoubleQuantizedTable
from workbench.quantizers.tensor import QuantizedTensor


def quantize_gptq(
    weight: Tensor,
    hessian: Tensor,
    spec: QuantSpec,
    *,
    block_size: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    static_groups: bool = True,
    layer: str = "",
) -> QuantizedTensor:
    """``weight [out, in]`` in the codes that keep its outputs, for inputs with this ``hessian [in, in]``.

    Inputs that were always 0 (``H_jj = 0``) get the weight 0, as in the authors' code. Any spec will do, a codebook
    too: the code nearest to each target is taken.

    Args:
        hessian: mean of ``2 x x^T``, of a :class:`~workbench.quantizers.hessian.HessianAccumulator`; only its shape
            counts, not its size. Given in float64 it is factorised so.
        block_size: inputs between two updates of all that follow. Does not change what static groups give.
        damping: added to the diagonal, in parts of its mean; raised tenfold as long as there is no factor.
        act_order: round the inputs with the largest diagonal first.
        static_groups: fit every group on the original weight, on inputs that lie side by side. If False, a group is
            fitted when its first input comes, on the weight as updated *by former blocks*: updates within the
            block are not in it yet, as in the authors' code, so that block size changes the result; and with
            ``act_order`` its inputs lie side by side in the order of rounding, which must then be stored, and the
            result can be worse than rounding to nearest.
        layer: name that errors are told with.

    Raises:
        TypeError, ValueError: weight or Hessian are not finite, of the wrong type or shape, the group does not divide
            the inputs, or the Hessian has no factor; the message names the layer and the remedy.

    Warns:
        RuntimeWarning: damping was raised; names the layer.
    """
    return quantize_gptq_together(
        [weight], hessian, spec,
        block_size=block_size, damping=damping, act_order=act_order, static_groups=static_groups, layer=layer,
    )[0]  # fmt: skip


def quantize_gptq_together(
    weights: Sequence[Tensor],
    hessian: Tensor,
    spec: QuantSpec | Sequence[QuantSpec],
    *,
    block_size: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    static_groups: bool = True,
    layer: str | Sequence[str] = "",
) -> list[QuantizedTensor]:
    """:func:`quantize_gptq` of several ``weights [out_i, in]`` that share their inputs, as q, k, v or gate and up do.

    Output rows know nothing of each other, so one factorisation serves all, and one loop those with equal specs;
    each result is that of the weight by itself.

    Args:
        spec: one for all, or one for each.
        layer: name that errors are told with, one for all or one for each.

    Raises:
        TypeError, ValueError: as :func:`quantize_gptq`; no weights, or specs or names of another number.
    """
    specs, layers = _for_each(spec, weights, "spec", QuantSpec), _for_each(layer, weights, "layer", str)
    first = layers[0]
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"{first or 'gptq'}: block_size={block_size!r} must be a whole number of inputs, at least 1.")
    matrices = [check_weight(weight, name) for weight, name in zip(weights, layers, strict=True)]
    width = matrices[0].shape[1]
    for matrix, one, name in zip(matrices, specs, layers, strict=True):
        if matrix.shape[1] != width:
            raise ValueError(
                f"{name or 'gptq'}: {matrix.shape[1]} inputs beside {width} of {first or 'the first weight'}: only "
                "weights that read the same inputs go together."
            )
        one.group_length(width, name)
    factor = factorise(hessian, width, damping=damping, act_order=act_order, layer=first)
    factor = Factor(*(None if part is None else part.to(matrices[0].device) for part in factor))
    passed: dict[bool, Tensor] = {}
    results: dict[int, QuantizedTensor] = {}
    for one in dict.fromkeys(specs):
        members = [place for place, other in enumerate(specs) if other == one]
        static = static_groups or not isinstance(one.group_size, int)
        if static not in passed:
            passed[static] = feedback(factor, "original" if static else "updated")
        quantize = _static if static else _dynamic
        found = quantize(
            [matrices[place] for place in members], one, factor, passed[static], block_size,
            [layers[place] for place in members],
        )  # fmt: skip
        results |= zip(members, found, strict=True)
    return [results[place] for place in range(len(matrices))]


def _static(
    matrices: Sequence[Tensor], spec: QuantSpec, factor: Factor, passed: Tensor, block_size: int, layers: Sequence[str]
) -> list[QuantizedTensor]:
    """Grids of the original weights; columns go back to where they were."""
    width, order = len(factor.root), factor.order
    grids, tables = [], []
    living = [_without_dead(matrix, factor) for matrix in matrices]
    for matrix, alive, name in zip(matrices, living, layers, strict=True):
        # A whole row's range is taken before dead inputs are cleared, that of a group after it: the authors' order.
        grid = fit_grid(alive if isinstance(spec.group_size, int) else matrix, spec, layer=name)
        table = DoubleQuantizedTable.store(grid.scale.squeeze(-1)) if spec.double_quant else None
        if table is not None:
            # Codes are chosen for the scales that will be read back.
            grid = Grid(table.values()[..., None], grid.zero, spec)
        grids.append(grid)
        tables.append(table)
    scale = torch.cat([_by_group(grid.scale, matrix) for grid, matrix in zip(grids, living, strict=True)], dim=1)
    zero = None
    if spec.codebook is None:
        zero = torch.cat([_by_group(grid.zero, matrix) for grid, matrix in zip(grids, living, strict=True)], dim=1)
    original = _inputs_first(living, order)
    length = width // scale.shape[0]
    group_of = (torch.arange(width) if order is None else order.cpu()).div(length, rounding_mode="floor").tolist()
    codes = _round_all(original.clone(), spec, passed, scale, zero, group_of, original=original, block_size=block_size)
    if order is not None:
        codes = torch.empty_like(codes).index_copy_(0, order, codes)
    return [
        QuantizedTensor.from_codes(part, grid, method="gptq", scale_table=table)
        for part, grid, table in zip(_rows_apart(codes, matrices), grids, tables, strict=True)
    ]


def _dynamic(
    matrices: Sequence[Tensor], spec: QuantSpec, factor: Factor, passed: Tensor, block_size: int, layers: Sequence[str]
) -> list[QuantizedTensor]:
    """Grids of the weights as former blocks left them, groups in the order of rounding."""
    work = _inputs_first([_without_dead(matrix, factor) for matrix in matrices], factor.order)
    width, rows = work.shape
    length = spec.group_length(width)
    scale = work.new_empty(width // length, rows)
    zero = None if spec.codebook is not None else torch.empty_like(scale)

    def fit(start: int, stop: int) -> None:
        # All groups that begin in this block, now: within the block the authors' code fits them on this very state.
        for first in range(-(-start // length) * length, stop, length):
            fitted = fit_grid(work[first : first + length].t(), spec, layer=layers[0])
            scale[first // length] = fitted.scale.flatten()
            if zero is not None:
                zero[first // length] = fitted.zero.flatten()

    group_of = [column // length for column in range(width)]
    codes = _round_all(work, spec, passed, scale, zero, group_of, block_size=block_size, at_block=fit)
    parts = zip(*(_rows_apart(table, matrices) if table is not None else [None] * len(matrices)
                  for table in (codes, scale, zero)), strict=True)  # fmt: skip
    return [
        QuantizedTensor.from_codes(
            part, Grid(scales[..., None], None if zeros is None else zeros[..., None], spec),
            method="gptq", permutation=factor.order,
        )
        for part, scales, zeros in parts
    ]  # fmt: skip


def _round_all(
    work: Tensor, spec: QuantSpec, passed: Tensor, scale: Tensor, zero: Tensor | None, group_of: Sequence[int], **how
) -> Tensor:
    """Codes ``[columns, rows]``."""
    codes = torch.empty(work.shape, dtype=torch.uint8, device=work.device)
    round_columns(work, passed, rounding(spec, scale, zero, group_of, codes), **how)
    return codes


def _for_each(value: object, weights: Sequence[Tensor], argument: str, kind: type) -> list:
    """``value`` once for each of ``weights``."""
    if not len(weights):
        raise ValueError("gptq: there are no weights: give at least one matrix [out, in].")
    if isinstance(value, kind):
        return [value] * len(weights)
    if not isinstance(value, Sequence) or not all(isinstance(one, kind) for one in value):
        raise TypeError(f"gptq: {argument} must be a {kind.__name__}, or one for each weight; got {value!r}.")
    if len(value) != len(weights):
        raise ValueError(f"gptq: {len(value)} of {argument} for {len(weights)} weights: give one for all or one each.")
    return list(value)


def _without_dead(matrix: Tensor, factor: Factor) -> Tensor:
    """``matrix [rows, columns]`` with 0 for inputs that never were anything else."""
    return matrix.masked_fill(factor.dead, 0.0) if bool(factor.dead.any()) else matrix


def _inputs_first(matrices: Sequence[Tensor], order: Tensor | None) -> Tensor:
    """Rows of all ``matrices`` side by side, ``[columns, rows]``, in the order of rounding."""
    stacked = torch.cat([matrix.t() for matrix in matrices], dim=1)
    return stacked if order is None else stacked[order]


def _by_group(values: Tensor, matrix: Tensor) -> Tensor:
    """``[groups, rows]`` of a grid's ``[rows or 1, groups, 1]``."""
    return values.squeeze(-1).expand(matrix.shape[0], -1).t()


def _rows_apart(table: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """``[columns, all rows]`` as ``[rows, columns]`` of each matrix."""
    return [part.t().contiguous() for part in table.split([len(matrix) for matrix in matrices], dim=1)]
