"""One quantised layer beside its float weight: where weights lie on the grid, and what rounding does to its output."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_choice
from workbench.quantizers.codebooks import codebook_levels
from workbench.quantizers.tensor import QuantizedTensor

AXES = ("steps", "weight")
BINS = 120  # bars of the histogram, about
ROWS, COLUMNS = 48, 64  # cells of the map of errors, at most
EDGE = 0.75  # steps beyond the first and last level that the histogram shows


@dataclass(frozen=True)
class LayerReport:
    """Numbers of one quantised layer.

    Attributes:
        histogram: ``position, width, density`` of weights as they were before rounding: in steps of their own group's
            grid (of a codebook, in parts of the group's largest magnitude), or in the weight's unit.
        levels: ``level, density`` of the grid's levels: the share of codes at each, in parts of its cell's width.
        cells: ``[outputs, inputs]`` cells, the error of weights in parts of the layer's root mean square.
        outputs: ``output`` (middle of the cell), ``error`` of the layer's outputs in parts of their own size.
        weight_error: norm of the error in parts of the weight's norm.
        output_error: the same of the outputs.
        nbytes: of everything stored.
        bits_per_weight: of everything stored.
        parts: the same by what it is: ``codes, scales, zeros, outliers, ...``.
        outliers: share of weights stored beside the grid.
    """

    histogram: pd.DataFrame
    levels: pd.DataFrame
    cells: np.ndarray
    outputs: pd.DataFrame
    shape: tuple[int, int]
    weight_error: float
    output_error: float
    nbytes: int
    bits_per_weight: float
    parts: dict[str, float]
    outliers: float


@torch.no_grad()
def layer_report(
    weight: Tensor, quantised: QuantizedTensor, inputs: Tensor, *, axis: str = "steps", outputs: Tensor | None = None
) -> LayerReport:
    """Compare ``quantised`` with ``weight [out, in]`` on ``inputs [tokens, in]``.

    Args:
        axis: of the histogram: ``steps`` of each group's own grid, or the unit of the ``weight``; there the levels are
            those of the group with the median step.
        outputs: ``[tokens, out]`` that the quantised layer gives, where that is more than a product with its weight.

    Raises:
        UnknownName: another axis.
    """
    check_choice("axis", axis, AXES)
    weight, inputs = weight.float(), inputs.float()
    error = quantised.dequantize().sub_(weight)
    missed = inputs @ error.T if outputs is None else outputs.float() - inputs @ weight.T
    made = inputs @ weight.T
    rows, columns = min(ROWS, weight.shape[0]), min(COLUMNS, weight.shape[1])
    root = float(weight.square().mean().sqrt()) or 1.0
    cells = F.adaptive_avg_pool2d(error.square()[None, None], (rows, columns))[0, 0].sqrt_().div_(root)
    turned = weight if quantised.transform is None else quantised.transform.apply_to_weight(weight)
    histogram, levels = _on_the_grid(turned, quantised, axis)
    kept = 0 if quantised.outliers is None else quantised.outliers.count
    return LayerReport(
        histogram, levels, cells.numpy(), _by_output(missed, made, rows), tuple(weight.shape),
        _part(error, weight), _part(missed, made), quantised.nbytes, quantised.bits_per_weight,
        stored_parts(quantised), kept / weight.numel(),
    )  # fmt: skip


def stored_parts(quantised: QuantizedTensor) -> dict[str, float]:
    """Bits per weight of everything stored: codes, scales, zeros, and what else there is."""
    parts: dict[str, float] = {}
    for name, tensor in quantised.tensors().items():
        kind = "codes" if name == "packed" else name.partition(".")[0]
        bits = 8 * tensor.numel() * tensor.element_size() / (quantised.shape[0] * quantised.shape[1])
        parts[kind] = parts.get(kind, 0.0) + bits
    return parts


def inputs_of(model: nn.Module, layer: str, tokens: Tensor) -> Tensor:
    """What the layer called ``layer`` reads when ``model`` reads ``tokens [windows, time]``: ``[windows * time, in]``.

    The pass ends there: what comes after the layer is not computed.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        kept.append(args[0].detach().float().flatten(0, -2))
        raise _Enough

    handle = model.get_submodule(layer).register_forward_pre_hook(keep)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), suppress(_Enough):
            model(input_ids=tokens, use_cache=False)
    finally:
        handle.remove()
        model.train(training)
    return kept[0]


class _Enough(Exception):
    """Ends a forward pass whose rest is not needed."""


def _part(error: Tensor, whole: Tensor) -> float:
    size = float(whole.norm())
    return float(error.norm()) / size if size else 0.0


def _by_output(missed: Tensor, made: Tensor, rows: int) -> pd.DataFrame:
    """Outputs put together in the cells that the map of errors has."""

    def powers(values: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(values.square().sum(0)[None], rows)[0]

    size = powers(made)
    error = torch.where(size > 0, (powers(missed) / size.clamp(min=1e-30)).sqrt(), 0.0)
    step = made.shape[1] / rows
    return pd.DataFrame({"output": (np.arange(rows) + 0.5) * step, "error": error.numpy()})


def _on_the_grid(weight: Tensor, quantised: QuantizedTensor, axis: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    spec = quantised.spec
    scales, zeros = quantised.scales, quantised.zeros
    counts = torch.bincount(quantised.codes.flatten().int(), minlength=spec.levels).double()
    if spec.codebook is None:
        levels = torch.arange(spec.levels, dtype=torch.float64)
    else:
        levels = codebook_levels(spec.codebook, torch.device("cpu")).double()
    if axis == "steps":
        positions = (weight.unflatten(1, (scales.shape[-1], -1)) / scales[..., None]).flatten(1)
        if zeros is not None:
            positions = positions.unflatten(1, (scales.shape[-1], -1)).add_(zeros[..., None])
    else:
        positions = weight
        middle = scales.flatten().argsort()[scales.numel() // 2]
        zero = 0.0 if zeros is None else float(zeros.flatten()[middle])
        levels = (levels - zero) * float(scales.flatten()[middle])
    # Two codes of FP4 stand for 0: they are one level.
    levels, place = levels.unique(return_inverse=True)
    shares = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, place, counts) / counts.sum()
    heights = shares / _cell_widths(levels)
    step = float(levels[-1] - levels[0]) / max(1, len(levels) - 1)
    low, high = float(levels[0]) - EDGE * step, float(levels[-1]) + EDGE * step
    if axis == "weight":
        reach = float(positions.abs().max())
        low, high = min(low, -reach), max(high, reach)
    return _histogram(positions, low, high, step), pd.DataFrame({"level": levels.numpy(), "density": heights.numpy()})


def _cell_widths(levels: Tensor) -> Tensor:
    """How much of the axis is nearest to each of the rising ``levels``."""
    if len(levels) == 1:
        return torch.ones(1, dtype=levels.dtype)
    gaps = levels.diff()
    return (F.pad(gaps[None], (1, 0), mode="replicate") + F.pad(gaps[None], (0, 1), mode="replicate"))[0] / 2


def _histogram(positions: Tensor, low: float, high: float, step: float) -> pd.DataFrame:
    bars = max(1, round(BINS * step / (high - low)))  # whole bars in a step, so that none straddles a level unevenly
    width = step / bars
    count = min(4 * BINS, max(1, round((high - low) / width)))
    width = (high - low) / count
    found = torch.histc(positions.clamp(low, high), bins=count, min=low, max=high).double()
    middles = low + (np.arange(count) + 0.5) * width
    return pd.DataFrame(
        {"position": middles, "width": width, "density": (found / found.sum() / width).numpy()}
    )  # fmt: skip
