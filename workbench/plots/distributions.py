"""Distributions over a few tokens side by side, and how a loss pushes each of them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import check_choice
from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, PALETTE, TEMPLATE, look

PATTERNS = ("", "/", "x", "-", "\\", "|", "+")  # as many as colours; tell neighbouring bars apart in grey
PROBABILITY = "probability"
PUSH = "push (−gradient)"


def probability_bars(
    table: pd.DataFrame,
    *,
    position: str = "position",
    token: str = "token",
    series: str = "series",
    probability: str = "probability",
    marked: tuple[str, ...] = (),
    title: str | None = None,
) -> go.Figure:
    """Bars per token and distribution; those in ``marked`` (mixtures, targets) are markers over the bars.

    Args:
        table: tidy rows, one (``position``, ``series``) a row; positions keep equal-looking tokens apart.
        marked: names of ``series`` drawn as markers.

    Raises:
        ValueError: an empty table, a missing column or an unknown ``marked`` ("did you mean").
    """
    check_columns(table, position=position, token=token, series=series, probability=probability)
    names = list(table[series].unique())
    for name in marked:
        check_choice("marked", name, names)
    figure = go.Figure()
    for index, name in enumerate(names):
        rows = table[table[series] == name]
        draw = _markers if name in marked else _bars
        figure.add_trace(draw(rows[position], rows[probability], str(name), index))
    _name_tokens(figure, table, position, token)
    figure.update_yaxes(title_text=PROBABILITY, rangemode="tozero")
    figure.update_xaxes(title_text="token")
    return figure.update_layout(template=TEMPLATE, title_text=title, barmode="group", bargap=0.25)


def gradient_bars(
    table: pd.DataFrame,
    *,
    position: str = "position",
    token: str = "token",
    loss: str = "loss",
    push: str = "push",
    title: str | None = None,
) -> go.Figure:
    """Bars per token and loss: minus the gradient, so that a bar upwards raises the token.

    Args:
        table: tidy rows, one (``position``, ``loss``) a row; ``push`` in nats per unit of logit.

    Raises:
        ValueError: an empty table or a missing column ("did you mean").
    """
    check_columns(table, position=position, token=token, loss=loss, push=push)
    figure = go.Figure()
    for index, name in enumerate(table[loss].unique()):
        rows = table[table[loss] == name]
        figure.add_trace(_bars(rows[position], rows[push], str(name), index, signed=True))
    _name_tokens(figure, table, position, token)
    figure.update_yaxes(title_text=PUSH, zeroline=True)
    figure.update_xaxes(title_text="token")
    return figure.update_layout(template=TEMPLATE, title_text=title, barmode="group", bargap=0.25)


def distributions_and_gradients(upper: go.Figure, lower: go.Figure, *, title: str | None = None) -> go.Figure:
    """:func:`probability_bars` over :func:`gradient_bars` on one token axis, each with a legend of its own."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.2)
    for row, (part, legend) in enumerate(((upper, "legend"), (lower, "legend2")), start=1):
        for trace in part.data:
            figure.add_trace(trace, row=row, col=1)
            figure.data[-1].legend = legend
    ticks = upper.layout.xaxis
    figure.update_xaxes(tickvals=ticks.tickvals, ticktext=ticks.ticktext, showticklabels=True, showgrid=False)
    figure.update_yaxes(title_text=PROBABILITY, rangemode="tozero", row=1)
    figure.update_yaxes(title_text=PUSH, zeroline=True, zerolinecolor=INK, zerolinewidth=1.5, row=2)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "yref": "paper", "yanchor": "bottom"}
    return figure.update_layout(
        template=TEMPLATE,
        title_text=title,
        height=560,
        barmode="group",
        bargap=0.25,
        legend={**legend, "y": 1.01},
        legend2={**legend, "y": 0.38},
    )


def _bars(x: pd.Series, y: pd.Series, name: str, index: int, *, signed: bool = False) -> go.Bar:
    # Colours come round again after seven; the pattern then is the next one.
    pattern = PATTERNS[(index + index // len(PALETTE)) % len(PATTERNS)]
    return go.Bar(
        x=x.to_numpy(),
        y=y.to_numpy(),
        name=name,
        marker={
            "color": look(index).colour,
            "pattern": {"shape": pattern, "fillmode": "overlay", "solidity": 0.3},
        },
        hovertemplate="%{y:" + ("+" if signed else "") + ".4f}<extra>%{fullData.name}</extra>",
    )


def _markers(x: pd.Series, y: pd.Series, name: str, index: int) -> go.Scatter:
    style = look(index)
    return go.Scatter(
        x=x.to_numpy(),
        y=y.to_numpy(),
        name=name,
        mode="markers",
        marker={"symbol": style.symbol, "size": 11, "color": style.colour, "line": {"width": 1.5, "color": "white"}},
        hovertemplate="%{y:.4f}<extra>%{fullData.name}</extra>",
    )


def _name_tokens(figure: go.Figure, table: pd.DataFrame, position: str, token: str) -> None:
    tokens = table.drop_duplicates(position)
    figure.update_xaxes(tickvals=list(tokens[position]), ticktext=list(tokens[token]), showgrid=False)
