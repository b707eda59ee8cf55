"""Curves that grow while a run publishes points."""

from __future__ import annotations

from collections.abc import Iterable

import ipywidgets as widgets
import plotly.graph_objects as go

from workbench.plots.theme import look
from workbench.telemetry import Point
from workbench.widgets.live import FitWidth, live

SERIES_SHOWN = 12  # the latest; more cannot be told apart
POINTS_SHOWN = 500  # a curve; every second point goes when there are more


class LiveCurves(widgets.VBox):
    """One curve a series; ``points`` keeps all of them, the figure the latest series."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.figure = live(_empty())
        # A figure widget put into a box that is on the page already may stay empty: it is there from the start, and
        # shows with its first point.
        super().__init__([self.figure, FitWidth()] if isinstance(self.figure, widgets.Widget) else [])
        self.layout.display = "none"

    def clear(self) -> None:
        """Forget all curves."""
        self.points = {}
        self.figure.data = []
        self.layout.display = "none"

    def add(self, points: Iterable[Point]) -> None:
        """Draw more points."""
        touched = {}
        for point in points:
            self.points.setdefault(point.series, []).append((point.step, point.value))
            touched[point.series] = None
        if not touched:
            return
        shown = {trace.name: trace for trace in self.figure.data}
        with self.figure.batch_update():
            for series in touched:
                trace = shown.get(series)
                if trace is not None:
                    trace.x, trace.y = _thinned(self.points[series])
        fresh = [series for series in touched if series not in shown]
        for series in fresh[-SERIES_SHOWN:]:
            x, y = _thinned(self.points[series])
            one = look(list(self.points).index(series))
            line = {"color": one.colour, "dash": one.dash}
            self.figure.add_trace(go.Scatter(x=x, y=y, name=series, mode="lines", line=line))
        if len(self.figure.data) > SERIES_SHOWN:
            self.figure.data = self.figure.data[-SERIES_SHOWN:]
        self.layout.display = ""


def _thinned(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    step = -(-len(points) // POINTS_SHOWN)
    kept = points[::-step][::-1]  # counted from the end, so that the latest point always shows
    return [x for x, _ in kept], [y for _, y in kept]


def _empty() -> go.Figure:
    figure = go.Figure()
    # Beside the plot: a dozen long names above it would leave no room.
    legend = {"orientation": "v", "xref": "paper", "x": 1.02, "xanchor": "left", "font": {"size": 12}}
    legend |= {"yref": "paper", "y": 1, "yanchor": "top"}
    figure.update_layout(height=340, xaxis_title="step", yaxis_title="loss", showlegend=True, legend=legend)
    return figure
