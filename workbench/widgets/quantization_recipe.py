"""A mixed recipe under the hand: click layers, see the predicted loss and size, measure it, take it along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from workbench.plots.sensitivity import sensitivity_strip, strip_traces
from workbench.quantizers.recipes import Recipe
from workbench.quantizers.sensitivity import (
    BITS,
    FLOAT,
    Prediction,
    added_nats_of,
    as_recipe,
    cheapest_recipe,
    layer_sensitivity,
    predict_added_nats,
)
from workbench.telemetry import Watcher, watched
from workbench.widgets.live import FitWidth, live
from workbench.widgets.quantization_code import recipe_code
from workbench.widgets.quantization_job import BackgroundJob
from workbench.widgets.quantization_layers import QuantizationBench

AT_ONCE = 3_000_000  # weights; a model of fewer is estimated when the widget opens
MIB = 1024**2
ALL = "all layers"
HOW = {
    "fisher": "estimated to second order from one backward pass",
    "taylor": "estimated to second order, on this very text",
    "loss": "each measured with only that layer quantised",
}
SHORT = {
    "fisher": "sum over layers, second order",
    "taylor": "sum over layers, second order, this text",
    "loss": "sum over layers, each measured alone",
}
TABLE_STYLE = """<style>
.workbench-recipe td, .workbench-recipe th { padding: 2px 22px 2px 4px; text-align: right; white-space: nowrap;
  font-size: 15px; line-height: 1.5; font-variant-numeric: tabular-nums; }
.workbench-recipe th { font-size: 13px; font-weight: 500; opacity: 0.75; }
.workbench-recipe td.workbench-note { text-align: left; white-space: normal; font-size: 13px; line-height: 1.3;
  opacity: 0.75; }
</style>"""


class RecipeBuilder:
    """The strip of sensitivities and the recipe made from it; ``parts`` are the widgets in their order.

    Read back ``choice`` (bits by layer), ``recipe``, ``prediction``, ``measured`` (None until asked for),
    ``sensitivity`` and ``nats`` (loss of the float model). ``job.wait()`` waits for what runs beside.
    """

    def __init__(self, bench: QuantizationBench, sensitivity: pd.DataFrame | None = None):
        self._bench = bench
        self.sensitivity: pd.DataFrame | None = None
        self.choice: dict[str, int] = {}
        self.measured: Prediction | None = None
        self.nats = math.nan
        self.heading = widgets.HTML()
        self.scope = widgets.Dropdown(
            options=_scopes(bench.layers),
            description="For",
            layout={"width": "430px"},
            style={"description_width": "40px"},
        )
        self.bits = {bits: _button(f"{bits} bits" if bits else "float") for bits in (*BITS, 0)}
        self.size = widgets.FloatSlider(
            1.0, min=0.0, max=1.0, description="Size limit (MiB)", readout_format=".2f", continuous_update=False,
            layout={"width": "430px"}, style={"description_width": "110px"},
        )  # fmt: skip
        self.best = _button("Best within this size", "magic")
        self.estimate = _button("Estimate all layers", "bolt")
        self.measure = _button("Measure this recipe", "check")
        self.stop = _button("Stop", "stop", disabled=True)
        self.status, self.sentence = widgets.HTML(), widgets.HTML()
        self.code = widgets.Textarea(rows=9, layout={"width": "98%"}, tooltip="Paste into a cell")
        self.job = BackgroundJob(self._say, self._running)
        self.figure: Any = None
        self.box = widgets.VBox()
        self._buttons = [*self.bits.values(), self.best, self.measure]
        if sensitivity is None and bench.weights <= AT_ONCE:
            with watched(Watcher()):  # no bar for the moment that it takes
                sensitivity = layer_sensitivity(bench.model, bench.tokens, batch_tokens=2048)
        if sensitivity is not None:
            _check_rounded(sensitivity)
            self._take((sensitivity, bench.nats()))
        else:
            self._wait_for_estimate()
        for bits, button in self.bits.items():
            button.on_click(lambda _, bits=bits: self.give(self.scope.value, bits))
        self.best.on_click(lambda _: self._find_best())
        self.estimate.on_click(lambda _: self.start_estimate())
        self.measure.on_click(lambda _: self.start_measuring())
        self.stop.on_click(lambda _: self.job.stop())
        row = widgets.Layout(flex_flow="row wrap", align_items="center")
        chosen = widgets.HBox([self.scope, *self.bits.values()], layout=row)
        sized = widgets.HBox([self.size, self.best, self.estimate, self.measure, self.stop, self.status], layout=row)
        still = [] if self.figure is None or isinstance(self.figure, widgets.Widget) else [self.figure]
        self.parts = [self.heading, chosen, self.box, *still, sized, self.sentence, self.code]

    @property
    def recipe(self) -> Recipe:
        """What ``quantize_model`` takes.

        Raises:
            ValueError: nothing has been estimated yet.
        """
        return as_recipe(self.choice, self._rules())

    @property
    def prediction(self) -> Prediction:
        """The sum over layers for the present choice."""
        return predict_added_nats(self.sensitivity, self.choice)

    def give(self, scope: str, bits: int) -> None:
        """Give ``bits`` (0: leave as it is) to every layer of ``scope``: a layer's name, a kind, a block or all."""
        if self.sensitivity is None:
            return
        for layer in _within(scope, self._bench.layers):
            if layer in self.choice and (bits or FLOAT) in self._steps(layer):
                self.choice[layer] = bits or self._steps(layer)[FLOAT]
        self._changed()

    def cycle(self, layer: str) -> None:
        """The next bits of a layer: 2, 3, 4, 8, float, and round again."""
        steps = list(self._steps(layer).values())
        self.choice[layer] = steps[(steps.index(self.choice[layer]) + 1) % len(steps)]
        self._changed()

    def start_estimate(self) -> None:
        """Estimate all layers beside the notebook, then show the strip."""
        self.job.start(
            "Estimating", lambda: (layer_sensitivity(self._bench.model, self._bench.tokens), self._bench.nats()),
            self._take,
        )  # fmt: skip

    def start_measuring(self) -> None:
        """Quantise the whole model as the recipe says, beside the notebook and the float model, and measure."""
        if self.sensitivity is None:
            return
        choice, recipe = dict(self.choice), self.recipe

        def then(found: Prediction) -> None:
            if choice == self.choice:  # else it belongs to a recipe that is no longer on the screen
                self.measured = found
                self._tell()

        self.job.start("Measuring", lambda: added_nats_of(self._bench.model, self._bench.tokens, recipe), then)

    def _take(self, found: tuple[pd.DataFrame, float]) -> None:
        self.sensitivity, self.nats = found
        layers = list(self.sensitivity["layer"].unique())
        self._by_layer = {
            layer: {
                FLOAT if method == FLOAT else bits: bits
                for bits, method in sorted(zip(part["bits"], part["method"], strict=True))
            }
            for layer, part in self.sensitivity.astype({"bits": int}).groupby("layer", sort=False)
        }
        self.choice = {
            layer: 4 if 4 in self._by_layer[layer] else min(self._by_layer[layer].values()) for layer in layers
        }
        self._size_slider()
        for button in self._buttons:
            button.disabled = False
        self.figure = live(sensitivity_strip(self.sensitivity, self.choice))
        if isinstance(self.figure, widgets.Widget):
            for trace in self.figure.data[:2]:
                trace.on_click(self._clicked)
            self.box.children = [self.figure, FitWidth()]
        self.heading.value = _heading(self.sensitivity)
        self._changed()

    def _wait_for_estimate(self) -> None:
        for button in self._buttons:
            button.disabled = True
        self.heading.value = _title(
            f"The model has {self._bench.weights / 1e6:,.0f} million weights in {len(self._bench.layers)} layers: "
            "press <i>Estimate all layers</i> (about as long as ten forward passes and one quantisation for each of "
            "2, 3, 4 and 8 bits; the notebook goes on meanwhile)."
        )

    def _steps(self, layer: str) -> dict[Any, int]:
        return self._by_layer[layer]

    def _rules(self) -> Sequence[Any]:
        if not self.choice:
            raise ValueError("nothing has been estimated yet: press Estimate all layers first.")
        rows = self.sensitivity[self.sensitivity["method"] != FLOAT]
        return sorted(int(bits) for bits in rows["bits"].unique())

    def _size_slider(self) -> None:
        sizes = self.sensitivity.groupby("layer")["bytes"]
        low, high = sizes.min().sum() / MIB, sizes.max().sum() / MIB
        now = predict_added_nats(self.sensitivity, self.choice).bytes / MIB
        step = 10 ** math.floor(math.log10(high / 500))
        self.size.max = high
        self.size.min = math.ceil(low / step) * step
        self.size.step, self.size.value = step, now

    def _find_best(self) -> None:
        if self.sensitivity is None:
            return
        try:
            self.choice = cheapest_recipe(self.sensitivity, self.size.value * MIB)
        except ValueError as error:
            self._say(str(error))
            return
        self._changed()

    def _clicked(self, _trace: object, points: Any, _state: object) -> None:
        if points.xs:
            layers = list(self.choice)
            layer = layers[int(np.clip(round(points.xs[0]), 0, len(layers) - 1))]
            self.cycle(layer)
            self.scope.value = layer

    def _changed(self) -> None:
        """Draw the present choice and tell what it is predicted to cost."""
        self.measured = None
        fresh = strip_traces(self.sensitivity, self.choice)
        with self.figure.batch_update():
            bars, strip = self.figure.data[:2]
            bars.update(y=fresh[0].y, customdata=fresh[0].customdata)
            bars.marker.color, bars.error_y.array = fresh[0].marker.color, fresh[0].error_y.array
            bars.marker.pattern.shape = fresh[0].marker.pattern.shape
            strip.update(z=fresh[1].z, text=fresh[1].text, customdata=fresh[1].customdata)
        self._tell()
        self.code.value = recipe_code(self.choice, self._rules())

    def _tell(self) -> None:
        self.sentence.value = _prediction_html(
            self.prediction, self.measured, self.nats, self.sensitivity, str(self.sensitivity["measure"].iloc[0])
        )

    def _say(self, text: str) -> None:
        self.status.value = f"<span style='font-size:14px;padding-left:8px'>{escape(text)}</span>"

    def _running(self, running: bool) -> None:
        self.estimate.disabled = running
        self.measure.disabled = running or self.sensitivity is None
        self.stop.disabled = not running


def _check_rounded(sensitivity: pd.DataFrame) -> None:
    """The recipe on the screen rounds to nearest: losses of another method would be promised in vain."""
    if others := sorted(set(sensitivity["method"]) - {"rtn", FLOAT}):
        raise ValueError(
            f"sensitivity was found with {', '.join(others)}, but recipes made here round to nearest: "
            "take layer_sensitivity(model, tokens, (2, 3, 4, 8))."
        )


def _button(text: str, icon: str = "", *, disabled: bool = False) -> widgets.Button:
    # A button is 148 pixels wide, whatever it says.
    return widgets.Button(description=text, icon=icon, disabled=disabled, layout=widgets.Layout(width="auto"))


def _scopes(layers: Sequence[str]) -> list[tuple[str, str]]:
    """What bits can be given to at once: everything, layers of a kind, a block, a single layer."""
    kinds = dict.fromkeys(layer.rpartition(".")[2] for layer in layers)
    blocks = dict.fromkeys(block for block in map(_block_of, layers) if block)
    return [
        (ALL, ALL),
        *((f"every {kind}", f"*.{kind}") for kind in kinds),
        *((f"block {block}", f"{block}.*") for block in blocks),
        *((layer, layer) for layer in layers),
    ]


def _block_of(layer: str) -> str:
    parts = layer.split(".")
    places = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: places[0] + 1]) if places else ""


def _within(scope: str, layers: Sequence[str]) -> list[str]:
    if scope == ALL:
        return list(layers)
    if scope.startswith("*"):
        return [layer for layer in layers if layer.endswith(scope[1:])]
    if scope.endswith(".*"):
        return [layer for layer in layers if layer.startswith(scope[:-1])]
    return [layer for layer in layers if layer == scope]


def _title(text: str) -> str:
    return (
        "<div style='font-size:17px;font-weight:600;margin-top:14px'>A recipe for the whole model</div>"
        f"<div style='font-size:14px;line-height:1.4'>{text}</div>"
    )


def _heading(sensitivity: pd.DataFrame) -> str:
    how = HOW.get(str(sensitivity["measure"].iloc[0]), "")
    return _title(
        "Each bar is the loss that one layer adds when it alone is quantised at the bits of its shade, "
        f"{how}. Click a bar or a cell of the strip for the next bits, or choose layers below and press their bits."
    )


def _prediction_html(
    predicted: Prediction, measured: Prediction | None, nats: float, sensitivity: pd.DataFrame, measure: str
) -> str:
    whole = sensitivity.loc[sensitivity["method"] == FLOAT, "bytes"].sum()
    weights = (8 * sensitivity["bytes"] / sensitivity["bits_per_weight"])[sensitivity["method"] == FLOAT].sum()
    rows = [("predicted", predicted, SHORT.get(measure, "sum over layers"))]
    if measured is not None:
        rows.append(("measured", measured, "the whole model, same text"))
    cells = "".join(
        f"<tr><td>{name}</td><td>{one.added_nats:+.4f} ± {one.standard_error:.4f}</td>"
        f"<td>{math.exp(nats):.3f} → {math.exp(nats + one.added_nats):.3f}</td>"
        f"<td>{one.bytes / MIB:.3f} of {whole / MIB:.3f}</td><td>{8 * one.bytes / weights:.2f}</td>"
        f"<td class='workbench-note'>{escape(note)}</td></tr>"
        for name, one, note in rows
    )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("", "added nats per token", "perplexity", "size of layers (MiB)", "bits per weight", "")
    )
    return f"{TABLE_STYLE}<table class='workbench-recipe'><tr>{head}</tr>{cells}</table>"
