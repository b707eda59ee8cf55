"""Held-out loss of every student while it learns: colour and marker are the teacher, the dash is the loss."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import ipywidgets as widgets
import plotly.graph_objects as go

from workbench.plots.theme import DASHES, GREYED, PALETTE, SYMBOLS
from workbench.training.objective import NO_TEACHER
from workbench.widgets.bench_pool import Line
from workbench.widgets.live import FitWidth, live

AXES = {"step": 0, "seconds of training": 2}
TITLE = "held-out loss, nats per byte"
MARKERS = 6  # on a curve: enough to tell teachers apart in grey


class BenchCurves(widgets.VBox):
    """Curves that grow, smoothed by a slider; ``show`` draws what has changed, ``clear`` begins anew."""

    def __init__(self) -> None:
        self.smoothing = widgets.FloatSlider(
            0.0, min=0.0, max=0.95, step=0.05, description="Smoothing", continuous_update=True
        )
        self.against = widgets.Dropdown(options=list(AXES), description="Against")
        self.figure = live(_empty())
        self.lines: list[Line] = []
        self._places: dict[int, int] = {}  # line -> trace
        self._drawing = threading.RLock()  # the slider's thread and the training's draw on one figure
        self.smoothing.observe(lambda _: self._redraw(), names="value")
        self.against.observe(lambda _: self._redraw(), names="value")
        controls = widgets.HBox([self.smoothing, self.against], layout=widgets.Layout(flex_flow="wrap"))
        shown = [controls, self.figure, FitWidth()] if isinstance(self.figure, widgets.Widget) else []
        super().__init__(shown)
        self.layout.display = "none"  # until the first point: a figure without any has axes of no meaning

    def clear(self, lines: Sequence[Line]) -> None:
        """Forget the curves; show those of ``lines`` from now on."""
        with self._drawing:
            self.lines, self._places = list(lines), {}
            self.figure.data = []
            self.show()
            self.layout.display = "" if self._places else "none"

    def show(self) -> None:
        """Draw the lines that have changed, and forget that they have."""
        with self._drawing:
            changed = [index for index, line in enumerate(self.lines) if line.changed and line.points]
            for line in self.lines:
                line.changed = False
            known = [index for index in changed if index in self._places]
            fresh = [index for index in changed if index not in self._places]
            if known:
                with self.figure.batch_update():
                    for index in known:
                        trace = self.figure.data[self._places[index]]
                        trace.x, trace.y = self._points(self.lines[index])
            if fresh:
                self._places |= {index: len(self.figure.data) + place for place, index in enumerate(fresh)}
                self.figure.add_traces([self._trace(index) for index in fresh])
                self.layout.display = ""

    def _redraw(self) -> None:
        with self._drawing, self.figure.batch_update():
            for index, place in self._places.items():
                trace = self.figure.data[place]
                trace.x, trace.y = self._points(self.lines[index])
            weight = self.smoothing.value
            self.figure.layout.xaxis.title.text = self.against.value + (f", {weight:.0%} smoothed" if weight else "")

    def _points(self, line: Line) -> tuple[list[float], list[float]]:
        axis = AXES[self.against.value]
        points = list(line.points)  # another thread may append
        return [point[axis] for point in points], smoothed([point[1] for point in points], self.smoothing.value)

    def _trace(self, index: int) -> go.Scatter:
        line = self.lines[index]
        teachers = list(dict.fromkeys(one.run.source for one in self.lines if one.run.teacher != NO_TEACHER))
        losses = list(dict.fromkeys(one.run.loss for one in self.lines if one.run.teacher != NO_TEACHER))
        name = f"{line.run.source}, {line.run.loss}"
        first = next(one for one in self.lines if (one.run.source, one.run.loss) == (line.run.source, line.run.loss))
        alone = line.run.teacher == NO_TEACHER
        place = 0 if alone else teachers.index(line.run.source)
        colour = GREYED if alone else PALETTE[place % len(PALETTE)]
        dash = "solid" if alone else DASHES[losses.index(line.run.loss) % (len(DASHES) - 1)]
        x, y = self._points(line)
        return go.Scatter(
            x=x, y=y, name=name, legendgroup=name, showlegend=first is line, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={
                "color": colour, "symbol": "asterisk-open" if alone else SYMBOLS[place % len(SYMBOLS)], "size": 8,
                "maxdisplayed": MARKERS,
            },
            hovertemplate=f"%{{x:.4g}}: %{{y:.4f}}<extra>{name}, seed {line.run.seed}</extra>",
        )  # fmt: skip


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """The running mean in which each older value counts ``weight`` times the next, without a pull to 0 at the start."""
    found, total, share = [], 0.0, 0.0
    for value in values:
        total, share = weight * total + (1 - weight) * value, weight * share + (1 - weight)
        found.append(total / share)
    return found


def _empty() -> go.Figure:
    figure = go.Figure()
    legend = {"orientation": "v", "xref": "paper", "x": 1.02, "xanchor": "left", "font": {"size": 12}}
    legend |= {"yref": "paper", "y": 1, "yanchor": "top"}
    figure.update_layout(
        height=360, xaxis_title="step", yaxis_title=TITLE, showlegend=True,
        legend=legend, legend_title_text="teacher, loss",
    )  # fmt: skip
    return figure
