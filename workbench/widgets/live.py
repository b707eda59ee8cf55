"""Figures that move under the hand, and their still form where nobody looks on."""

from __future__ import annotations

import os
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import HTML, display

import workbench.plots.theme  # noqa: F401  registers the look of every figure


def headless() -> bool:
    """Whether a runner executes the notebook, so that no hand will move anything."""
    return bool(os.environ.get("WORKBENCH_RUN"))


def live(figure: go.Figure) -> go.Figure | go.FigureWidget:
    """``figure`` as a widget that can be changed in place; as it is when headless.

    A figure widget stores plotly.js itself in the saved notebook, 5 MB a piece, for a slider nobody can move.
    """
    if headless():
        return figure
    widget = go.FigureWidget(figure)
    widget.layout.autosize = True
    widget._config = {**widget._config, "responsive": True, "displaylogo": False}  # as wide as the page, whatever it is
    return widget


class FitWidth(anywidget.AnyWidget):
    """Nothing to see: makes responsive figures take the width of the page when they appear and when it changes.

    A figure widget is drawn before it is put on the page, 700 pixels wide, and looks again only when told.
    """

    _esm = """
    function render({ el }) {
      let width = 0;
      const tell = () => window.dispatchEvent(new Event("resize"));
      const observer = new ResizeObserver(() => {
        if (el.clientWidth === width) return;
        width = el.clientWidth;
        tell();
      });
      observer.observe(el);
      // The figures beside this one may be drawn later than it.
      const later = [100, 500, 2000].map((wait) => setTimeout(tell, wait));
      return () => { observer.disconnect(); later.forEach(clearTimeout); };
    }
    export default { render };
    """


class LiveBox(widgets.VBox):
    """A column of widgets and live figures; a headless run shows its figures and tables without the controls."""

    def __init__(self, parts: list[Any]):
        self._parts = parts
        # A still figure is no widget; no box can hold it.
        shown = [part for part in parts if isinstance(part, widgets.Widget)]
        super().__init__(shown if headless() else [*shown, FitWidth()])

    def _ipython_display_(self) -> None:
        if not headless():
            display(self._repr_mimebundle_(), raw=True)
            return
        for part in self._parts:
            if isinstance(part, go.Figure):
                display(part)
            elif isinstance(part, widgets.HTML) and part.value:
                display(HTML(part.value))
