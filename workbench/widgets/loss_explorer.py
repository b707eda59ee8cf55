"""What each loss sees between a teacher and a student, and where it pushes the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from workbench.errors import check_choice
from workbench.losses import loss_by_name, taid_target
from workbench.plots.distributions import distributions_and_gradients, gradient_bars, probability_bars
from workbench.widgets.live import LiveBox, live
from workbench.widgets.loss_contexts import Context, two_peaks

LABEL_STYLE = {"description_width": "130px"}  # the same for all sliders, so that they stand in line
REACH = 8.0  # nats a slider goes up and down from 0, further where the data do


class Choice(NamedTuple):
    """A loss to choose: its name in ``losses``, its fixed options, and the slider that it listens to."""

    name: str
    fixed: dict[str, str | float] = {}  # noqa: RUF012  a NamedTuple's default, never written to
    slider: str | None = None
    unit: str = "nats"


CHOICES = {
    "forward KL": Choice("forward_kl"),
    "reverse KL": Choice("reverse_kl"),
    "TAID": Choice("taid", slider="t"),
    "Jensen-Shannon": Choice("generalized_jsd", slider="beta"),
    "skew KL": Choice("skew_kl", {"direction": "forward"}, "alpha"),
    "skew reverse KL": Choice("skew_kl", {"direction": "reverse"}, "alpha"),
    "total variation": Choice("total_variation", unit=""),
    "Jeffreys": Choice("jeffreys"),
    "symmetric KL": Choice("symmetric_kl", slider="weight"),
    "adaptive KL": Choice("adaptive_kl", slider="mu"),
    "logit error": Choice("logit_mse", unit=""),
    "DIST": Choice("dist", unit=""),  # of one position: the correlation over tokens alone
}
SLIDERS = ("beta", "alpha", "t", "mu", "weight")  # beside the temperature, which all losses listen to
TEACHER, STUDENT = "teacher p", "student q"
BLENDS = {  # what a loss holds the student against, where that is neither p nor q
    "TAID": "target of TAID",
    "Jensen-Shannon": "mixture of Jensen-Shannon",
    "skew KL": "mixture of skew KL",
    "skew reverse KL": "mixture of skew reverse KL",
}


class LossExplorer(LiveBox):
    """Drag the student's logits; see p, q, every chosen loss and its push on each token.

    Read the state back from ``context``, ``logits`` (a slider per token), ``losses``, ``beta``,
    ``alpha``, ``t``, ``mu``, ``weight``, ``temperature``, and the numbers from ``values``: a row per chosen
    loss with its value (nats, or no unit) and the size of its gradient.

    Args:
        contexts: a name and (tokens, teacher_logits, student_logits) each, as from
            :func:`~workbench.widgets.loss_contexts.contexts_from_models`; default: one made by hand.
        losses: names of :data:`CHOICES` chosen at first.

    Raises:
        ValueError: no contexts, logits of another length than the tokens, or an unknown loss ("did you mean").
    """

    def __init__(
        self,
        contexts: Mapping[str, Context | tuple[Sequence[str], Sequence[float], Sequence[float]]] | None = None,
        losses: Sequence[str] = ("forward KL", "reverse KL", "TAID"),
    ):
        self._contexts = _checked(two_peaks() if contexts is None else contexts)
        for name in losses:
            check_choice("losses", name, CHOICES)
        self.values = pd.DataFrame()
        wide = widgets.Layout(width="100%", max_width="820px")
        self.context = widgets.Dropdown(options=list(self._contexts), description="After", layout=wide)
        self.losses = widgets.SelectMultiple(
            options=list(CHOICES), value=tuple(losses), rows=len(CHOICES), description="Losses",
            tooltip="Hold Ctrl (or Command) to choose several",
        )  # fmt: skip
        self.beta = _share("β, teacher's share", 0.5, low=0.01, high=0.99)
        self.alpha = _share("α, skew", 0.1)
        self.t = _share("t of TAID", 0.4)
        self.mu = _share("μ, head of adaptive", 0.5)
        self.weight = _share("w, reverse's share", 0.5)
        self.temperature = widgets.FloatSlider(
            1.0, min=0.25, max=8.0, step=0.25, description="Temperature", style=LABEL_STYLE
        )
        wide_enough = widgets.Layout(width="auto")  # a button is 148 pixels wide, whatever it says
        self.reset = widgets.Button(description="Student as it was", icon="undo", layout=wide_enough)
        self.copy = widgets.Button(description="Student = teacher", icon="copy", layout=wide_enough)
        self.logits: tuple[widgets.FloatSlider, ...] = ()
        self.sliders = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self.table = widgets.HTML()
        self.figure = live(_empty_figure())
        self.context.observe(self._open, names="value")
        self.reset.on_click(lambda _: self._set(self._now().student_logits))
        self.copy.on_click(lambda _: self._set(self._now().teacher_logits))
        for control in (self.losses, self.temperature, *(getattr(self, name) for name in SLIDERS)):
            control.observe(self._redraw, names="value")
        self._open()
        sliders = [getattr(self, name) for name in SLIDERS]
        numbers = widgets.VBox([self.temperature, *sliders, widgets.HBox([self.reset, self.copy])])
        controls = widgets.HBox([self.losses, numbers, self.table], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([self.context, controls, self.figure, self.sliders])

    def _now(self) -> Context:
        return self._contexts[self.context.value]

    def _open(self, _change: object = None) -> None:
        """Put up a slider per token of the chosen context."""
        now = self._now()
        reach = max(REACH, float(np.ceil(np.abs([now.teacher_logits, now.student_logits]).max())))
        self.logits = tuple(
            widgets.FloatSlider(
                float(value), min=-reach, max=reach, step=0.1, description=name, orientation="vertical",
                readout_format=".1f", layout=widgets.Layout(width="62px", height="150px"),
            )
            for name, value in zip(now.tokens, now.student_logits, strict=True)
        )  # fmt: skip
        for slider in self.logits:
            slider.observe(self._redraw, names="value")
        self.sliders.children = self.logits
        self._redraw()

    def _set(self, logits: np.ndarray) -> None:
        """Move all sliders and draw once."""
        for slider, value in zip(self.logits, logits, strict=True):
            slider.unobserve(self._redraw, names="value")
            slider.value = float(value)
            slider.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change: object = None) -> None:
        now, chosen = self._now(), self.losses.value
        listening = {CHOICES[name].slider for name in chosen}
        for name in SLIDERS:
            getattr(self, name).disabled = name not in listening
        teacher = torch.tensor(now.teacher_logits, dtype=torch.float64)
        student = torch.tensor([slider.value for slider in self.logits], dtype=torch.float64)
        measured = {name: self._measure(name, student, teacher) for name in chosen}
        self.values = pd.DataFrame(
            [
                {"loss": name, "value": value, "gradient": float(slope.norm())}
                for name, (value, slope) in measured.items()
            ],
            columns=["loss", "value", "gradient"],
        )
        heights = {TEACHER: self._softened(teacher), STUDENT: self._softened(student)}
        heights |= {BLENDS[name]: self._blend(name, student, teacher) for name in chosen if name in BLENDS}
        heights |= {name: -slope for name, (_, slope) in measured.items()}
        places = np.arange(len(now.tokens))
        with self.figure.batch_update():
            for trace in self.figure.data:
                shown = trace.name in heights
                trace.visible = shown
                if shown:
                    trace.x, trace.y = places, heights[trace.name].numpy()
            self.figure.update_xaxes(
                tickvals=places, ticktext=[escape(name) for name in now.tokens], range=[-0.6, len(places) - 0.4]
            )
        self.table.value = _as_html(self.values)

    def _measure(self, name: str, student: Tensor, teacher: Tensor) -> tuple[float, Tensor]:
        """Value in nats and gradient with respect to the student's logits of one chosen loss."""
        choice = CHOICES[name]
        options = dict(choice.fixed)
        if choice.slider:
            options[choice.slider] = getattr(self, choice.slider).value
        loss = loss_by_name(choice.name, temperature=self.temperature.value, **options)
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher)
        (slope,) = torch.autograd.grad(value, leaf)
        return value.item(), slope

    def _softened(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature.value).softmax(-1)

    def _blend(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """The distribution that the loss called ``name`` puts between teacher and student."""
        if name == "TAID":
            return taid_target(student, teacher, self.t.value, temperature=self.temperature.value)
        share = {
            "Jensen-Shannon": self.beta.value,
            "skew KL": self.alpha.value,
            "skew reverse KL": 1 - self.alpha.value,
        }[name]
        return share * self._softened(teacher) + (1 - share) * self._softened(student)


def _checked(contexts: Mapping[str, Context | tuple]) -> dict[str, Context]:
    if not contexts:
        raise ValueError("contexts is empty: give at least one name with (tokens, teacher_logits, student_logits).")
    checked = {}
    for name, (tokens, *logits) in contexts.items():
        teacher, student = (np.asarray(side, dtype=np.float64) for side in logits)
        if not (teacher.shape == student.shape == (len(tokens),)):
            raise ValueError(
                f"context {name!r} has {len(tokens)} tokens, but teacher_logits {teacher.shape} and "
                f"student_logits {student.shape}: one logit per token each."
            )
        # A constant changes no distribution; around 0 the sliders have room both ways.
        checked[name] = Context(tuple(tokens), teacher - teacher.mean(), student - student.mean())
    return checked


def _share(text: str, value: float, *, low: float = 0.0, high: float = 1.0) -> widgets.FloatSlider:
    return widgets.FloatSlider(value, min=low, max=high, step=0.01, description=text, style=LABEL_STYLE)


def _empty_figure() -> go.Figure:
    """One trace per distribution and per loss, hidden until :meth:`LossExplorer._redraw` fills it."""
    above = [
        {"position": 0, "token": "", "series": name, "probability": 0.0}
        for name in (TEACHER, STUDENT, *BLENDS.values())
    ]
    below = [{"position": 0, "token": "", "loss": name, "push": 0.0} for name in CHOICES]
    return distributions_and_gradients(
        probability_bars(pd.DataFrame(above), marked=tuple(BLENDS.values())), gradient_bars(pd.DataFrame(below))
    )


def _as_html(values: pd.DataFrame) -> str:
    rows = "".join(
        f"<tr><td>{row.loss}</td><td style='text-align:right'>{row.value:.4f}</td><td>{CHOICES[row.loss].unit}</td>"
        f"<td style='text-align:right'>{row.gradient:.4f}</td></tr>"
        for row in values.itertuples()
    )
    head = "<tr><th style='text-align:left'>loss</th><th>value</th><th></th><th>&nbsp;|gradient|</th></tr>"
    return f"<table style='margin-left:24px;font-size:15px;border-spacing:12px 2px'>{head}{rows}</table>"
