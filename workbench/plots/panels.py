"""Small multiples: one panel a name, with one legend for all."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.theme import INK, TEMPLATE

COLUMNS = 3  # panels in a row; more would be too narrow on a page
TITLE, LEGEND = 64, 60  # pixels between two rows of panels, and for the legend below all


def small_multiples(
    names: Sequence[str], *, columns: int = COLUMNS, height: int = 210, share_x: bool = True, share_y: bool = True
) -> tuple[go.Figure, list[dict[str, int]]]:
    """An empty figure with one titled panel per name, and the ``row`` and ``col`` of each.

    Args:
        height: pixels of one panel.
        share_x, share_y: whether panels have one scale, so that they can be compared by eye.

    Raises:
        ValueError: no names.
    """
    if not names:
        raise ValueError("names is empty: there is no panel to draw.")
    wide = min(columns, len(names))
    rows = -(-len(names) // wide)
    inside = rows * height + (rows - 1) * TITLE
    figure = make_subplots(
        rows=rows,
        cols=wide,
        subplot_titles=list(names) if len(names) > 1 or names[0] else None,
        shared_xaxes="all" if share_x else False,
        shared_yaxes="all" if share_y else False,
        horizontal_spacing=(0.05 if share_y else 0.1) if wide > 1 else 0,
        vertical_spacing=TITLE / inside if rows > 1 else 0,
    )
    figure.update_annotations(font={"size": 14, "color": INK})
    figure.update_layout(template=TEMPLATE, height=inside + 40 + 46 + LEGEND, margin={"t": 40})
    places = [{"row": index // wide + 1, "col": index % wide + 1} for index in range(len(names))]
    for place in places:
        # Below a panel there may be none: its axis keeps its numbers then.
        figure.update_xaxes(showticklabels=True, **place)
    return figure, places


def title_outer_axes(figure: go.Figure, places: Sequence[dict[str, int]], *, x: str, y: str) -> None:
    """Name the y axis of every row on its left, and the x axis once, under the middle of the lowest row."""
    lowest = max(place["row"] for place in places)
    columns = [place["col"] for place in places if place["row"] == lowest]
    figure.update_xaxes(title_text=x, row=lowest, col=columns[len(columns) // 2])
    for row in range(1, lowest + 1):
        figure.update_yaxes(title_text=y, row=row, col=1)
