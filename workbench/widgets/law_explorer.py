"""The law of capacity gap under the hand: which teacher it asks for, our valleys, and MiniMA among its rivals."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench import published
from workbench.metrics.capacity_gap import CapacityGapLaw
from workbench.plots.axes import compact
from workbench.plots.law import X_LABELS, u_curves
from workbench.plots.law_line import MILLION, fitted_students
from workbench.plots.pareto import front_of, pareto, pareto_traces
from workbench.plots.theme import INK, PALETTE, faded
from workbench.published.benchmarks import BENCHMARKS, mean_scores
from workbench.widgets.live import FitWidth, LiveBox, live

OURS = ("MiniMA-3B", "MiniMA-2-1B", "MiniMA-2-3B")  # the paper's own models, if they are in the table
PAPER_LAW = CapacityGapLaw()
UNITS = {"M": MILLION, "": 1.0}
SLIDER = (-3.0, 4.5)  # powers of ten of million parameters


class LawExplorer(LiveBox):
    """Move the student, read the teacher; choose the benchmarks of the Pareto panel and the axis of the valleys.

    Read the state back from ``student`` (million parameters), ``teacher`` (million parameters, NaN
    where the line gives none), ``sentence``, ``benchmarks`` (a button each), ``scores`` and ``axis``.

    Args:
        law: the line; where it does not know its students, those of the paper's fit are taken.
        rows: students as ``distil_grid`` gives them; adds a panel of valleys.
        optima: their optima, as :func:`workbench.plots.law.u_curves` takes them.
        optima_in: the column of ``rows`` that the optima were located in.

    Raises:
        ValueError: a unit other than million parameters (``"M"``) or parameters (``""``), or wrong ``rows``.
    """

    def __init__(
        self,
        law: CapacityGapLaw = PAPER_LAW,
        rows: pd.DataFrame | None = None,
        optima: pd.DataFrame | None = None,
        *,
        optima_in: str = "teacher_parameters",
    ):
        if law.unit not in UNITS:
            raise ValueError(f"law.unit={law.unit!r} must be one of {sorted(UNITS)}: sizes are drawn in parameters.")
        self.law = law
        self._fit = published.load("capacity_gap", "law_fit").set_index("quantity")["value"].astype(float)
        self._range = _range_of(law, self._fit)
        self._rows, self._optima, self._optima_in = rows, optima, optima_in
        wide = widgets.Layout(width="100%", max_width="620px")
        style = {"description_width": "150px"}
        low, high = (np.log10(end / MILLION) for end in self._range)
        self.student = widgets.FloatLogSlider(
            10 ** ((low + high) / 2), min=min(SLIDER[0], low - 1), max=max(SLIDER[1], high + 1), step=0.02,
            description="Student (million)", readout_format=".4g", layout=wide, style=style,
        )  # fmt: skip
        self.sentence, self.said = widgets.HTML(), widgets.HTML()
        self.line = live(self._line_figure())
        self.benchmarks = {
            name: widgets.ToggleButton(True, description=name.replace("_", " ", 1), layout={"width": "auto"})
            for name in BENCHMARKS
        }
        self.scores = mean_scores()
        self.front = live(_front_figure(self.scores))
        self.axis = widgets.Dropdown(
            options=[(text, name) for name, text in X_LABELS.items() if name in self._axes()],
            description="Teachers along", layout=wide, style=style,
        )  # fmt: skip
        self.student.observe(self._predict, names="value")
        for button in self.benchmarks.values():
            button.observe(self._rank, names="value")
        self._predict()
        self._rank()
        choose = widgets.HBox(list(self.benchmarks.values()), layout=widgets.Layout(flex_flow="row wrap"))
        parts = [self.student, self.sentence, self.line, choose, self.said, self.front]
        super().__init__([*parts, *(self._valley_parts() if rows is not None else [])])

    @property
    def teacher(self) -> float:
        """Million parameters of the teacher that the line gives; NaN where it gives none."""
        return self._teacher_of(self.student.value * MILLION) / MILLION

    @property
    def extrapolates(self) -> bool:
        """Whether the student lies outside those the line was fitted to."""
        low, high = self._range
        return not low <= self.student.value * MILLION <= high

    def _teacher_of(self, student: float) -> float:
        unit = UNITS[self.law.unit]
        teacher = self.law.slope * student + self.law.intercept * unit
        return teacher if teacher > 0 else float("nan")

    def _line_figure(self) -> go.Figure:
        """Two shaded grounds, the line, and the chosen student's point."""
        low, high = self._range
        ends = 10 ** np.array([self.student.min, self.student.max]) * MILLION
        sizes = np.unique([*np.geomspace(*ends, 400), low, high])
        teachers = np.array([self._teacher_of(size) for size in sizes])
        given = np.isfinite(teachers)
        figure = go.Figure()
        for start, stop in ((ends[0], low), (high, ends[1])):
            figure.add_vrect(x0=start, x1=stop, fillcolor=faded(INK, 0.13), line_width=0, layer="below")
        inside = (sizes >= low) & (sizes <= high)
        for name, where, dash in (("extrapolated", given, "dash"), ("where it was fitted", inside & given, "solid")):
            figure.add_trace(
                go.Scatter(
                    x=sizes[where], y=teachers[where], mode="lines", name=f"the law, {name}",
                    line={"color": PALETTE[0], "dash": dash, "width": 4 if dash == "solid" else 2}, hoverinfo="skip",
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers+text", name="this student", textposition="top left",
                marker={"size": 14, "symbol": "diamond", "color": PALETTE[1]}, textfont={"size": 14},
                hovertemplate="student %{x:.3s}, teacher %{y:.3s}<extra></extra>",
            )
        )  # fmt: skip
        powers = 10.0 ** np.arange(0, 15)
        texts = [compact(power) for power in powers]
        figure.update_xaxes(
            type="log", title_text="student parameters", tickvals=powers, ticktext=texts, range=np.log10(ends)
        )
        tall = np.log10([np.nanmin(teachers[inside | (sizes > low)]), np.nanmax(teachers)])
        figure.update_yaxes(
            type="log", title_text="best teacher's parameters", tickvals=powers, ticktext=texts,
            range=[tall[0] - 2, tall[1] + 0.5],
        )  # fmt: skip
        return figure.update_layout(height=380)

    def _predict(self, _change: object = None) -> None:
        teacher, size = self.teacher, self.student.value * MILLION
        point = self.line.data[-1]
        with self.line.batch_update():
            shown = np.isfinite(teacher)
            point.update(
                x=[size if shown else None], y=[teacher * MILLION if shown else None],
                text=[f"{compact_size(teacher * MILLION)}" if shown else ""],
            )  # fmt: skip
        self.sentence.value = f"<p style='font-size:15px'>{self._say(teacher, size)}</p>"

    def _say(self, teacher: float, size: float) -> str:
        low, high = (compact_size(end) for end in self._range)
        fitted = f"it was fitted to students of {low} to {high}"
        if not np.isfinite(teacher):
            least = compact_size(-self.law.intercept / self.law.slope * UNITS[self.law.unit])
            return (
                f"For a student of {compact_size(size)} parameters the line gives no teacher: below {least} it asks "
                f"for less than nothing; {fitted}."
            )
        text = (
            f"For a student of {compact_size(size)} parameters the line asks for a teacher of "
            f"{compact_size(teacher * MILLION)}, {teacher * MILLION / size:.2f} times its size"
        )
        return f"{text}; that is extrapolated: {fitted}." if self.extrapolates else f"{text}."

    def _rank(self, _change: object = None) -> None:
        chosen = [name for name, button in self.benchmarks.items() if button.value]
        if not chosen:
            self.scores = self.scores.iloc[:0]
            with self.front.batch_update():
                for trace in self.front.data:
                    trace.update(x=[], y=[], text=None, customdata=None)
            self.said.value = "<p style='font-size:15px'>Choose at least one benchmark.</p>"
            return
        self.scores = mean_scores(chosen)
        fresh = pareto_traces(
            self.scores, x="compute", y="mean", label="model", status="status", highlight=_highlighted(self.scores)
        )
        with self.front.batch_update():
            for trace, new in zip(self.front.data, fresh, strict=True):
                trace.update(x=new.x, y=new.y, text=new.text, textposition=new.textposition, customdata=new.customdata)
                if new.marker.symbol is not None:
                    trace.marker.symbol = new.marker.symbol
            self.front.update_yaxes(title_text=_title_of(chosen))
        leaders = ", ".join(_on_front(self.scores)) or "none"
        missing = "" if len(chosen) == len(BENCHMARKS) else " Models read off the figure have no single benchmarks."
        self.said.value = f"<p style='font-size:15px'>Of the paper's own models, on the front: {leaders}.{missing}</p>"

    def _valley_parts(self) -> list[widgets.Widget | go.Figure]:
        first = live(self._valleys())
        if not isinstance(first, widgets.Widget):
            self.valleys = None
            return [first]
        self.valleys = widgets.VBox([first, FitWidth()])
        self.axis.observe(self._turn, names="value")
        return [self.axis, self.valleys]

    def _valleys(self) -> go.Figure:
        return u_curves(self._rows, self._optima, x=self.axis.value, optima_in=self._optima_in)

    def _axes(self) -> list[str]:
        columns = [] if self._rows is None else self._rows.columns
        return [name for name in X_LABELS if name != "nats" and name in columns]

    def _turn(self, _change: object = None) -> None:
        # Another axis has other marks and ticks; what stood there is closed, or it would stay in memory.
        old = self.valleys.children
        self.valleys.children = [live(self._valleys()), FitWidth()]
        for part in old:
            part.close()


def compact_size(parameters: float) -> str:
    """``2.9B``, ``310M`` or ``4750``: three digits, as one says it."""
    return compact(float(f"{parameters:.3g}"))


def _range_of(law: CapacityGapLaw, fit: pd.Series) -> tuple[float, float]:
    if law.student_range is None:
        return fitted_students(fit)
    return tuple(float(end) * UNITS[law.unit] for end in law.student_range)


def _highlighted(scores: pd.DataFrame) -> list[str]:
    return [name for name in OURS if name in set(scores["model"])]


def _on_front(scores: pd.DataFrame) -> list[str]:
    front = set(front_of(scores, x="compute", y="mean")["model"])
    return [name for name in OURS if name in front]


def _title_of(chosen: list[str]) -> str:
    if len(chosen) == 1:
        return f"{chosen[0].replace('_', ' ', 1)} (per cent)"
    return f"mean of {len(chosen)} benchmarks (per cent)"


def _front_figure(scores: pd.DataFrame) -> go.Figure:
    labels = {"compute": "training compute (TFLOPs)", "mean": _title_of(list(BENCHMARKS))}
    return pareto(scores, status="status", highlight=_highlighted(scores), labels=labels)
