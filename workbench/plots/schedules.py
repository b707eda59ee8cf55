"""How far TAID's target has walked over a training run, and where the straight line is what carries it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import DASHES, INK, TEMPLATE, faded, look, named

ON_THE_LINE = 1e-9  # t that is no further above the line is the line
STRIP = 0.045  # of the height, for each strip below the curves


def t_curves(
    table: pd.DataFrame,
    *,
    x: str = "step",
    t: str = "t",
    line: str | None = "line",
    group: str = "schedule",
    dash: str | None = "course",
    panel: str | None = "steps",
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """``t`` over steps per schedule, with the straight line below which it never falls.

    A strip under the curves, in the schedule's colour, shows where it walks on the line, so that the
    adaptive part does nothing there; a single curve gets a shaded ground instead.

    Args:
        table: one (schedule, step) a row; ``line``, ``dash`` and ``panel`` may be missing or None.
        dash: what tells curves of one schedule apart, such as the course of the loss.
        panel: what gets a panel per value, such as the length of the run in steps.
        labels: column -> what the legend and the axes call it.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    check_columns(table, x=x, t=t, group=group)
    labels = {"course": "loss", t: "t (0 student, 1 teacher)"} | (labels or {})
    line, dash, panel = (name if name in table.columns else None for name in (line, dash, panel))
    lengths = list(table[panel].unique()) if panel else [None]
    heads = ["" if one is None else _length(one, panel) for one in lengths]
    figure, places = small_multiples(heads, height=230, share_x=False)
    groups, courses = list(table[group].unique()), list(table[dash].unique()) if dash else [None]
    floor = float(table[t].min() if line is None else min(table[t].min(), table[line].min()))
    for place, length in zip(places, lengths, strict=True):
        rows = table if length is None else table[table[panel] == length]
        _add_panel(figure, place, rows.sort_values(x), x=x, t=t, line=line, floor=floor,
                   curves=_curves(rows, group, groups, dash, courses, labels), shown=place == places[0])  # fmt: skip
    title_outer_axes(figure, places, x=named(x, labels), y=named(t, labels))
    return figure.update_layout(template=TEMPLATE, title_text=title)


def binding(t: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Where the straight line is what holds ``t`` up: bool, one per step."""
    return np.asarray(t) <= np.asarray(line) + ON_THE_LINE


def shaded(x: np.ndarray, where: np.ndarray, *, high: float) -> tuple[list, list]:
    """A closed outline of the ground from 0 to ``high`` over every run of True in ``where``, for ``fill="toself"``."""
    xs, ys = [], []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    for start, stop in zip(edges[::2], edges[1::2] - 1, strict=True):
        xs += [float(x[start]), float(x[start]), float(x[stop]), float(x[stop]), None]
        ys += [0.0, high, high, 0.0, None]
    return xs, ys


def _length(value: object, panel: str) -> str:
    return f"{value:,} {panel}" if isinstance(value, int | float | np.integer) else str(value)


def _curves(rows: pd.DataFrame, group: str, groups: list, dash: str | None, courses: list, labels: dict) -> list[tuple]:
    """(name, line, rows) of every curve; a schedule keeps its colour in all panels."""
    found = []
    for index, name in enumerate(groups):
        for turn, course in enumerate(courses):
            some = rows[rows[group] == name]
            if dash is not None:
                some = some[some[dash] == course]
            style = look(index)
            line = {"color": style.colour, "dash": style.dash, "width": 2.5}
            text = str(name)
            if len(courses) > 1:
                # The first course is a pale band, so that another that runs on it is seen to do so.
                band = {"color": faded(style.colour, 0.45), "dash": "solid", "width": 6}
                line = line | {"dash": DASHES[(index + turn) % len(DASHES)], "width": 2} if turn else band
                text = f"{name}, {named(dash, labels)} {course}"
            if not some.empty:
                found.append((text, line, some))
    return found


def _add_panel(
    figure: go.Figure, place: dict, rows: pd.DataFrame, *, x: str, t: str, line: str | None, floor: float,
    curves: list[tuple], shown: bool,
) -> None:  # fmt: skip
    bottom = floor
    if line is not None:
        bottom = _add_floor(figure, place, x=x, t=t, line=line, floor=floor, curves=curves, shown=shown)
        straight = rows.drop_duplicates(x)
        figure.add_trace(
            go.Scatter(
                x=straight[x], y=straight[line], name="straight line (floor)", legendgroup="floor", showlegend=shown,
                mode="lines", line={"color": INK, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
            ),
            **place,
        )  # fmt: skip
    for name, style, some in curves:
        some = some.sort_values(x)
        figure.add_trace(
            go.Scatter(
                x=some[x], y=some[t], name=name, legendgroup=name, showlegend=shown, mode="lines", line=style,
                hovertemplate="step %{x}: t = %{y:.3f}<extra>%{fullData.name}</extra>",
            ),
            **place,
        )  # fmt: skip
    figure.update_yaxes(range=[bottom - 0.02, 1.03], zeroline=False, **place)
    figure.update_xaxes(nticks=5, **place)


def _add_floor(
    figure: go.Figure, place: dict, *, x: str, t: str, line: str, floor: float, curves: list[tuple], shown: bool
) -> float:
    """Shade (one curve) or underline (several) where the straight line binds; return the lowest height drawn."""
    if len(curves) == 1:
        some = curves[0][2].sort_values(x)
        xs, ys = shaded(some[x].to_numpy(), binding(some[t], some[line]), high=1.1)
        figure.add_trace(
            go.Scatter(
                x=xs or [None], y=ys or [None], name="the line carries t", fill="toself", mode="lines",
                fillcolor=faded(INK, 0.16), line={"width": 0, "color": INK}, legendgroup="binds", showlegend=shown,
                hoverinfo="skip",
            ),
            **place,
        )  # fmt: skip
        return floor
    for number, (name, style, some) in enumerate(curves):
        some = some.sort_values(x)
        height = floor - STRIP * (number + 1) * (1 - floor) - 0.01
        on = np.where(binding(some[t], some[line]), height, np.nan)
        figure.add_trace(
            go.Scatter(
                x=some[x], y=on, name=f"{name} is on the line", legendgroup=name, showlegend=False, mode="lines",
                line={"color": style["color"], "width": 5, "dash": "solid"}, connectgaps=False,
                hovertemplate="%{x}: on the line<extra>%{fullData.name}</extra>",
            ),
            **place,
        )  # fmt: skip
    lowest = floor - STRIP * (len(curves) + 0.6) * (1 - floor) - 0.01
    if shown:
        figure.add_annotation(
            text="strips: t is on the line", x=0.02, xref="x domain", y=0, yref="y domain", yanchor="bottom",
            showarrow=False, font={"size": 11, "color": INK}, **place,
        )  # fmt: skip
    return lowest
