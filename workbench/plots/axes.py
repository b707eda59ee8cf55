"""Axis titles, and logarithmic axes whose ticks are numbers that one can say aloud."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import plotly.graph_objects as go

from workbench.plots.theme import HEIGHT

# Plotly labels a short logarithmic axis 2, 3, 4 ... 100: digits without their power of ten.
STEPS = ((4.0, (1,)), (1.3, (1, 2, 5)), (0.6, (1, 1.5, 2, 3, 5, 7)), (0.0, tuple(np.arange(10, 100) / 10)))


def label_axes(figure: go.Figure, *, x: str, y: str, log_x: bool = False, log_y: bool = False) -> None:
    """Title both axes; a logarithmic one gets :func:`log_ticks` for the numbers its traces show."""
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    for axis, log in (("x", log_x), ("y", log_y)):
        if log:
            ticks = log_ticks(value for trace in figure.data for value in trace[axis])
            texts = [compact(tick) for tick in ticks]
            update = figure.update_xaxes if axis == "x" else figure.update_yaxes
            update(type="log", tickvals=ticks, ticktext=texts)


def height_for(groups: int) -> int:
    """Pixels of a figure of ``groups`` groups: its legend has about four in a row, and many lines need room."""
    return HEIGHT + 22 * max(0, math.ceil(groups / 4) - 1) + 20 * max(0, groups - 6)


def log_ticks(values: Iterable[float]) -> list[float]:
    """Round numbers over the range of the positive ``values``: fewer a decade, the more decades there are.

    Raises:
        ValueError: a logarithmic axis for values of which none is above 0.
    """
    positive = [float(value) for value in values if value is not None and value > 0 and math.isfinite(value)]
    if not positive:
        raise ValueError("no value is above 0, so none has a place on a logarithmic axis: leave log_x and log_y off.")
    low, high = math.log10(min(positive)), math.log10(max(positive))
    digits = next(steps for decades, steps in STEPS if high - low >= decades)
    powers = range(math.floor(low) - 1, math.ceil(high) + 2)
    ticks = sorted({float(f"{digit * 10.0**power:.6g}") for power in powers for digit in digits})
    inside = [tick for tick in ticks if low - 0.15 <= math.log10(tick) <= high + 0.15]
    if len(inside) <= 9:
        return inside
    return inside[:: math.ceil(len(inside) / 8)]


def compact(value: float) -> str:
    """``20k`` for 20000, ``1.5M``, ``0.02``."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"
