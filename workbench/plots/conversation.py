"""Two models that talk: their messages in one plane while they learn, and what each way of teaching gains."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import height_for
from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, PALETTE, SYMBOLS, TEMPLATE, look, named

OPEN = {"student": "", "teacher": "-open"}  # the fill tells who speaks, the shape and colour the label


def message_planes(table: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """One panel per step: every input's message by the student (filled) and by the teacher (open).

    Args:
        table: the columns ``step, model, label, first, second`` of one task; the axes are the two main ones of the
            last step's messages.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, step="step", model="model", label="label", first="first", second="second")
    steps = sorted(table["step"].unique())
    figure, places = small_multiples([f"step {step:,}" for step in steps], columns=4, height=260)
    for step, place in zip(steps, places, strict=True):
        for label, model in ((label, model) for label in sorted(table["label"].unique()) for model in OPEN):
            rows = table[(table["step"] == step) & (table["label"] == label) & (table["model"] == model)]
            style = look(int(label))
            figure.add_trace(
                go.Scatter(
                    x=rows["first"], y=rows["second"], mode="markers", name=f"{model}, class {label}",
                    legendgroup=f"{model} {label}", showlegend=bool(step == steps[0]),
                    marker={"color": style.colour, "symbol": f"{SYMBOLS[int(label) % len(SYMBOLS)]}{OPEN[model]}",
                            "size": 7, "opacity": 0.75},
                    hovertemplate="%{x:.2f}, %{y:.2f}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
    title_outer_axes(figure, places, x="first main axis of the messages", y="second main axis")
    groups = 2 * table["label"].nunique()
    return figure.update_layout(title_text=title, height=figure.layout.height + height_for(groups) - height_for(1))


def gains(
    table: pd.DataFrame,
    *,
    value: str = "gain",
    by: str = "method",
    panel: str = "task",
    against: str = "labels only",
    level: float = 0.95,
    labels: dict[str, str] | None = None,
) -> go.Figure:
    """A bar per method with a t interval over seeds, one panel a task; what covers the line of zero is inconclusive.

    Args:
        table: one row per (method, task, seed): the difference from the method called ``against``.
        level: of the interval.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """  # fmt: skip
    from scipy.stats import t

    check_columns(table, value=value, by=by, panel=panel)
    tasks, methods = list(table[panel].unique()), list(table[by].unique())
    figure, places = small_multiples([str(task) for task in tasks], columns=2, height=28 * len(methods) + 30)
    for task, place in zip(tasks, places, strict=True):
        cells = table[table[panel] == task].groupby(by, sort=False)[value].agg(["mean", "sem", "count"])
        cells = cells.reindex([method for method in methods if method in cells.index])
        half = cells["sem"] * t.ppf((1 + level) / 2, (cells["count"] - 1).clip(lower=1))
        # Filled where the interval leaves zero out.
        clear = (cells["mean"].abs() > half).to_numpy()
        figure.add_trace(
            go.Bar(
                x=cells["mean"], y=[str(name) for name in cells.index], orientation="h", showlegend=False,
                marker={"color": [PALETTE[0] if one else "rgba(0,0,0,0)" for one in clear],
                        "line": {"color": PALETTE[0], "width": 1.5}, "pattern": {"shape": ""}},
                error_x={"array": half, "color": INK, "thickness": 1.8, "width": 4},
                customdata=cells["count"],
                hovertemplate="%{y}: %{x:.3f} (n = %{customdata})<extra></extra>",
            ),
            **place,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": INK, "width": 1}, **place)
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=[str(name) for name in methods])
    axis = named(value, labels) if labels else f"accuracy gained over {against} ({level:.0%} interval)"
    lowest = max(place["row"] for place in places)
    figure.update_xaxes(title_text=axis, row=lowest, col=1)
    return figure.update_layout(template=TEMPLATE)
