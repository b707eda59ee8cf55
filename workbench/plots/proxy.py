"""Does a cheap number predict a dear one: perplexity against the scores of every benchmark, with rank correlation."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import compact, log_ticks
from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, look


def proxy_panels(
    table: pd.DataFrame,
    correlations: pd.DataFrame | None = None,
    *,
    x: str = "perplexity",
    y: str = "score",
    panel: str = "benchmark",
    group: str = "model",
    label: str = "variant",
    chance: str | None = "chance",
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """One panel per benchmark: every variant's score against its perplexity (logarithmic), a look per model.

    Args:
        table: one variant of one model a row.
        correlations: the columns ``panel``, ``estimate``, ``low`` and ``high``: Spearman's rho, said in the titles.
        chance: column with the score of somebody who knows nothing, drawn as a dotted line; None leaves it out.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    check_columns(table, x=x, y=y, panel=panel, group=group, label=label, chance=chance)
    names = list(table[panel].unique())
    figure, places = small_multiples([_heading(name, correlations, panel) for name in names], columns=2, height=230,
                                     share_x=False, share_y=False)  # fmt: skip
    groups = list(table[group].unique())
    for first, (name, place) in enumerate(zip(names, places, strict=True)):
        rows = table[table[panel] == name].dropna(subset=[x, y])
        for index, model in enumerate(groups):
            some = rows[rows[group] == model]
            style = look(index)
            figure.add_trace(
                go.Scatter(
                    x=some[x], y=some[y], name=str(model), legendgroup=str(model), showlegend=first == 0,
                    mode="markers",
                    marker={"color": style.colour, "symbol": style.symbol, "size": 9, "opacity": 0.8},
                    customdata=some[[label]].astype(str).to_numpy(),
                    hovertemplate="%{customdata[0]}: %{y:.3f} at %{x:.4g}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
        if not rows.empty:
            ticks = log_ticks(rows[x])
            figure.update_xaxes(type="log", tickvals=ticks, ticktext=[compact(tick) for tick in ticks], **place)
            if chance is not None and rows[chance].notna().any():
                figure.add_hline(y=rows[chance].mean(), line={"dash": "dot", "width": 1.5, "color": INK}, **place)
    words = labels or {}
    title_outer_axes(figure, places, x=words.get(x, x), y=words.get(y, y))
    return figure.update_layout(title_text=title, margin_t=80 if title else 40)


def _heading(name: str, correlations: pd.DataFrame | None, panel: str) -> str:
    found = None if correlations is None else correlations[correlations[panel] == name]
    if found is None or found.empty:
        return str(name)
    row = found.iloc[0]
    return f"{name}<br>ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
