"""A quantised layer to look at: weights on their grid, where the error sits, and what it does to each output."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import check_choice
from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, LINE, PALETTE, TEMPLATE

POSITIONS = {
    "steps": "weight, in steps of its group's grid",
    "parts": "weight, in parts of its group's largest",
    "weight": "weight (grid of the group with the median step)",
}
DENSITIES = {"steps": "share of weights per step", "parts": "share per unit", "weight": "share per unit of weight"}
NAMES = ("weights before rounding", "levels, as often as they are used")
HEIGHT = 400  # pixels
STEMS = 32  # levels, at most, that are drawn as stems
RISING = [[0.0, "#ffffff"], [0.35, "#c6d4e3"], [0.7, "#4d7ea8"], [1.0, "#08263f"]]  # light to dark, also in grey


def weight_grid(
    histogram: pd.DataFrame,
    levels: pd.DataFrame,
    cells: np.ndarray,
    outputs: pd.DataFrame,
    *,
    shape: tuple[int, int],
    axis: str = "steps",
    title: str | None = None,
) -> go.Figure:
    """The histogram with its grid, the map of weight errors, and beside it the error of each output.

    Args:
        histogram: ``position, width, density``, a bar a row.
        levels: ``level, density``.
        cells: ``[outputs, inputs]`` errors of cells, in parts of the layer's root mean square weight.
        outputs: ``output, error`` of the same rows of cells.
        shape: outputs and inputs of the layer.
        axis: what positions are counted in: ``steps``, ``parts`` (of a codebook) or ``weight``.

    Raises:
        ValueError: a table without rows or columns ("did you mean"), an unknown axis.
    """
    check_columns(histogram, argument="histogram", position="position", width="width", density="density")
    check_columns(levels, argument="levels", level="level", density="density")
    check_columns(outputs, argument="outputs", output="output", error="error")
    check_choice("axis", axis, POSITIONS)
    figure = make_subplots(
        rows=1, cols=3, column_widths=[0.47, 0.36, 0.17], horizontal_spacing=0.11,
        subplot_titles=["weights and levels", "error of weights (% of RMS weight)", "error of outputs"],
    )  # fmt: skip
    bars, stems, heat, profile = weight_grid_traces(histogram, levels, cells, outputs, shape=shape)
    for trace, column in ((bars, 1), (stems, 1), (heat, 2), (profile, 3)):
        figure.add_trace(trace, row=1, col=column)
    figure.update_annotations(font={"size": 14, "color": INK})
    x, y = axis_titles(axis)
    figure.update_xaxes(title_text=x, showgrid=False, row=1, col=1)
    figure.update_yaxes(title_text=y, rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title_text="input", showgrid=False, row=1, col=2)
    # Outputs from above, as rows of a matrix are written.
    figure.update_yaxes(title_text="output", range=[shape[0], 0], showgrid=False, row=1, col=2)
    figure.update_xaxes(title_text="of its size (%)", rangemode="tozero", row=1, col=3)
    figure.update_yaxes(range=[shape[0], 0], showticklabels=False, row=1, col=3)
    return figure.update_layout(
        template=TEMPLATE, title_text=title, height=HEIGHT, margin={"t": 34, "b": 84}, bargap=0, showlegend=True
    )


def weight_grid_traces(
    histogram: pd.DataFrame, levels: pd.DataFrame, cells: np.ndarray, outputs: pd.DataFrame, *, shape: tuple[int, int]
) -> tuple[go.Bar, go.Scatter, go.Heatmap, go.Scatter]:
    """The four traces of :func:`weight_grid`, whatever the tables hold, so that a live figure can take their values."""
    bars = go.Bar(
        x=histogram["position"].to_numpy(), y=histogram["density"].to_numpy(), width=histogram["width"].to_numpy(),
        name=NAMES[0], marker={"color": PALETTE[5], "line": {"width": 0}, "pattern": {"shape": ""}},
        hovertemplate="%{x:.3g}: %{y:.3g}<extra></extra>",
    )  # fmt: skip
    # Hundreds of stems would cover the bars: their heads alone make a line.
    many = len(levels) > STEMS
    x, y = (levels["level"].to_numpy(), levels["density"].to_numpy()) if many else _stems(levels)
    stems = go.Scatter(
        x=x, y=y, name=NAMES[1], mode="lines" if many else "lines+markers",
        line={"color": PALETTE[1], "width": 1.5 if many else 2.5, "dash": "solid"},
        # Only the head of a stem has a marker; its foot and the gap behind it have none.
        marker={"symbol": "diamond", "color": PALETTE[1], "size": [0, 9, 0] * len(levels)},
        hovertemplate="level %{x:.4g}<extra></extra>",
    )  # fmt: skip
    rows, columns = cells.shape
    heat = go.Heatmap(
        z=100 * cells, x=_middles(columns, shape[1]), y=_middles(rows, shape[0]), colorscale=RISING, zmin=0,
        colorbar={"x": 0.785, "thickness": 12, "len": 1.0, "outlinewidth": 0, "y": 0.5, "tickfont": {"size": 12}},
        hovertemplate="input %{x:.0f}, output %{y:.0f}: %{z:.2f} %<extra></extra>", name="error",
    )  # fmt: skip
    profile = go.Scatter(
        x=100 * outputs["error"].to_numpy(), y=outputs["output"].to_numpy(), mode="lines", showlegend=False,
        line={"color": PALETTE[0], "width": 2, "shape": "linear", "dash": "solid"}, fill="tozerox",
        fillcolor=LINE.replace("0.55", "0.22"), name="outputs",
        hovertemplate="output %{y:.0f}: %{x:.2f} %<extra></extra>",
    )  # fmt: skip
    return bars, stems, heat, profile


def axis_titles(axis: str) -> tuple[str, str]:
    """What both axes of the histogram are called."""
    return POSITIONS[axis], DENSITIES[axis]


def _stems(levels: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A line from the axis to the height of every level, with gaps between."""
    x = np.repeat(levels["level"].to_numpy(dtype=float), 3)
    y = np.stack([np.zeros(len(levels)), levels["density"].to_numpy(dtype=float), np.full(len(levels), np.nan)], axis=1)
    return x, y.ravel()


def _middles(cells: int, length: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) * length / cells
