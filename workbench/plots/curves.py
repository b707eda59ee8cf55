"""Curves over steps, a mean line with a band over seeds."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.errors import check_choice
from workbench.plots.axes import height_for, label_axes
from workbench.plots.columns import check_columns
from workbench.plots.theme import TEMPLATE, faded, look, named


def curves(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    group: str | None = None,
    band: str = "error",
    labels: dict[str, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    title: str | None = None,
) -> go.Figure:
    """Mean of ``y`` along ``x`` per group, with a band over the rows (seeds) that share a step.

    Args:
        table: tidy rows, one (group, seed, step) a row.
        band: ``error`` = ± one standard error, ``range`` = lowest to highest seed, ``none``.
        labels: column -> axis text with its unit.

    Raises:
        ValueError: an empty table, an unknown band, or a column that is not there ("did you mean").
    """
    check_columns(table, x=x, y=y, group=group)
    check_choice("band", band, ("error", "range", "none"))
    figure = go.Figure()
    names = list(table[group].unique()) if group else [None]
    for index, name in enumerate(names):
        rows = table if name is None else table[table[group] == name]
        cells = rows.dropna(subset=[y]).groupby(x, observed=True)[y]
        steps = cells.agg(mean="mean", error="sem", low="min", high="max").reset_index()
        style, text = look(index), y if name is None else str(name)
        if band != "none" and (steps["low"] < steps["high"]).any():
            figure.add_trace(_band(steps, x, band, colour=style.colour, text=text))
        figure.add_trace(
            go.Scatter(
                x=steps[x],
                y=steps["mean"],
                name=text,
                legendgroup=text,
                showlegend=name is not None,
                mode="lines",
                line={"color": style.colour, "dash": style.dash, "width": 2.5},
                hovertemplate="%{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_layout(template=TEMPLATE, title_text=title, height=height_for(len(names)))
    figure.update_layout(legend_title_text=named(group, labels) if group else None)
    label_axes(figure, x=named(x, labels), y=named(y, labels), log_x=log_x, log_y=log_y)
    return figure


def _band(steps: pd.DataFrame, x: str, band: str, *, colour: str, text: str) -> go.Scatter:
    error = steps["error"].fillna(0)  # one seed at this step: no width
    low, high = (steps["low"], steps["high"]) if band == "range" else (steps["mean"] - error, steps["mean"] + error)
    return go.Scatter(
        x=pd.concat([steps[x], steps[x][::-1]], ignore_index=True),
        y=pd.concat([high, low[::-1]], ignore_index=True),
        fill="toself",
        fillcolor=faded(colour, 0.18),
        line={"width": 0, "color": colour},
        mode="lines",
        name=text,
        legendgroup=text,
        showlegend=False,
        hoverinfo="skip",
    )
