"""A reliability diagram under the hand: how calibration changes with the method, the bins and a temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.calibration import (
    error_of_curve,
    fit_temperature,
    negative_log_likelihood,
    reliability_curve,
    softmax,
)
from workbench.plots.reliability import EDGE, bin_means, reliability_traces
from workbench.widgets.live import LiveBox, live

if TYPE_CHECKING:
    from workbench.training.online_grid import Predictions

NETWORKS = ("student", "teacher")
CALIBRATED = 0.005  # distance of confidence from accuracy that is not worth a word


class ReliabilityExplorer(LiveBox):
    """Choose a method, teacher, noise and network; move the number of bins and the temperature.

    Read the state back from ``method``, ``teacher``, ``noise``, ``network``, ``n_bins``, ``adaptive`` and
    ``temperature``; the numbers from ``error`` (ECE of each seed), ``curve`` (bins of each seed) and ``sentence``.
    ``best`` is a button that sets the temperature of the least NLL on these very pictures, the most that scaling
    afterwards can reach.

    Args:
        predictions: of :func:`workbench.training.online_grid.online_grid`.
    """

    def __init__(self, predictions: Predictions):
        self._predictions = predictions
        style = {"description_width": "110px"}
        self.method, self.teacher, self.noise = (
            widgets.Dropdown(options=predictions.choices(factor), description=text, style=style)
            for factor, text in (("method", "Method"), ("teacher", "Teacher"), ("noise", "Label noise"))
        )
        if "bd_kd" in self.method.options:
            self.method.value = "bd_kd"
        self.teacher.value = self.teacher.options[-1]
        self.network = widgets.Dropdown(options=NETWORKS, description="Network", style=style)
        self.n_bins = widgets.IntSlider(15, min=2, max=50, description="Bins", style=style)
        self.adaptive = widgets.Checkbox(False, description="equally many samples in each bin", indent=False)
        self.temperature = widgets.FloatLogSlider(
            1.0, min=-1, max=1, step=0.01, description="Temperature", readout_format=".2f", style=style
        )
        self.best = widgets.Button(description="Best temperature", tooltip="The least NLL on these pictures")
        self.sentence = widgets.HTML()
        self.curve, self.error = pd.DataFrame(), np.array([])
        self._measure()
        self.figure = live(_empty_figure())
        for control in (self.method, self.teacher, self.noise, self.network, self.n_bins, self.adaptive,
                        self.temperature):  # fmt: skip
            control.observe(self._redraw, names="value")
        self.best.on_click(self._set_best)
        self._redraw()
        left = widgets.VBox([self.method, self.teacher, self.noise, self.network])
        right = widgets.VBox([self.n_bins, self.adaptive, self.temperature, self.best])
        controls = widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([controls, self.figure, self.sentence])

    @property
    def logits(self) -> np.ndarray:
        """The chosen cell's logits before scaling, ``[seeds, samples, classes]``."""
        return self._predictions.logits(
            noise=self.noise.value, teacher=self.teacher.value, method=self.method.value, network=self.network.value
        )

    def _measure(self) -> None:
        labels, options = self._predictions.labels, {"n_bins": self.n_bins.value, "adaptive": self.adaptive.value}
        probs = softmax(self.logits, temperature=self.temperature.value)
        curves = [reliability_curve(one, labels, **options) for one in probs]
        self.error = np.array([error_of_curve(curve) for curve in curves])
        self.curve = pd.concat(curves, ignore_index=True)
        self.curve["seed"] = np.repeat(self._predictions.seeds, self.n_bins.value)
        self.nll = np.array([negative_log_likelihood(one, labels) for one in probs])
        self.accuracy = float((probs.argmax(-1) == labels).mean())
        self.confidence = float(probs.max(-1).mean())

    def _set_best(self, _button: object) -> None:
        logits = self.logits
        labels = np.tile(self._predictions.labels, len(logits))
        best = fit_temperature(logits.reshape(-1, logits.shape[-1]), labels)
        self.temperature.value = float(np.clip(best, 0.1, 10))

    def _redraw(self, _change: object = None) -> None:
        self._measure()
        means = bin_means(self.curve)
        fresh = reliability_traces(means, tallest=means["share"].max())
        with self.figure.batch_update():
            for trace, new in zip(self.figure.data[1:], fresh[1:], strict=True):
                trace.update(x=new.x, y=new.y, customdata=new.customdata)
                if new.error_y.array is not None:
                    trace.error_y.array = new.error_y.array
                if isinstance(new, go.Bar):
                    trace.width = new.width
        self.sentence.value = f"<p style='font-size:15px'>{self._say()}</p>"

    def _say(self) -> str:
        gap = self.confidence - self.accuracy
        if abs(gap) < CALIBRATED:
            how = "as sure as right on average"
        else:
            how = f"{'over' if gap > 0 else 'under'}-confident: on average {self.confidence:.3f} sure"
        return (
            f"Expected calibration error {_mean(self.error)} over {len(self.error)} seeds, NLL {_mean(self.nll)} nats; "
            f"the {self.network.value} is {how}, {self.accuracy:.3f} of its answers are right."
        )


def _mean(values: np.ndarray) -> str:
    error = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{error}"


def _empty_figure() -> go.Figure:
    nothing = pd.DataFrame({name: [0.0] for name in ("low", "high", "confidence", "accuracy", "error", "share", "n")})
    figure = go.Figure(reliability_traces(nothing, tallest=1.0))
    figure.update_xaxes(title_text="confidence (probability of the predicted class)", range=[0, EDGE])
    figure.update_yaxes(title_text="accuracy", range=[0, EDGE])
    return figure.update_layout(height=420)
