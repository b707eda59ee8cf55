"""One Gaussian fitted to a mixture: where each loss ends from every start, and how it got there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, TEMPLATE, faded, look

SAME_END = 0.05  # fits whose mean and sd differ by less have ended at one place
# From wide below to narrow above: fits that end at one place stay visible as layers.
WIDTHS = (5.5, 3.5, 2.5, 1.8)


def fitted_gaussians(
    fits: pd.DataFrame,
    mixture_density: pd.DataFrame,
    *,
    group: str = "objective",
    start: str = "start",
    title: str | None = None,
) -> go.Figure:
    """The mixture and the student's final Gaussian from every start, one panel per objective.

    Args:
        fits: the columns ``group``, ``start``, ``step``, ``mean`` and ``sd``; the last step of each
            fit is drawn.
        mixture_density: the columns ``x`` and ``density``.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    check_columns(fits, argument="fits", group=group, start=start, step="step", mean="mean", sd="sd")
    check_columns(mixture_density, argument="mixture_density", x="x", density="density")
    mixture = mixture_density.sort_values("x")
    x = mixture["x"].to_numpy(dtype=float)
    ends = fits.loc[fits.groupby([group, start], sort=False)["step"].idxmax()]
    names, starts = list(fits[group].unique()), list(fits[start].unique())
    heads = [f"{name}: {_ends_in_words(ends[ends[group] == name])}" for name in names]
    figure, places = small_multiples(heads)
    for place, name in zip(places, names, strict=True):
        first = place == places[0]
        figure.add_trace(
            go.Scatter(
                x=x, y=mixture["density"], name="teacher: the mixture", legendgroup="mixture", showlegend=first,
                mode="lines", line={"color": INK, "width": 1, "dash": "solid"}, fill="tozeroy",
                fillcolor=faded(INK, 0.28), hoverinfo="skip",
            ),
            **place,
        )  # fmt: skip
        for one in ends[ends[group] == name].to_dict("records"):
            figure.add_trace(_gaussian(x, one, starts.index(one[start]), str(one[start]), shown=first), **place)
    middle = _middle(x, mixture["density"].to_numpy(dtype=float), ends)
    figure.update_xaxes(range=middle, zeroline=False)
    tallest = max(float(np.max(trace.y)) for trace in figure.data)
    figure.update_yaxes(range=[0, 1.08 * tallest], zeroline=False)
    title_outer_axes(figure, places, x="x", y="density")
    return figure.update_layout(template=TEMPLATE, title_text=title, legend_title_text="student from")


def fit_paths(
    fits: pd.DataFrame,
    *,
    group: str = "objective",
    colour: str = "start",
    y: str = "mean",
    marks: dict[str, float] | None = None,
    title: str | None = None,
) -> go.Figure:
    """The student's ``mean`` (or ``sd``) over optimiser steps from every start, one panel per objective.

    Args:
        marks: name -> height of horizontal lines, such as the mixture's modes.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    check_columns(fits, argument="fits", group=group, colour=colour, step="step", y=y)
    names, starts = list(fits[group].unique()), list(fits[colour].unique())
    figure, places = small_multiples([str(name) for name in names])
    for place, name in zip(places, names, strict=True):
        for text, height in (marks or {}).items():
            last = place["col"] == max(one["col"] for one in places)
            note = {"annotation_text": text, "annotation_position": "top right"} if last else {}
            figure.add_hline(
                y=height, line={"color": INK, "width": 1, "dash": "dot"}, exclude_empty_subplots=False, **note, **place
            )
        for index, begin in enumerate(starts):
            rows = fits[(fits[group] == name) & (fits[colour] == begin)].sort_values("step")
            style = look(index)
            figure.add_trace(
                go.Scatter(
                    x=rows["step"], y=rows[y], name=str(begin), legendgroup=str(begin), mode="lines",
                    showlegend=place == places[0], line={"color": style.colour, "dash": style.dash, "width": 2.5},
                    hovertemplate="step %{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
    title_outer_axes(figure, places, x="optimiser step", y=f"{y} of the student")
    return figure.update_layout(template=TEMPLATE, title_text=title, legend_title_text=colour.replace("_", " "))


def count_ends(ends: pd.DataFrame, *, apart: float = SAME_END) -> int:
    """How many different places the rows of ``ends`` (columns ``mean`` and ``sd``) hold, ``apart`` or more."""
    seen: list[np.ndarray] = []
    for point in ends[["mean", "sd"]].to_numpy(dtype=float):
        if all(np.abs(point - other).max() >= apart for other in seen):
            seen.append(point)
    return len(seen)


def _ends_in_words(ends: pd.DataFrame) -> str:
    places, starts = count_ends(ends), len(ends)
    if starts == 1:
        return "1 start"
    return f"{starts} starts, {places} end{'s' if places > 1 else ''}"


def _gaussian(x: np.ndarray, fit: dict, index: int, name: str, *, shown: bool) -> go.Scatter:
    style = look(index)
    density = np.exp(-0.5 * ((x - fit["mean"]) / fit["sd"]) ** 2) / (fit["sd"] * np.sqrt(2 * np.pi))
    width = WIDTHS[min(index, len(WIDTHS) - 1)]
    return go.Scatter(
        x=x, y=density, name=name, legendgroup=name, showlegend=shown, mode="lines",
        line={"color": style.colour, "dash": style.dash, "width": width},
        hovertemplate=f"mean {fit['mean']:.3f}, sd {fit['sd']:.3f}<extra>{name}</extra>",
    )  # fmt: skip


def _middle(x: np.ndarray, density: np.ndarray, ends: pd.DataFrame) -> tuple[float, float]:
    """From where to where there is anything to see."""
    low, high = x[density > 1e-3 * density.max()][[0, -1]]
    return float(max(x[0], min(low, (ends["mean"] - 2.5 * ends["sd"]).min()))), float(
        min(x[-1], max(high, (ends["mean"] + 2.5 * ends["sd"]).max()))
    )
