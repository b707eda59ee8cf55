"""Teachers side by side on the reader's own sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as widgets
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import check_choice
from workbench.metrics.reading import Reading, read_text, same_vocabulary
from workbench.plots.theme import INK, PALETTE
from workbench.widgets.live import LiveBox, live
from workbench.widgets.teacher_table import comparison_table, probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SENTENCE = "To be, or not to be, that is the question"
COLUMNS = 3  # models in a row; more would leave no room for the tokens' names
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})  # blanks that would look like nothing


class TeacherPicker(LiveBox):
    """What each model expects next in a sentence, at a chosen temperature, beside the student's view.

    Type a sentence and press Enter; ``upto`` moves through its words. Bars are the likeliest next tokens
    of each model; diamonds are what the student gives the same tokens, where the vocabulary is one.
    ``readings`` holds the last :class:`~workbench.metrics.reading.Reading` of every model.

    Args:
        models: a name and (model, tokenizer) each.
        student: the model that the others would teach; default: the first.
        sentence: what is read at first.

    Raises:
        ValueError: no models, or a student that is not among them ("did you mean").
    """

    def __init__(
        self,
        models: Mapping[str, tuple[PreTrainedModel, PreTrainedTokenizerFast]],
        student: str | None = None,
        sentence: str = SENTENCE,
    ):
        if not models:
            raise ValueError("models is empty: give at least one name with its (model, tokenizer).")
        names = list(models)
        self._models = dict(models)
        self.readings: dict[str, Reading] = {}
        self._problems: dict[str, str] = {}
        wide = widgets.Layout(width="100%", max_width="820px")
        self.sentence = widgets.Text(
            sentence, description="Sentence", continuous_update=False, layout=wide, placeholder="Type, then press Enter"
        )
        self.upto = widgets.SelectionSlider(options=[("", 0)], description="Read up to", layout=wide)
        self.student = widgets.Dropdown(
            options=names, value=check_choice("student", student or names[0], names), description="Student"
        )
        self.temperature = widgets.FloatSlider(
            1.0, min=0.25, max=8.0, step=0.25, description="Temperature", style={"description_width": "initial"}
        )
        self.count = widgets.IntSlider(8, min=3, max=20, description="Tokens")
        self.figure = live(_empty_figure(names))
        self.table = widgets.HTML()
        self.sentence.observe(self._read, names="value")
        for control in (self.upto, self.student, self.temperature, self.count):
            control.observe(self._redraw, names="value")
        self._read()
        controls = widgets.HBox([self.temperature, self.count, self.student], layout=widgets.Layout(flex_flow="wrap"))
        super().__init__([self.sentence, self.upto, controls, self.figure, self.table])

    def _read(self, _change: object = None) -> None:
        """Run every model over the sentence: the slow part, done once a sentence."""
        self.readings, self._problems = {}, {}
        for name, (model, tokenizer) in self._models.items():
            try:
                self.readings[name] = read_text(model, tokenizer, self.sentence.value)
            except ValueError as problem:
                self._problems[name] = str(problem)
        words = list(re.finditer(r"\S+", self.sentence.value))
        # The words' numbers keep equal words apart.
        stops = [(f"{number}: …{word.group()}", word.end()) for number, word in enumerate(words, 1)] or [("", 0)]
        # New options move the value too, and every move would draw.
        self.upto.unobserve(self._redraw, names="value")
        self.upto.options = stops
        self.upto.value = stops[-1][1]
        self.upto.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change: object = None) -> None:
        with self.figure.batch_update():
            highest = max(self._draw_model(index, name) for index, name in enumerate(self._models))
            rows = -(-len(self._models) // COLUMNS)
            self.figure.layout.height = rows * (70 + 24 * self.count.value) + 50
            self.figure.update_xaxes(range=[0, 1.05 * (highest or 1)])
        self.table.value = comparison_table(
            list(self._models),
            self.readings,
            self._problems,
            student=self.student.value,
            upto=self.upto.value,
            temperature=self.temperature.value,
        )

    def _draw_model(self, index: int, name: str) -> float:
        """Draw the bars of one model and the student's diamonds; return the longest of them."""
        bars, marks = self.figure.data[2 * index : 2 * index + 2]
        reading, student = self.readings.get(name), self.readings.get(self.student.value)
        heights, of_student, tokens = [], [], []
        if reading is not None:
            likely = reading.top(reading.place(self.upto.value), self.count.value)
            heights = self._softened(reading)[likely].tolist()
            names = [escape(reading.token_text(token).translate(VISIBLE), quote=False) for token in likely]
            # The number stands beside the token: at the bar's end the diamonds would lie over it.
            tokens = [f"{name}  {height:.3f}" for name, height in zip(names, heights, strict=True)]
            if student is not None and student is not reading and same_vocabulary(reading, student):
                of_student = self._softened(student)[likely].tolist()
        # Places, not names: two tokens may look alike.
        bars.update(x=heights, y=list(range(len(heights))))
        # One point nowhere instead of no point: a trace without points loses its place in the legend.
        marks.update(x=of_student or [None], y=list(range(len(of_student))) or [None])
        axis = self.figure.layout[f"yaxis{index + 1}" if index else "yaxis"]
        axis.update(tickvals=list(range(len(tokens))), ticktext=tokens, range=[self.count.value - 0.5, -0.5])
        return max([*heights, *of_student], default=0.0)

    def _softened(self, reading: Reading):
        return probabilities(reading, self.upto.value, self.temperature.value)


def _empty_figure(names: list[str]) -> go.Figure:
    """A subplot per model with two empty traces each: its bars and the student's diamonds."""
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=names, horizontal_spacing=0.13, vertical_spacing=0.24 / rows
    )
    for index in range(len(names)):
        where = {"row": index // columns + 1, "col": index % columns + 1}
        bars = go.Bar(orientation="h", marker_color=PALETTE[0])
        bars.update(name="this model", showlegend=index == 0, legendgroup="model", marker_pattern_shape="")
        outline = {"color": "white", "width": 1}
        marks = go.Scatter(
            mode="markers", marker={"symbol": "diamond", "size": 10, "color": PALETTE[1], "line": outline}
        )
        marks.update(name="the student, same token", showlegend=index == 0, legendgroup="student")
        figure.add_trace(bars, **where)
        figure.add_trace(marks, **where)
    figure.update_annotations(font={"size": 15, "color": INK})
    figure.update_yaxes(showgrid=False, ticks="", tickfont={"family": "monospace", "size": 13})
    figure.update_xaxes(rangemode="tozero", nticks=4)
    figure.update_layout(
        bargap=0.25,
        margin={"l": 90, "r": 20, "t": 70, "b": 30},
        legend={"x": 0, "y": 1.0, "yref": "container", "yanchor": "top"},
    )
    return figure
