"""Claims as intervals against their thresholds."""

from __future__ import annotations

import math
import textwrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, PALETTE, TEMPLATE, faded

# Sign and marker carry the verdict; the colour only repeats it.
SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "~", "not judged": "–"}
LOOKS = {
    "supported": ("circle", PALETTE[2]),
    "contradicted": ("x", PALETTE[1]),
    "inconclusive": ("diamond-open", INK),
    "not judged": ("circle-open", INK),
}
STRIP, GAP = 34, 92  # pixels: a strip, and the ticks below it with up to three lines of the next statement


def verdicts(claims: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """One strip per claim on its own axis: the interval, the estimate, and the shaded range in which it holds.

    Args:
        claims: one row per claim as ``Claim.as_dict`` gives it: ``statement``, ``verdict``, ``estimate``,
            ``low``, ``high``, ``n``, ``above`` and ``below`` (NaN or None where there is no such threshold).

    Raises:
        ValueError: no claims, or a column that is not there.
    """
    needed = ("statement", "verdict", "estimate", "low", "high", "above", "below")
    check_columns(claims, argument="claims", **{name: name for name in needed})
    rows = claims.to_dict("records")
    plot = STRIP * len(rows) + GAP * (len(rows) - 1)  # strips keep their height however many there are
    figure = make_subplots(rows=len(rows), cols=1, vertical_spacing=GAP / plot if len(rows) > 1 else 0)
    for place, row in enumerate(rows, start=1):
        _add_strip(figure, row, place)
        top = 1 - (place - 1) * (STRIP + GAP) / plot
        figure.add_annotation(
            text=_heading(row), x=0, xref="paper", xanchor="left", align="left",
            y=top, yref="paper", yanchor="bottom", yshift=4, showarrow=False, font_size=13,
        )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-1, 1], fixedrange=True)
    figure.update_xaxes(showline=False, zeroline=False, ticks="", tickfont_size=11, nticks=6)
    figure.update_layout(
        template=TEMPLATE, title_text=title, height=plot + 104, margin={"t": 74, "b": 30, "l": 12}, showlegend=False
    )
    return figure


def span_of(row: dict) -> tuple[float, float]:
    """From where to where a claim's own axis goes: its interval and thresholds with a little air."""
    shown = [row.get(key) for key in ("estimate", "low", "high", "above", "below")]
    finite = [float(value) for value in shown if value is not None and math.isfinite(value)]
    if not finite:
        return -1.0, 1.0
    low, high = min(finite), max(finite)
    air = 0.18 * (high - low) or abs(low) * 0.5 or 1.0
    return low - air, high + air


def _heading(row: dict) -> str:
    return "<br>".join(textwrap.wrap(f"{SIGNS[row['verdict']]} {row['statement']} ({row['verdict']})", 44))


def _add_strip(figure: go.Figure, row: dict, place: int) -> None:
    low, high = span_of(row)
    symbol, colour = LOOKS[row["verdict"]]
    floor, ceiling = (None if pd.isna(row[key]) else row[key] for key in ("above", "below"))
    figure.add_vrect(
        x0=low if floor is None else floor,
        x1=high if ceiling is None else ceiling,
        fillcolor=faded(PALETTE[2], 0.14),
        line_width=0,
        layer="below",
        exclude_empty_subplots=False,
        row=place,
        col=1,
    )
    for edge in (floor, ceiling):
        if edge is not None:
            figure.add_vline(
                x=edge,
                line={"dash": "dash", "width": 1.5, "color": INK},
                exclude_empty_subplots=False,
                row=place,
                col=1,
            )
    interval = {"type": "data", "symmetric": False, "thickness": 3, "width": 7, "color": colour}
    if math.isfinite(row["low"]) and math.isfinite(row["high"]):
        interval |= {"array": [row["high"] - row["estimate"]], "arrayminus": [row["estimate"] - row["low"]]}
    figure.add_trace(
        go.Scatter(
            x=[row["estimate"]],
            y=[0],
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 13, "line": {"width": 2, "color": colour}},
            error_x=interval,
            name=row["verdict"],
            hovertemplate=f"%{{x:.4g}} [{row['low']:.4g}, {row['high']:.4g}]<extra>{row['verdict']}</extra>",
        ),
        row=place,
        col=1,
    )
    figure.update_xaxes(range=[low, high], row=place, col=1)
