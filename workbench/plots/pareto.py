"""What a model scores for the compute it was trained with, and the front of those that no other beats at both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import check_choice
from workbench.plots.axes import log_ticks
from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, PALETTE, TEMPLATE, named

WIDTH, HEIGHT = 760, 420  # pixels of the plot that names are placed for
LETTER, LINE = 6.3, 13  # pixels of a letter and of a line of a name
LABELS = {"compute": "training compute (TFLOPs)", "mean": "mean over benchmarks (per cent)"}
OPEN = ("digitised", "recalled", "secondary")  # numbers that nobody read in a table

Box = tuple[float, float, float, float]  # left, low, right and high pixel


class Names(NamedTuple):
    """Where each name stands beside its point, and the name, empty where there is no room for it."""

    positions: list[str]
    texts: list[str]


def pareto(
    table: pd.DataFrame,
    *,
    x: str = "compute",
    y: str = "mean",
    label: str = "model",
    status: str | None = None,
    highlight: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Score against compute (logarithmic), each point with its name, the front as steps.

    Args:
        table: one model a row; models without ``x`` or ``y`` are left out.
        status: column that says how sure a number is; those read off a figure are open circles.
        highlight: names of models drawn large, in colour.

    Raises:
        ValueError: an empty table, a missing column or an unknown ``highlight`` ("did you mean").
    """
    check_columns(table, x=x, y=y, label=label, status=status)
    for name in highlight:
        check_choice("highlight", name, table[label])
    shown = table.dropna(subset=[x, y])
    if shown.empty:
        raise ValueError(f"no row has both {x} and {y}: there is nothing to draw.")
    figure = go.Figure()
    for trace in pareto_traces(shown, x=x, y=y, label=label, status=status, highlight=highlight):
        figure.add_trace(trace)
    ticks = log_ticks(shown[x])
    logs = np.log10(shown[x].astype(float))
    air = 0.06 * (logs.max() - logs.min()) or 0.3
    names = LABELS | (labels or {})
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[_power(tick) for tick in ticks], title_text=named(x, names),
        range=[logs.min() - air, logs.max() + air],
    )  # fmt: skip
    figure.update_yaxes(title_text=named(y, names))
    return figure.update_layout(template=TEMPLATE, title_text=title, height=HEIGHT + 110)


def pareto_traces(
    table: pd.DataFrame, *, x: str, y: str, label: str, status: str | None = None, highlight: Sequence[str] = ()
) -> list[go.Scatter]:
    """Four traces, whatever the table holds: the front, exact numbers, those read off a figure, the highlighted."""
    front = front_of(table, x=x, y=y)
    names = place_names(table[x], table[y], table[label], first=highlight, front=front[[x, y]].to_numpy(dtype=float))
    open_ones = (table[status].isin(OPEN) if status else pd.Series(False, index=table.index)).to_numpy()
    marked = table[label].isin(highlight).to_numpy()
    known = (table[status] if status else pd.Series("", index=table.index)).astype(str).to_numpy()
    stop = [table[x].max()] if len(front) else []  # the best of all stays the best for more compute
    traces = [
        go.Scatter(
            x=[*front[x], *stop], y=[*front[y], *front[y].tail(1)], name="front", mode="lines", hoverinfo="skip",
            line={"color": INK, "width": 2, "shape": "hv", "dash": "solid"},
        )
    ]  # fmt: skip
    for text, chosen, colour, size in (
        ("from a table", ~marked & ~open_ones, INK, 8),
        ("read off a figure", ~marked & open_ones, INK, 8),
        ("highlighted", marked, PALETTE[1], 12),
    ):
        symbols = np.where(open_ones[chosen], "circle-open", "circle")
        traces.append(
            go.Scatter(
                x=table[x].to_numpy()[chosen], y=table[y].to_numpy()[chosen], name=text, mode="markers+text",
                showlegend=bool(chosen.any()) and text != "highlighted",
                text=np.array(names.texts, dtype=object)[chosen],
                textposition=np.array(names.positions, dtype=object)[chosen],
                textfont={"size": 13 if text == "highlighted" else 11, "color": colour},
                marker={"symbol": symbols, "size": size, "color": colour, "line": {"width": 1.6, "color": colour}},
                customdata=np.stack([table[label].astype(str).to_numpy()[chosen], known[chosen]], axis=-1),
                hovertemplate="%{customdata[0]}: %{y:.2f} at %{x:.3s} %{customdata[1]}<extra></extra>",
                cliponaxis=False,
            )
        )  # fmt: skip
    return traces


def front_of(table: pd.DataFrame, *, x: str, y: str) -> pd.DataFrame:
    """The rows that no other beats or equals with less or equal ``x`` and more or equal ``y``, in rising ``x``."""
    rows = table.sort_values([x, y], ascending=[True, False], kind="stable")
    best_before = rows[y].cummax().shift(fill_value=-math.inf)
    return rows[rows[y] > best_before]


def place_names(
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    *,
    first: Sequence[str] = (),
    front: np.ndarray | None = None,
) -> Names:
    """Greedy places for names beside points so that none covers another or a point; some may find none.

    Args:
        x: positive, drawn on a logarithmic axis.
        first: names that choose before the others and are never left out.
        front: corners (x, y) of steps that names keep clear of where they can.
    """
    logs, heights = np.log10(np.asarray(x, dtype=float)), np.asarray(y, dtype=float)
    across, up = _pixels(logs, logs, WIDTH), _pixels(heights, heights, HEIGHT)
    texts = [str(name) for name in names]
    points = [(left - 5, low - 5, left + 5, low + 5) for left, low in zip(across, up, strict=True)]
    steps = [] if front is None or not len(front) else _steps(
        _pixels(np.log10(front[:, 0]), logs, WIDTH), _pixels(front[:, 1], heights, HEIGHT)
    )  # fmt: skip
    placed: list[Box] = []
    positions, shown = ["middle right"] * len(texts), [""] * len(texts)
    for index in sorted(range(len(texts)), key=lambda place: (texts[place] not in first, across[place])):
        others = [*placed, *points[:index], *points[index + 1 :]]
        inside = {
            where: box
            for where, box in _boxes(across[index], up[index], len(texts[index]) * LETTER).items()
            if box[0] >= -40 and box[2] <= WIDTH + 40
        }
        free = {where: box for where, box in inside.items() if not any(_meet(box, other) for other in others)}
        clear = {where: box for where, box in free.items() if not any(_meet(box, step) for step in steps)}
        choices = clear or free or (inside if texts[index] in first else {})
        if choices:
            positions[index], box = next(iter(choices.items()))
            shown[index] = texts[index]
            placed.append(box)
    return Names(positions, shown)


def _steps(across: np.ndarray, up: np.ndarray) -> list[Box]:
    """The front's lines as thin boxes."""
    flat = [(left, low - 1, right, low + 1) for left, right, low in zip(across, [*across[1:], WIDTH], up, strict=True)]
    steep = [(right - 1, low, right + 1, high) for right, low, high in zip(across[1:], up, up[1:], strict=False)]
    return [*flat, *steep]


def _power(value: float) -> str:
    """``5·10⁹``: compute has no letters that everybody knows."""
    power = math.floor(math.log10(value) + 1e-9)
    digit = f"{value / 10.0**power:g}"
    if 0 <= power < 4:
        return f"{value:g}"
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digit == "1" else f"{digit}·10{raised}"


def _pixels(values: np.ndarray, among: np.ndarray, length: float) -> np.ndarray:
    reach = np.ptp(among)
    return length * (0.06 + 0.88 * (values - among.min()) / reach) if reach else np.full(values.shape, length / 2)


def _boxes(left: float, low: float, wide: float) -> dict[str, Box]:
    """The box of a name for every place that plotly knows, the best first."""
    gap, half = 7, LINE / 2
    return {
        "middle right": (left + gap, low - half, left + gap + wide, low + half),
        "middle left": (left - gap - wide, low - half, left - gap, low + half),
        "top center": (left - wide / 2, low + gap, left + wide / 2, low + gap + LINE),
        "bottom center": (left - wide / 2, low - gap - LINE, left + wide / 2, low - gap),
        "top right": (left + 2, low + 4, left + 2 + wide, low + 4 + LINE),
        "top left": (left - 2 - wide, low + 4, left - 2, low + 4 + LINE),
        "bottom right": (left + 2, low - 4 - LINE, left + 2 + wide, low - 4),
        "bottom left": (left - 2 - wide, low - 4 - LINE, left - 2, low - 4),
    }


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
