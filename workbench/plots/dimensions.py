"""The three dimensions of a quantised model side by side: what it knows, how it behaves, what it costs.

A radar would hide the intervals and make area of what has no common unit; here every measure has its own scale.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples
from workbench.plots.theme import INK, look

ROW = 20  # pixels of a variant in a panel


def dimension_panels(
    table: pd.DataFrame,
    *,
    measure: str = "measure",
    value: str = "value",
    low: str = "low",
    high: str = "high",
    variant: str = "variant",
    dimension: str = "dimension",
    reference: str = "not quantised",
    columns: int = 3,
    title: str | None = None,
) -> go.Figure:
    """One panel per measure, one line per variant, in the table's order from above; a dotted line at the reference.

    Args:
        table: one variant and measure a row; ``low`` and ``high`` are the ends of its interval, NaN where none is.
        reference: the variant that all others are held against.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    names = {"measure": measure, "value": value, "low": low, "high": high, "variant": variant, "dimension": dimension}
    check_columns(table, **names)
    order = list(table[variant].unique())
    kinds = list(table[dimension].unique())
    measures = list(table.drop_duplicates(measure)[[dimension, measure]].itertuples(index=False, name=None))
    headings = [f"{kind}<br><b>{name}</b>" for kind, name in measures]
    figure, places = small_multiples(headings, columns=columns, height=max(140, ROW * len(order)), share_x=False)
    for (kind, name), place in zip(measures, places, strict=True):
        rows = table[table[measure] == name].set_index(variant).reindex(order).reset_index()
        style = look(kinds.index(kind))
        above, below = rows[high] - rows[value], rows[value] - rows[low]
        figure.add_trace(
            go.Scatter(
                x=rows[value], y=rows[variant], mode="markers", showlegend=False,
                marker={"color": style.colour, "symbol": style.symbol, "size": 8},
                error_x={"array": above, "arrayminus": below, "symmetric": False, "thickness": 1.4, "width": 3,
                         "color": style.colour},
                hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            ),
            **place,
        )  # fmt: skip
        level = rows.loc[rows[variant] == reference, value]
        if level.notna().any():
            figure.add_vline(x=level.iloc[0], line={"dash": "dot", "width": 1.5, "color": INK}, **place)
        figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=order, tickfont_size=11, **place)
        figure.update_xaxes(range=_span(rows, value, low, high), nticks=5, **place)
    return figure.update_layout(title_text=title, margin_t=104 if title else 64, height=figure.layout.height + 24)


def _span(rows: pd.DataFrame, *columns: str) -> list[float] | None:
    finite = [number for name in columns for number in rows[name] if math.isfinite(number)]
    if not finite:
        return None
    air = 0.08 * (max(finite) - min(finite)) or 0.1 * abs(finite[0]) or 0.1
    return [min(finite) - air, max(finite) + air]
