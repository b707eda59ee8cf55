"""SpQR's scales and zeros: fitted without the weights that will be kept apart, and rounded to a few bits themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.quantizers.grid import STORED, Grid, fit_grid
from workbench.quantizers.packing import pack_codes
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tables import BilevelTable

HARDLY = 2.0**10  # weights of a group that differ by less than this part of the largest are one value
FARTHEST_ZERO = 2.0**15  # of a second-level grid; float16 ends at twice this


def gain_of_leaving_out(group: Tensor, pivots: Tensor, spec: QuantSpec) -> Tensor:
    """How much the squared error of each row of ``group [rows, inputs]`` falls if that one weight is kept apart.

    A weight that is neither the smallest nor the largest leaves the range as it is, so that its gain is its own
    error; only the two extremes of a row need a grid without them.

    Args:
        pivots: ``[inputs]``, what errors are divided by before they are squared.
    """

    def errors(grid: Grid) -> Tensor:
        return grid.round(group).sub_(group).div_(pivots).square_()

    gain = errors(fit_grid(group, spec))
    total = gain.sum(1, keepdim=True)
    for place in (group.argmin(1, keepdim=True), group.argmax(1, keepdim=True)):
        others = torch.ones_like(group, dtype=torch.bool).scatter_(1, place, False)
        left = errors(fit_grid(group, spec, counted=others)).scatter_(1, place, 0.0).sum(1, keepdim=True)
        gain.scatter_(1, place, total - left)
    return gain


def fit_without_outliers(group: Tensor, counted: Tensor | None, spec: QuantSpec, layer: str) -> tuple[Tensor, Tensor]:
    """Scale and zero ``[rows]`` of ``group [rows, inputs]``, fitted on the weights that count.

    Where outliers leave no range, at most one value, it is [-1, 1], as in the authors' code; at large inputs that
    happens in many groups. Weights that hardly differ count as equal: their zero would lie thousands of codes away,
    and widen the range that the zeros of all neighbours are rounded in.
    """
    if spec.zero != "float":
        grid = fit_grid(group, spec, layer=layer, counted=counted)
        return grid.scale.flatten(), grid.zero.flatten()
    kept = torch.ones_like(group, dtype=torch.bool) if counted is None else counted
    none = ~kept.any(1)
    low = group.masked_fill(~kept, torch.inf).amin(1).masked_fill_(none, 0.0)
    high = group.masked_fill(~kept, -torch.inf).amax(1).masked_fill_(none, 0.0)
    equal = (high - low) * HARDLY < torch.maximum(low.abs(), high.abs())
    middle = torch.where(equal[:, None], ((low + high) / 2)[:, None], group)
    grid = fit_grid(middle, spec, layer=layer, counted=counted)
    scale, zero = grid.scale.flatten(), grid.zero.flatten()
    bare = (low >= high) & ~kept.all(1)
    scale = scale.masked_fill(bare, 2 / (spec.levels - 1))
    zero = zero.masked_fill(bare, (spec.levels - 1) / 2)
    return scale, zero


def without_pull_of_zeros(scale: Tensor, group: Tensor, run: int) -> Tensor:
    """``scale [rows]`` in which rows of ``group [rows, inputs]`` that are all zero take the least scale of their run.

    Any scale serves them, and the one they happen to have would widen the range that their neighbours' scales are
    rounded in.
    """
    empty = ~group.any(1)
    if not bool(empty.any()):
        return scale
    runs, marked = scale.view(-1, run), empty.view(-1, run)
    least = runs.masked_fill(marked, torch.inf).amin(1, keepdim=True)
    return torch.where(marked & torch.isfinite(least), least, runs).flatten()


def two_levels(values: Tensor, bits: int, run: int, scale_dtype: str, layer: str = "") -> BilevelTable:
    """``values [rows]`` of one group of inputs in ``bits`` bits, with a scale and a zero for every ``run`` rows.

    Raises:
        ValueError: a second-level scale is beyond ``scale_dtype``.
    """
    spec = QuantSpec(bits, run, zero="float", scale_dtype=scale_dtype)
    runs = values.view(-1, run)
    low, high = runs.aminmax(dim=1, keepdim=True)
    # Values that hardly differ count as equal: the zero of their grid would be beyond float16.
    equal = (high - low) * FARTHEST_ZERO < (spec.levels - 1) * torch.maximum(low.abs(), high.abs())
    flat = torch.where(equal, (low + high) / 2, runs).view(1, -1)
    grid = fit_grid(flat, spec, layer=layer)
    kind = STORED[scale_dtype]
    return BilevelTable(
        packed=pack_codes(grid.encode(flat), bits),
        scales=grid.scale.squeeze(-1).to(kind),
        zeros=grid.zero.squeeze(-1).to(kind),
        bits=bits,
        rows=len(values),
    )


def together(tables: Sequence[BilevelTable]) -> BilevelTable | None:
    """The tables of all groups as one; None of none."""
    if not tables:
        return None
    parts = (torch.cat([getattr(table, name) for table in tables]) for name in ("packed", "scales", "zeros"))
    return BilevelTable(*parts, tables[0].bits, tables[0].rows)
