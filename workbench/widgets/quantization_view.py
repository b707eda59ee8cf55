"""One layer under the hand: controls of the grid and the method, the figure, and the numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from workbench.plots.weight_grid import axis_titles, weight_grid, weight_grid_traces
from workbench.quantizers.layer_report import LayerReport
from workbench.quantizers.recipes import LayerRecipe
from workbench.widgets.live import live
from workbench.widgets.quantization_layers import METHODS, SCHEMES, QuantizationBench, Settings, is_slow

BITS = (2, 3, 4, 8)
STYLE = {"description_width": "110px"}
# Three in a row on a page, two on half of one.
COLUMN = {"flex": "1 1 280px", "min_width": "280px", "max_width": "370px"}
THRESHOLDS = {"spqr": (0.2, 0.02, 5.0, 0.02), "llm_int8": (6.0, 0.5, 20.0, 0.5)}  # value, least, most, step
KIB = 1024


class LayerView:
    """Controls, figure and numbers of one layer; ``parts`` are the widgets in their order.

    Read back ``settings`` and ``report``; ``sentence`` says what is drawn, or why it cannot be.
    """

    def __init__(self, bench: QuantizationBench, layer: str | None = None):
        self._bench = bench
        layer = bench.layers[0] if layer is None else layer
        layout = widgets.Layout(width="auto")
        self.layer = widgets.Dropdown(
            options=bench.layers, value=layer, description="Layer", style=STYLE, layout=layout
        )
        self.bits = widgets.SelectionSlider(options=BITS, value=4, description="Bits", style=STYLE, layout=layout)
        self.group = widgets.SelectionSlider(
            options=bench.groups(layer), value=bench.usual_group(layer), description="Group (inputs)", style=STYLE,
            layout=layout,
        )  # fmt: skip
        self.scheme = widgets.Dropdown(
            options=list(SCHEMES), value="asymmetric, integer zero", description="Scheme", style=STYLE, layout=layout
        )
        self.method = widgets.Dropdown(options=list(METHODS), description="Method", style=STYLE, layout=layout)
        self.threshold = widgets.FloatSlider(
            0.2, min=0.02, max=5.0, step=0.02, description="Outliers above", style=STYLE, layout=layout, disabled=True,
            tooltip="SpQR: error in parts of the mean error; LLM.int8(): magnitude of an input",
        )  # fmt: skip
        beside = widgets.Layout(width="auto", margin="2px 0 2px 118px")  # below the controls, not their descriptions
        self.mse = widgets.Checkbox(False, description="clip where the error is least", indent=False, layout=beside)
        self.rotate = widgets.Checkbox(False, description="rotate inputs (Hadamard)", indent=False, layout=beside)
        self.axis = widgets.Dropdown(
            options=[("in steps of each group's grid", "steps"), ("in the weight's unit", "weight")],
            description="Histogram", style=STYLE, layout=layout,
        )  # fmt: skip
        self.numbers, self.sentence = widgets.HTML(), widgets.HTML()
        self.report = bench.report(self.settings)
        self.figure = live(self._figure())
        self.layer.observe(self._open, names="value")
        self.method.observe(self._turn, names="value")
        for control in (self.bits, self.group, self.scheme, self.threshold, self.mse, self.rotate, self.axis):
            control.observe(self.redraw, names="value")
        self._enable()
        self.redraw()
        columns = [
            [self.layer, self.bits, self.group],
            [self.scheme, self.mse, self.axis],
            [self.method, self.rotate, self.threshold],
        ]
        controls = widgets.HBox(
            [widgets.VBox(column, layout=COLUMN) for column in columns], layout={"flex_flow": "row wrap"}
        )
        self.parts = [controls, self.sentence, self.numbers, self.figure]

    @property
    def settings(self) -> Settings:
        """What the controls say."""
        return Settings(
            self.layer.value, self.bits.value, self.group.value, self.scheme.value, self.mse.value, self.method.value,
            self.rotate.value, self.threshold.value,
        )  # fmt: skip

    def redraw(self, _change: object = None) -> None:
        """Quantise as the controls say and draw; what cannot be is answered in a sentence."""
        self._enable()
        settings, started = self.settings, time.perf_counter()
        try:
            for control in (self.bits, self.group, self.threshold):
                control.continuous_update = not is_slow(settings.rule())
            if not self._bench.is_made(settings):
                self.sentence.value = _said(f"{settings.method} is working on {settings.layer} …")
            self.report = self._bench.report(settings, axis=self.axis.value)
        except ValueError as error:
            self.sentence.value = _said(f"Not drawn: {error}", warn=True)
            return
        shown = self.report
        fresh = weight_grid_traces(shown.histogram, shown.levels, shown.cells, shown.outputs, shape=shown.shape)
        x, y = axis_titles(self._axis())
        with self.figure.batch_update():
            bars, stems, heat, profile = self.figure.data
            bars.update(x=fresh[0].x, y=fresh[0].y, width=fresh[0].width)
            stems.update(x=fresh[1].x, y=fresh[1].y, mode=fresh[1].mode)
            stems.line.width, stems.marker.size = fresh[1].line.width, fresh[1].marker.size
            heat.update(x=fresh[2].x, y=fresh[2].y, z=fresh[2].z)
            profile.update(x=fresh[3].x, y=fresh[3].y)
            self.figure.update_xaxes(title_text=x, col=1)
            self.figure.update_yaxes(title_text=y, col=1)
            for column in (2, 3):
                self.figure.update_yaxes(range=[shown.shape[0], 0], col=column)
        milliseconds = 1000 * (time.perf_counter() - started)
        rule = settings.rule()
        self.sentence.value = _said(f"{_explained(rule)} Computed and drawn in {milliseconds:.0f} ms.")
        self.numbers.value = _numbers(shown, rule.spec.bits)

    def _axis(self) -> str:
        """A codebook has no steps: positions are parts of the group's largest magnitude."""
        if self.axis.value == "weight":
            return "weight"
        return "steps" if self.settings.rule().spec.codebook is None else "parts"

    def _figure(self) -> go.Figure:
        shown = self.report
        return weight_grid(
            shown.histogram, shown.levels, shown.cells, shown.outputs, shape=shown.shape, axis=self._axis()
        )

    def _open(self, _change: object = None) -> None:
        """Another layer has other groups; the one that was chosen stays where it divides."""
        layer, before = self.layer.value, self.group.value
        options = self._bench.groups(layer)
        with _quiet(self.group, self.redraw):
            self.group.options = options
            self.group.value = before if before in options else self._bench.usual_group(layer)
        self.redraw()

    def _turn(self, _change: object = None) -> None:
        """Another method: its own range of thresholds, and one computation a drag where it is slow."""
        method = METHODS[self.method.value]
        if method in THRESHOLDS:
            value, least, most, step = THRESHOLDS[method]
            with _quiet(self.threshold, self.redraw):
                self.threshold.min = min(least, self.threshold.min)  # never above the maximum meanwhile
                self.threshold.max, self.threshold.min, self.threshold.step = most, least, step
                self.threshold.value = value
        if method == "spqr" and self.group.value != 16 and 16 in self.group.options:
            with _quiet(self.group, self.redraw):
                self.group.value = 16  # as its authors have it: scales are quantised themselves
        self.redraw()

    def _enable(self) -> None:
        """Only what counts can be moved."""
        method, codebook = METHODS[self.method.value], "codebook" in SCHEMES[self.scheme.value]
        eight = method == "llm_int8"
        self.bits.disabled = eight or (codebook and method != "hqq")
        self.group.disabled = eight
        self.scheme.disabled = eight or method == "hqq"
        self.mse.disabled = eight or codebook or method in ("hqq", "spqr")
        self.rotate.disabled = eight or method == "awq"
        self.threshold.disabled = method not in THRESHOLDS


@contextmanager
def _quiet(control: widgets.Widget, observer: Callable[[Any], None]) -> Iterator[None]:
    """Change a control without its observer."""
    control.unobserve(observer, names="value")
    try:
        yield
    finally:
        control.observe(observer, names="value")


def _said(text: str, *, warn: bool = False) -> str:
    colour = "color:#B45309;font-weight:600" if warn else "opacity:0.75"
    return f"<div style='font-size:14px;line-height:1.4;padding-left:4px;{colour}'>{escape(text)}</div>"


def _explained(rule: LayerRecipe) -> str:
    spec = rule.spec
    shared = {None: "row", "tensor": "whole tensor"}.get(spec.group_size, f"{spec.group_size} inputs of a row")
    every = "the" if spec.group_size == "tensor" else "every"
    return f"{spec.bits} bits: {spec.levels} levels on one grid for {every} {shared} ({rule.label})."


def _numbers(report: LayerReport, nominal: int) -> str:
    out, width = report.shape
    parts = " + ".join(f"{name} {value:.2f}" for name, value in report.parts.items())
    cards = [
        ("error of weights", f"{100 * report.weight_error:.2f} %", "of the weight's norm"),
        ("error of outputs", f"{100 * report.output_error:.2f} %", "on the calibration text"),
        ("outliers", f"{100 * report.outliers:.2f} %", "stored beside the grid"),
        ("stored", f"{report.nbytes / KIB:,.1f} KiB", f"of {4 * out * width / KIB:,.0f} in float32"),
        ("bits per weight", f"{report.bits_per_weight:.2f}", f"nominal {nominal}; {parts}"),
    ]
    cells = "".join(
        f"<div><div style='font-size:13px;opacity:0.75'>{name}</div>"
        f"<div style='font-size:22px;line-height:1.25;font-variant-numeric:tabular-nums'>{value}</div>"
        f"<div style='font-size:12px;opacity:0.75'>{note}</div></div>"
        for name, value, note in cards
    )
    grid = "display:grid;grid-template-columns:repeat(4,minmax(120px,1fr)) minmax(300px,3fr);gap:4px 8px"
    return f"<div style='{grid};padding:4px;line-height:1.35'>{cells}</div>"
