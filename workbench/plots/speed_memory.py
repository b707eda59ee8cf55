"""Memory against speed: every quantised path as an arrow from the model that was not quantised."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import compact, log_ticks
from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.pareto import place_names
from workbench.plots.tables import MARKS
from workbench.plots.theme import INK, look

LABELS = {"memory": "memory (MB)", "speed": "tokens a second"}


def speed_memory(
    table: pd.DataFrame,
    *,
    x: str = "memory",
    y: str = "speed",
    label: str = "precision",
    group: str = "model",
    panel: str | None = None,
    status: str | None = None,
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Speed (high is good) against memory (low is good), both logarithmic; a line joins what is one model.

    To the left and above is better at both; a line that falls to the left bought memory with speed.

    Args:
        panel: column of which every value has a panel with scales of its own, e.g. ours and published.
        status: column that says how sure a number is; those not read at their source carry its mark.

    Raises:
        ValueError: an empty table, a missing column ("did you mean") or nothing above 0.
    """
    check_columns(table, x=x, y=y, label=label, group=group, panel=panel, status=status)
    names = [""] if panel is None else [str(name) for name in table[panel].unique()]
    groups = list(table[group].unique())
    figure, places = small_multiples(names, columns=2, height=330, share_x=False, share_y=False)
    for name, place in zip(names, places, strict=True):
        rows = (table if panel is None else table[table[panel].astype(str) == name]).dropna(subset=[x, y])
        rows = rows.sort_values(x, ascending=False)
        texts = rows[label].astype(str)
        if status:
            texts = texts + [f" {MARKS.get(one, '')}".rstrip() for one in rows[status]]
        spots = place_names(rows[x], rows[y], texts)  # over all models of the panel, so that none covers another
        rows = rows.assign(text=spots.texts, place=spots.positions, told=texts)
        for model, some in rows.groupby(group, sort=False):
            style = look(groups.index(model))
            figure.add_trace(
                go.Scatter(
                    x=some[x], y=some[y], name=str(model), mode="lines+markers+text", text=some["text"],
                    textposition=some["place"], textfont={"size": 11, "color": INK},
                    line={"color": style.colour, "width": 1.2, "dash": style.dash},
                    marker={"color": style.colour, "symbol": style.symbol, "size": 10}, cliponaxis=False,
                    customdata=some[["told"]].to_numpy(),
                    hovertemplate="%{customdata[0]}: %{y:.3g} at %{x:.4g}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
        for update, column in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
            ticks = log_ticks(rows[column])
            logs = np.log10(rows[column].astype(float))
            air = 0.08 * (logs.max() - logs.min()) or 0.3
            # On the right a name needs room.
            reach = [logs.min() - air, logs.max() + (3 if column == x else 1) * air]
            update(type="log", tickvals=ticks, ticktext=[compact(tick) for tick in ticks], range=reach, **place)
    words = LABELS | (labels or {})
    title_outer_axes(figure, places, x=words.get(x, x), y=words.get(y, y))
    return figure.update_layout(title_text=title, margin_t=80 if title else 40)
