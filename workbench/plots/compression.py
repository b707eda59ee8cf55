"""How well hidden states are compressed: spectra, metrics against loss, what an operation changes, and time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import height_for, label_axes
from workbench.plots.columns import check_columns, spread
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, LINE, TEMPLATE, faded, look, named

READ = "one read"
READ_LABEL = "two reads of the matrix (memory)"


def norm_spectrum(table: pd.DataFrame, *, top: int | None = None, title: str | None = None) -> go.Figure:
    """Column norms beside singular values, each in falling order, on a logarithmic axis.

    Where the two curves lie apart, the sum of the one says little about the sum of the other.

    Args:
        table: the columns ``kind, rank, value``.
        top: the number of columns that the norm sums up to, as a vertical line.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, kind="kind", rank="rank", value="value")
    figure = go.Figure([*spectrum_traces(table)])
    figure.update_layout(template=TEMPLATE, title_text=title)
    label_axes(figure, x="rank", y="column norm, singular value", log_y=bool((table["value"] > 0).any()))
    if top is not None:
        figure.add_vline(x=top, line={"color": INK, "dash": "dash", "width": 1.5}, annotation_text=f"D = {top}")
    return figure


def spectrum_traces(table: pd.DataFrame) -> list[go.Scatter]:
    """A line per ``kind``; values that rounding made 0 have no place on a logarithmic axis and are left out."""
    traces = []
    for index, kind in enumerate(table["kind"].unique()):
        rows, style = table[(table["kind"] == kind) & (table["value"] > 1e-6)], look(index)
        traces.append(
            go.Scatter(
                x=rows["rank"].tolist(), y=rows["value"].tolist(), mode="lines", name=f"{kind}s",
                line={"color": style.colour, "dash": style.dash, "width": 2.5},
                hovertemplate=f"{kind} %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )  # fmt: skip
    return traces


def metric_against_loss(
    table: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("mnn_over_bound", "entropy"),
    model: str = "model",
    state: str = "state",
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """A panel per metric: its mean against the mean loss of every model and state, with standard errors over seeds.

    The states of one model are joined in the table's order and written beside their points.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, model=model, state=state, loss="loss", **{f"metrics[{one}]": one for one in metrics})
    figure, places = small_multiples(
        [named(metric, labels) for metric in metrics], columns=2, height=300, share_y=False
    )
    names = list(table[model].unique())
    for metric, place in zip(metrics, places, strict=True):
        for index, name in enumerate(names):
            cells = table[table[model] == name].groupby(state, sort=False)[["loss", metric]]
            means, errors, style = cells.mean(), cells.sem(), look(index)
            figure.add_trace(
                go.Scatter(
                    x=means["loss"], y=means[metric], mode="lines+markers+text", name=str(name), legendgroup=str(name),
                    text=list(means.index) if index == 0 else None, textposition="top center", cliponaxis=False,
                    textfont={"size": 12, "color": INK}, showlegend=place is places[0],
                    line={"color": faded(style.colour, 0.5), "dash": style.dash, "width": 1.5},
                    marker={"color": style.colour, "symbol": style.symbol, "size": 10},
                    error_x={"array": errors["loss"], "thickness": 1.6, "width": 4, "color": style.colour},
                    error_y={"array": errors[metric], "thickness": 1.6, "width": 4, "color": style.colour},
                    customdata=list(means.index),
                    hovertemplate="%{customdata}: loss %{x:.3f}, %{y:.4f}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
    lowest, highest = table["loss"].min(), table["loss"].max()
    room = 0.16 * (highest - lowest or 1.0)
    figure.update_xaxes(range=[lowest - room, highest + room])
    for metric, place in zip(metrics, places, strict=True):
        low, high = table[metric].min(), table[metric].max()
        room = 0.16 * (high - low or 1.0)  # for the words over the highest point
        figure.update_yaxes(range=[low - room, high + room], **place)
    title_outer_axes(figure, places, x=named("loss", labels), y="")
    if title is not None:
        figure.update_layout(title_text=title, margin={"t": 76})  # over the panels' own titles
    return figure.update_layout(height=figure.layout.height + height_for(len(names)) - height_for(1) + 36)


def published_against_loss(
    table: pd.DataFrame, *, metrics: dict[str, str], group: str = "family", title: str | None = None
) -> go.Figure:
    """A panel per data set: the published metrics against the published loss; suspicious cells are large and open.

    Args:
        table: the columns ``dataset``, ``group``, ``model``, ``loss``, ``suspicious`` and those of ``metrics``.
        metrics: column -> what the legend calls it.

    Raises:
        ValueError: no row with a loss, or a column that is not there ("did you mean").
    """
    check_columns(table, dataset="dataset", group=group, loss="loss", suspicious="suspicious")
    rows = table.dropna(subset=["loss"])
    check_columns(rows, **{f"metrics[{one}]": one for one in metrics})
    datasets = list(rows["dataset"].unique())
    figure, places = small_multiples(datasets, columns=2, height=240)
    for dataset, place in zip(datasets, places, strict=True):
        pairs = [(family, metric) for family in rows[group].unique() for metric in metrics]
        for index, (family, metric) in enumerate(pairs):
            cells = rows[(rows["dataset"] == dataset) & (rows[group] == family)]
            style, text = look(index), f"{family}, {metrics[metric]}"
            flagged = cells["suspicious"] & (metric == next(iter(metrics)))
            figure.add_trace(
                go.Scatter(
                    x=cells["loss"], y=cells[metric], mode="lines+markers", name=text, legendgroup=text,
                    showlegend=place is places[0],
                    line={"color": faded(style.colour, 0.6), "dash": style.dash, "width": 1.5},
                    marker={
                        "color": style.colour, "size": [15 if flag else 8 for flag in flagged],
                        "symbol": [f"{style.symbol}-open" if flag else style.symbol for flag in flagged],
                    },
                    customdata=[f"{name}{' (suspicious)' if flag else ''}"
                                for name, flag in zip(cells["model"], flagged, strict=True)],
                    hovertemplate="%{customdata}: loss %{x:.3f}, %{y:.4f}<extra>%{fullData.name}</extra>",
                ),
                **place,
            )  # fmt: skip
    title_outer_axes(figure, places, x="loss (nats per token)", y="metric")
    return figure.update_layout(title_text=title)


def effects(
    table: pd.DataFrame, *, measures: dict[str, str], by: str = "operation", title: str | None = None
) -> go.Figure:
    """A panel per measure: what each operation changes, with its interval; an open point covers zero.

    Args:
        table: the columns ``by``, ``measure``, ``estimate``, ``low``, ``high``, ``n``.
        measures: which measures, and what their panels are called.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, by=by, measure="measure", estimate="estimate", low="low", high="high", n="n")
    names = list(table[by].unique())
    figure, places = small_multiples(list(measures.values()), columns=3, height=60 + 34 * len(names), share_x=False)
    for index, (measure, place) in enumerate(zip(measures, places, strict=True)):
        rows, style = table[table["measure"] == measure], look(index)
        unsure = (rows["low"] <= 0) & (rows["high"] >= 0)
        figure.add_trace(
            go.Scatter(
                x=rows["estimate"], y=rows[by], mode="markers", showlegend=False,
                marker={"color": style.colour, "size": 11, "line": {"width": 2, "color": style.colour},
                        "symbol": [f"circle{'-open' if one else ''}" for one in unsure]},
                error_x={"array": rows["high"] - rows["estimate"], "arrayminus": rows["estimate"] - rows["low"],
                         "thickness": 2, "width": 5, "color": style.colour},
                customdata=rows[["low", "high", "n"]],
                hovertemplate="%{y}: %{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}], n = %{customdata[2]}"
                "<extra></extra>",
            ),
            **place,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": LINE, "width": 1.5}, **place)
    figure.update_yaxes(autorange="reversed", type="category", categoryorder="array", categoryarray=names)
    title_outer_axes(figure, places, x="after the operation less before", y="")
    return figure.update_layout(title_text=title)


def time_against_width(table: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """CPU time of each way against the width, both logarithmic; the dashed grey line is reading the matrix twice.

    Args:
        table: the columns ``what, width, cpu_ms``; ``one read`` among ``what`` gives the line.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, what="what", width="width", cpu_ms="cpu_ms")
    figure = go.Figure()
    for index, name in enumerate(one for one in table["what"].unique() if one != READ):
        rows, style = spread(table[table["what"] == name], x="width", y="cpu_ms"), look(index)
        figure.add_trace(
            go.Scatter(
                x=rows["width"], y=rows["mean"], mode="lines+markers", name=str(name),
                line={"color": style.colour, "dash": style.dash, "width": 2.5},
                marker={"color": style.colour, "symbol": style.symbol, "size": 9},
                hovertemplate="width %{x}: %{y:.4g} ms<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
    reads = table[table["what"] == READ]
    if len(reads):
        rows = spread(reads, x="width", y="cpu_ms")
        figure.add_trace(
            go.Scatter(
                x=rows["width"], y=2 * rows["mean"], mode="lines", name=READ_LABEL,
                line={"color": INK, "dash": "dash", "width": 2},
                hovertemplate="width %{x}: %{y:.4g} ms<extra>two reads</extra>",
            )
        )  # fmt: skip
    figure.update_layout(template=TEMPLATE, title_text=title, height=height_for(len(figure.data)) + 40)
    label_axes(figure, x="width of the hidden states", y="time (CPU ms)", log_x=True, log_y=True)
    return figure
