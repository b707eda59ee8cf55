"""The capacity gap as the bench for teachers finds it: a student's loss against the size of its teacher."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.columns import check_columns
from workbench.plots.means import with_errors
from workbench.plots.theme import GREYED, faded

LABELS = {"teacher_parameters": "parameters of the teacher", "nats": "held-out loss, nats per byte"}
REFERENCE_DASHES = ("solid", "dot", "dash")


def teacher_gap(table: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Held-out loss of the students (mean ± standard error over seeds) against their teacher's size, a line a loss.

    Args:
        table: one student a row: ``teacher``, ``teacher_parameters`` (NaN without a teacher), ``loss``, ``nats``,
            ``vocabulary``. Students without a teacher are drawn as a grey level with its error, one a vocabulary.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, x="teacher_parameters", y="nats", group="loss", vocabulary="vocabulary", teacher="teacher")
    taught = table[table["teacher_parameters"].notna()]
    alone = table[table["teacher_parameters"].isna()]
    if taught.empty:
        figure = go.Figure()
        figure.update_xaxes(title_text=LABELS["teacher_parameters"], showticklabels=False)
        figure.update_yaxes(title_text=LABELS["nats"])
        ends = (0.0, 1.0)
    else:
        figure = with_errors(
            taught, x="teacher_parameters", y="nats", group="loss", labels=LABELS, log_x=True, title=title
        )
        sizes = taught["teacher_parameters"]
        ends = (float(sizes.min()) / 1.15, float(sizes.max()) * 1.15)
    vocabularies = list(table["vocabulary"].unique())
    for place, vocabulary in enumerate(vocabularies):
        rows = alone[alone["vocabulary"] == vocabulary]
        if len(rows):
            name = "no teacher" if len(vocabularies) == 1 else f"no teacher, {vocabulary}"
            _add_level(figure, rows["nats"], ends, name, REFERENCE_DASHES[place % len(REFERENCE_DASHES)])
    figure.update_layout(legend_title_text="loss")
    return figure


def _add_level(figure: go.Figure, values: pd.Series, ends: tuple[float, float], name: str, dash: str) -> None:
    mean, error = float(values.mean()), float(values.sem()) if len(values) > 1 else 0.0
    if error > 0:
        figure.add_trace(
            go.Scatter(
                x=[*ends, *ends[::-1]],
                y=[mean + error, mean + error, mean - error, mean - error],
                fill="toself",
                fillcolor=faded(GREYED, 0.2),
                line={"width": 0, "color": GREYED},
                mode="lines",
                name=name,
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    told = f"{mean:.4g}" + (f" ± {error:.2g}" if error > 0 else "") + f" (n = {len(values)})"
    figure.add_trace(
        go.Scatter(
            x=list(ends),
            y=[mean, mean],
            name=name,
            legendgroup=name,
            mode="lines",
            line={"color": GREYED, "dash": dash, "width": 2},
            hovertemplate=f"{told}<extra>{name}</extra>",
        )
    )
