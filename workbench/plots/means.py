"""Means with their standard errors over seeds, the paper's numbers marked beside them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import height_for, label_axes
from workbench.plots.columns import check_columns, spread
from workbench.plots.theme import GREYED, TEMPLATE, look, named


def with_errors(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    group: str | None = None,
    published: pd.DataFrame | None = None,
    labels: dict[str, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    title: str | None = None,
) -> go.Figure:
    """Mean ± standard error of ``y`` over all rows that share ``x`` and ``group``, one line per group.

    Args:
        table: tidy rows, one observation (seed) a row.
        published: the paper's numbers for the same cells: the columns ``x``, ``published``,
            ``status`` and, where groups differ, ``group``. Drawn as stars; recalled ones grey and open.
        labels: column -> axis text with its unit.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, x=x, y=y, group=group)
    figure = go.Figure()
    order = list(table[group].unique()) if group else [None]
    for index, name in enumerate(order):
        rows = table if name is None else table[table[group] == name]
        figure.add_trace(_line(spread(rows, x=x, y=y), x=x, y=y, name=name, index=index))
    if published is not None:
        check_columns(published, argument="published", x=x, published="published", status="status")
        _add_stars(figure, published, x=x, group=group, order=order)
    figure.update_layout(template=TEMPLATE, title_text=title, height=height_for(len(order)))
    figure.update_layout(legend_title_text=named(group, labels) if group else None)
    label_axes(figure, x=named(x, labels), y=named(y, labels), log_x=log_x, log_y=log_y)
    return figure


def _line(means: pd.DataFrame, *, x: str, y: str, name: object, index: int) -> go.Scatter:
    style = look(index)
    return go.Scatter(
        x=means[x],
        y=means["mean"],
        name=y if name is None else str(name),
        showlegend=name is not None,
        mode="lines+markers",
        line={"color": style.colour, "dash": style.dash, "width": 2.5},
        marker={"color": style.colour, "symbol": style.symbol, "size": 9},
        error_y={"array": means["error"], "thickness": 1.6, "width": 4, "color": style.colour},
        customdata=means[["error", "n"]],
        hovertemplate="%{x}: %{y:.4g} ± %{customdata[0]:.2g} (n = %{customdata[1]})<extra>%{fullData.name}</extra>",
    )


def _add_stars(figure: go.Figure, published: pd.DataFrame, *, x: str, group: str | None, order: list) -> None:
    """One trace per status, so that the legend says which numbers were only recalled."""
    for status, rows in published.groupby("status", sort=False):
        recalled = status == "recalled"
        grouped = group is not None and group in rows.columns
        places = [order.index(name) if name in order else 0 for name in rows[group]] if grouped else [0] * len(rows)
        names = rows[group].astype(str) if grouped else [""] * len(rows)
        figure.add_trace(
            go.Scatter(
                x=rows[x],
                y=rows["published"],
                name=f"published ({status})",
                mode="markers",
                marker={
                    "symbol": "star-open" if recalled else "star",
                    "size": 13,
                    "color": GREYED if recalled else [look(place).colour for place in places],
                    "line": {"width": 1.2 if recalled else 0.8, "color": GREYED if recalled else "#ffffff"},
                },
                customdata=list(names),
                hovertemplate="%{customdata} %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
            )
        )
