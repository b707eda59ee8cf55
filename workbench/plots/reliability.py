"""How far confidence can be believed: reliability diagrams, accuracy against calibration, entropies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import height_for, label_axes
from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, LINE, TEMPLATE, faded, look, named

COUNTS = 0.22  # height of the tallest bar of counts, as a share of the panel
EDGE = 1.02


def reliability_diagrams(table: pd.DataFrame, *, by: str = "method", title: str | None = None) -> go.Figure:
    """A panel per value of ``by``: accuracy against confidence per bin, the diagonal, and how many samples a bin has.

    Points above the diagonal are under-confident, below it over-confident. A point is the mean over seeds, its
    bars are standard errors; the bars at the bottom are shares of the samples, the tallest of all panels
    a fifth of a panel high.

    Args:
        table: bins as :func:`workbench.metrics.calibration.reliability_curve` gives them, with ``seed`` and ``by``.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, by=by, seed="seed", low="low", confidence="confidence", accuracy="accuracy", count="count")
    names = list(table[by].unique())
    figure, places = small_multiples([str(name) for name in names], columns=4)
    means = bin_means(table, by=by)
    tallest = means["share"].max()
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        for trace in reliability_traces(means[means[by] == name], tallest=tallest, index=0, text=str(name)):
            figure.add_trace(trace.update(showlegend=index == 0), **place)
    figure.update_xaxes(range=[0, EDGE], dtick=0.5)
    figure.update_yaxes(range=[0, EDGE], dtick=0.5)
    title_outer_axes(figure, places, x="confidence", y="accuracy")
    return figure.update_layout(title_text=title)


def bin_means(table: pd.DataFrame, *, by: str | None = None) -> pd.DataFrame:
    """Per bin, over the seeds that filled it: ``confidence, accuracy``, its standard error ``error``, ``share``, ``n``.

    Bins that no seed filled are left out. Adaptive bins, whose edges move, are matched by their order.
    """
    keys = [] if by is None else [by]
    place = table.groupby([*keys, "seed"], sort=False).cumcount()
    shares = table["count"] / table.groupby([*keys, "seed"], sort=False)["count"].transform("sum")
    numbered = table.assign(bin=place, share=shares)
    means = (
        numbered.groupby([*keys, "bin"], sort=False)
        .agg(
            low=("low", "mean"), high=("high", "mean"), confidence=("confidence", "mean"),
            accuracy=("accuracy", "mean"), error=("accuracy", "sem"), n=("accuracy", "count"), share=("share", "mean"),
        )
        .reset_index()
    )  # fmt: skip
    return means[means["n"] > 0]


def reliability_traces(
    means: pd.DataFrame, *, tallest: float, index: int = 0, text: str = ""
) -> tuple[go.Scatter, go.Bar, go.Scatter]:
    """The diagonal, the bars of counts and the points of one panel, from :func:`bin_means`."""
    style = look(index)
    diagonal = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as sure as right", legendgroup="diagonal",
        line={"color": INK, "dash": "dash", "width": 1.5}, hoverinfo="skip",
    )  # fmt: skip
    width = (means["high"] - means["low"]).clip(lower=0.004)
    bars = go.Bar(
        x=(means["low"] + means["high"]) / 2, y=means["share"] / tallest * COUNTS, width=width,
        name="share of samples", legendgroup="count",
        marker={"color": faded(INK, 0.45), "line": {"width": 0}, "pattern": {"shape": ""}},
        customdata=means["share"], hovertemplate="%{customdata:.1%} of the samples<extra></extra>",
    )  # fmt: skip
    points = go.Scatter(
        x=means["confidence"], y=means["accuracy"], mode="lines+markers", name="mean ± standard error",
        legendgroup="points", line={"color": style.colour, "dash": style.dash, "width": 2.5},
        marker={"color": style.colour, "symbol": style.symbol, "size": 8},
        error_y={"array": means["error"], "thickness": 1.6, "width": 3, "color": style.colour},
        customdata=means[["n", "share"]],
        hovertemplate=(
            "confidence %{x:.3f}, accuracy %{y:.3f}<br>%{customdata[1]:.1%} of the samples, %{customdata[0]} seeds"
            f"<extra>{text}</extra>"
        ),
    )  # fmt: skip
    return diagonal, bars, points


def accuracy_against_error(
    table: pd.DataFrame,
    *,
    group: str = "method",
    x: str = "ece",
    y: str = "accuracy",
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Accuracy against calibration error: a large mark at each group's means with standard errors, its seeds faint.

    The better a group, the further up and to the left.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, x=x, y=y, group=group)
    figure = go.Figure()
    names = list(table[group].unique())
    for index, name in enumerate(names):
        rows, style = table[table[group] == name], look(index)
        figure.add_trace(
            go.Scatter(
                x=rows[x], y=rows[y], mode="markers", legendgroup=str(name), showlegend=False, hoverinfo="skip",
                marker={"color": faded(style.colour, 0.35), "symbol": style.symbol, "size": 6},
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[rows[x].mean()], y=[rows[y].mean()], mode="markers", name=str(name), legendgroup=str(name),
                marker={"color": style.colour, "symbol": style.symbol, "size": 12, "line": {"width": 1, "color": LINE}},
                error_x={"array": [rows[x].sem()], "thickness": 1.6, "width": 4, "color": style.colour},
                error_y={"array": [rows[y].sem()], "thickness": 1.6, "width": 4, "color": style.colour},
                hovertemplate=f"{named(x, labels)} %{{x:.4f}}, {named(y, labels)} %{{y:.4f}} (n = {len(rows)})"
                f"<extra>{name}</extra>",
            )
        )  # fmt: skip
    figure.update_layout(template=TEMPLATE, title_text=title, height=height_for(len(names)) + 60)
    label_axes(figure, x=named(x, labels), y=named(y, labels))
    return figure


def entropy_histograms(
    entropies: pd.DataFrame, *, by: str = "method", bins: int = 30, title: str | None = None
) -> go.Figure:
    """A panel per value of ``by``: how the entropies of the student's and the teacher's predictions are distributed.

    Args:
        entropies: the columns ``by``, ``network`` and ``entropy`` (nats), one row per prediction.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(entropies, by=by, network="network", entropy="entropy")
    names, networks = list(entropies[by].unique()), list(entropies["network"].unique())
    figure, places = small_multiples([str(name) for name in names], columns=4)
    edges = np.linspace(0, float(entropies["entropy"].max()) or 1.0, bins + 1)
    for name, place in zip(names, places, strict=True):
        for index, network in enumerate(networks):
            chosen = entropies[(entropies[by] == name) & (entropies["network"] == network)]["entropy"]
            style, share = look(index), np.histogram(chosen, edges)[0] / max(1, len(chosen))
            figure.add_trace(
                go.Scatter(
                    x=_steps(edges), y=_stairs(share), mode="lines", name=str(network), legendgroup=str(network),
                    showlegend=place is places[0], fill="tozeroy", fillcolor=faded(style.colour, 0.15),
                    line={"color": style.colour, "dash": style.dash, "width": 2},
                    hovertemplate="%{x:.2f} nats: %{y:.1%}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    title_outer_axes(figure, places, x="entropy of a prediction (nats)", y="share")
    return figure.update_layout(title_text=title)


def _steps(edges: Sequence[float]) -> np.ndarray:
    return np.repeat(np.asarray(edges), 2)[1:-1]


def _stairs(heights: np.ndarray) -> np.ndarray:
    return np.repeat(heights, 2)
