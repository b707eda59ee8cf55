"""Talking models under the hand: which task, how many labels, which ways of teaching, how many rounds."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.uncertainty import t_interval
from workbench.plots.columns import check_columns
from workbench.plots.conversation import message_planes
from workbench.plots.theme import INK, PALETTE
from workbench.widgets.live import FitWidth, LiveBox, headless, live

FIRST_SHOWN = ("labels only", "hint", "talk", "probe of the teacher")


class CommunicationExplorer(LiveBox):
    """Choose a task, a label count, rounds and methods; see test accuracy with its interval, and the messages.

    Read the choice back from ``task``, ``labels``, ``rounds`` and ``methods`` (a button each), what is drawn from
    ``shown`` (the columns ``method``, ``estimate``, ``low``, ``high``, ``n``), the sentence from ``sentence``.

    Args:
        rows: the columns ``task, method, rounds, labels, seed, accuracy``.
        messages: the columns ``task, step, model, label, first, second``; None shows no plane of messages.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """

    def __init__(self, rows: pd.DataFrame, messages: pd.DataFrame | None = None):
        columns = ("task", "method", "rounds", "labels", "seed", "accuracy")
        check_columns(rows, argument="rows", **{name: name for name in columns})
        self._rows, self._messages = rows, messages
        style = {"description_width": "60px"}
        self.task = widgets.Dropdown(options=list(rows["task"].unique()), description="Task", style=style)
        self.labels = widgets.SelectionSlider(
            options=sorted(rows["labels"].unique().tolist()), description="Labels", style=style
        )
        self.rounds = widgets.ToggleButtons(
            options=sorted(rows["rounds"].unique().tolist()), description="Rounds", style={"button_width": "44px"}
        )
        self.methods = {
            name: widgets.ToggleButton(name in FIRST_SHOWN, description=name, layout={"width": "auto"})
            for name in rows["method"].unique()
        }
        self.sentence, self.shown = widgets.HTML(), pd.DataFrame()
        self.figure = live(_empty_figure())
        for control in (self.task, self.labels, self.rounds, *self.methods.values()):
            control.observe(self._redraw, names="value")
        self._redraw()
        chooser = widgets.HBox([self.task, self.labels, self.rounds], layout=widgets.Layout(flex_flow="row wrap"))
        buttons = widgets.HBox(list(self.methods.values()), layout=widgets.Layout(flex_flow="row wrap"))
        parts = [chooser, buttons, self.figure, self.sentence]
        self.planes = self._first_planes()
        super().__init__([*parts, *([] if self.planes is None else [self.planes])])

    def _redraw(self, _change: object = None) -> None:
        rows = self._rows[(self._rows["task"] == self.task.value) & (self._rows["labels"] == self.labels.value)]
        found = []
        for name, button in self.methods.items():
            of_method = rows[rows["method"] == name]
            several = self.rounds.value in set(of_method["rounds"])
            # Only talks have rounds: the others stand beside them as they are.
            chosen = of_method[of_method["rounds"] == (self.rounds.value if several else 1)]
            if button.value and len(chosen):
                effect = t_interval(chosen["accuracy"].to_numpy())
                low, high = (effect.low, effect.high) if effect.n > 1 else (effect.estimate,) * 2
                found.append({"method": name, "estimate": effect.estimate, "low": low, "high": high, "n": effect.n})
        self.shown = pd.DataFrame(found, columns=["method", "estimate", "low", "high", "n"])
        with self.figure.batch_update():
            self.figure.data[0].update(
                x=self.shown["estimate"].tolist(), y=self.shown["method"].tolist(), customdata=self.shown["n"].tolist(),
                error_x={"array": (self.shown["high"] - self.shown["estimate"]).tolist()},
            )  # fmt: skip
        self.sentence.value = f"<p style='font-size:15px'>{escape(self._say())}</p>"
        if getattr(self, "planes", None) is not None and not headless():
            self._turn_planes()

    def _say(self) -> str:
        if self.shown.empty:
            return "Nothing is chosen that was run: press a method, or choose another task."
        best = self.shown.loc[self.shown["estimate"].idxmax()]
        text = (
            f"{self.task.value} with {self.labels.value} labels: {best['method']} is highest, {best['estimate']:.3f}."
        )
        known = self.shown.set_index("method")["estimate"]
        if {"talk", "labels only"} <= set(known.index):
            text += f" Talking gains {known['talk'] - known['labels only']:+.3f} over labels only."
        return (
            f"{text} Bars end at the 95% interval over {int(best['n'])} seeds; the claims pair seeds and are sharper."
        )

    def _of_task(self) -> pd.DataFrame:
        return self._messages[self._messages["task"] == self.task.value]

    def _first_planes(self) -> widgets.Widget | go.Figure | None:
        if self._messages is None or self._messages.empty or self._of_task().empty:
            return None
        first = live(message_planes(self._of_task()))
        if not isinstance(first, widgets.Widget):
            return first
        self._drawn = self.task.value
        return widgets.VBox([first, FitWidth()])

    def _turn_planes(self) -> None:
        if self._drawn == self.task.value:
            return
        # Another task has other classes and so other traces; what stood there is closed, or it would stay in memory.
        self._drawn, old = self.task.value, self.planes.children
        rows = self._of_task()
        self.planes.children = [] if rows.empty else [live(message_planes(rows)), FitWidth()]
        for part in old:
            part.close()


def _empty_figure() -> go.Figure:
    figure = go.Figure(
        go.Scatter(
            x=[], y=[], mode="markers", marker={"size": 12, "color": PALETTE[0]},
            error_x={"array": [], "thickness": 2.2, "width": 6, "color": INK},
            hovertemplate="%{y}: %{x:.3f} (n = %{customdata})<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="accuracy on test inputs")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure.update_layout(height=360, showlegend=False)
