"""How TAID's ``t`` would walk: its adaptive part against the straight line that carries it."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd

from workbench.losses.taid_trace import trace_t
from workbench.plots.columns import check_columns
from workbench.plots.schedules import binding, shaded, t_curves
from workbench.widgets.live import LiveBox, live

LENGTHS = (100, 200, 400, 1000, 2000, 4000, 8000, 16000, 40000)  # optimiser steps
DRAWN = 400  # points of a curve; the numbers come from every step
STRIDES = 8.0  # alpha × steps of the paper's longest run
SEEN = 0.005  # a distance that no eye sees in the figure
COURSES = {  # divergence in nats over the share of the run that is done
    "falling": lambda way: 0.5 + 2 * np.exp(-3 * way),
    "flat": lambda way: np.full_like(way, 1.5),
    "rising": lambda way: 0.5 + 2 * np.exp(-3 * (1 - way)),
}


class ScheduleExplorer(LiveBox):
    """Move alpha, beta, t_start and the length of the run; see where the adaptive ``t`` leaves its floor.

    Read the state back from ``alpha``, ``beta``, ``t_start``, ``steps`` and ``course``, the walk from
    ``trace`` (the columns ``step``, ``t`` and ``line``, every step) and the sentence from ``sentence``.

    Args:
        recorded: a loss of a real run, the columns ``step`` and ``value`` (nats); rows that share a
            step are averaged, and the course is stretched to the length of the run.

    Raises:
        ValueError: a recorded table without rows, columns or a finite value.
    """

    def __init__(self, recorded: pd.DataFrame | None = None):
        self._recorded = None if recorded is None else _course_of(recorded)
        courses = [*COURSES, *(["recorded"] if recorded is not None else [])]
        style = {"description_width": "120px"}
        self.alpha = widgets.FloatLogSlider(
            5e-4, min=-5, max=-0.5, step=0.02, description="α, largest stride", readout_format=".1e", style=style
        )
        self.beta = widgets.FloatSlider(
            0.99, min=0, max=0.999, step=0.001, description="β, memory", readout_format=".3f", style=style
        )
        self.t_start = widgets.FloatSlider(0.2, min=0, max=0.95, step=0.01, description="t at the start", style=style)
        self.steps = widgets.SelectionSlider(
            options=[(f"{length:,}", length) for length in LENGTHS], value=16000, description="Steps", style=style
        )
        self.course = widgets.Dropdown(options=courses, value=courses[-1 if recorded is not None else 0],
                                       description="Loss", style=style)  # fmt: skip
        self.scale = widgets.Button(description="α = 8 / steps", tooltip="As many strides as the paper's runs had")
        self.sentence = widgets.HTML()
        self.trace = pd.DataFrame()
        self._walk()
        self.figure = live(t_curves(self._drawn(), panel=None))
        for control in (self.alpha, self.beta, self.t_start, self.steps, self.course):
            control.observe(self._redraw, names="value")
        self.scale.on_click(self._scale)
        self._redraw()
        left = widgets.VBox([self.alpha, self.beta, self.t_start])
        right = widgets.VBox([self.steps, self.course, self.scale])
        controls = widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([controls, self.figure, self.sentence])

    @property
    def lead(self) -> float:
        """The largest distance of the adaptive ``t`` above the straight line."""
        return max(0.0, float((self.trace["t"] - self.trace["line"]).max()))

    def _scale(self, _button: object) -> None:
        self.alpha.value = STRIDES / self.steps.value

    def _walk(self) -> None:
        """Every step: subsampling would change the momentum."""
        steps, start = self.steps.value, self.t_start.value
        way = np.arange(steps + 1) / steps
        course = COURSES.get(self.course.value)
        losses = self._stretched(way) if course is None else course(way)
        t = trace_t(losses[1:], t_start=start, alpha=self.alpha.value, beta=self.beta.value)
        self.trace = pd.DataFrame({"step": np.arange(steps + 1), "t": t, "line": start + (1 - start) * way})

    def _stretched(self, way: np.ndarray) -> np.ndarray:
        steps, values = self._recorded
        return np.interp(way, (steps - steps[0]) / max(steps[-1] - steps[0], 1), values)

    def _drawn(self) -> pd.DataFrame:
        places = np.unique(np.linspace(0, len(self.trace) - 1, DRAWN).astype(int))
        return self.trace.iloc[places].assign(schedule="adaptive t")

    def _redraw(self, _change: object = None) -> None:
        self._walk()
        drawn = self._drawn()
        ground, line, curve = self.figure.data
        x = drawn["step"].to_numpy()
        xs, ys = shaded(x, binding(drawn["t"], drawn["line"]), high=1.1)
        with self.figure.batch_update():
            ground.update(x=xs or [None], y=ys or [None])
            line.update(x=x, y=drawn["line"].to_numpy())
            curve.update(x=x, y=drawn["t"].to_numpy())
            self.figure.update_yaxes(range=[self.t_start.value - 0.02, 1.03])
            self.figure.update_xaxes(range=[0, self.steps.value])
        self.sentence.value = f"<p style='font-size:15px'>{self._say()}</p>"

    def _say(self) -> str:
        gap = (self.trace["t"] - self.trace["line"]).to_numpy()
        steps, share = self.steps.value, float(binding(self.trace["t"], self.trace["line"]).mean())
        if self.lead < SEEN:
            hint = f" α near {STRIDES / steps:.1e}, 8 / steps, would." if self.alpha.value < STRIDES / steps else ""
            return (
                f"Over {steps:,} steps the adaptive t is the straight line (largest distance {self.lead:.4f}): "
                f"with these numbers it never overtakes its floor.{hint}"
            )
        carried = "less than 1%" if share < 0.01 else f"{share:.0%}"
        return (
            f"The adaptive t runs up to {self.lead:.3f} ahead of the straight line (at step {int(gap.argmax()):,} of "
            f"{steps:,}); the line carries it for {carried} of the run."
        )


def _course_of(recorded: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    check_columns(recorded, argument="recorded", step="step", value="value")
    means = recorded[np.isfinite(recorded["value"])].groupby("step")["value"].mean()
    if means.empty:
        raise ValueError("recorded holds no finite value: there is no course to follow.")
    return means.index.to_numpy(dtype=float), means.to_numpy(dtype=float)
