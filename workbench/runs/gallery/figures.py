"""Plotly figures of an executed notebook: taken out of its outputs, described in words, put into a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

MIME = "application/vnd.plotly.v1+json"
CARD_TAG = "card"
CARD_BYTES = 60_000  # the index holds one figure of every paper; a larger one is taken only if nothing is smaller


def shared_template() -> dict[str, Any]:
    """The workbench's own template, JSON-ready; it is stored once beside the pages, not in every figure."""
    from workbench.plots.theme import template

    return json.loads(json.dumps(template().to_plotly_json(), default=_plain))


def _plain(value: Any) -> Any:
    return value.to_plotly_json() if hasattr(value, "to_plotly_json") else list(value)


def figures_of(notebook: Any) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Every figure that a notebook node shows, with the tags of its cell."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                yield output["data"][MIME], cell.metadata.get("tags", [])


def card_figure(notebook: Any) -> dict[str, Any] | None:
    """The figure of a cell tagged ``card``, else the first of moderate size, else the smallest, else None."""
    found = list(figures_of(notebook))
    tagged = [figure for figure, tags in found if CARD_TAG in tags]
    if tagged:
        return tagged[0]
    moderate = (figure for figure, _ in found if len(json.dumps(figure)) <= CARD_BYTES)
    return next(moderate, min((figure for figure, _ in found), key=lambda one: len(json.dumps(one)), default=None))


def describe(figure: dict[str, Any]) -> str:
    """A figure in one sentence, for those who do not see it."""
    layout = figure.get("layout", {})
    title = _title(layout)
    vertical, horizontal = _title(layout.get("yaxis", {})), _title(layout.get("xaxis", {}))
    axes = f"{vertical} against {horizontal}" if vertical and horizontal else vertical or horizontal
    shown = [trace for trace in figure.get("data", []) if trace.get("showlegend") is not False and trace.get("name")]
    names = list(dict.fromkeys(str(trace["name"]) for trace in shown))
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    words = ": ".join(part for part in (title, axes, listed) if part)
    return words or "a figure without titles"


def _title(part: dict[str, Any]) -> str:
    title = part.get("title", "")
    text = title.get("text", "") if isinstance(title, dict) else title
    return str(text or "").replace("<br>", " ")


def figure_html(figure: dict[str, Any], *, template: dict[str, Any], card: bool = False) -> str:
    """The figure as an element that ``gallery.js`` draws when it comes into view."""
    layout = dict(figure.get("layout", {}))
    if layout.get("template") == template:
        layout["template"] = "shared"
    stored = {"data": figure.get("data", []), "layout": layout, "frames": [] if card else figure.get("frames", [])}
    # "<" escaped, so that no text of a figure can end the script element.
    data = json.dumps(stored, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    words = escape(describe(figure))
    height = int(layout.get("height") or 380)
    style = "" if card else f' style="min-height:{height}px"'
    kind = ' data-card="yes"' if card else ""
    role = "img" if card else "group"
    return (
        f'<div class="drawing" role="{role}" aria-label="Figure: {words}"{kind}{style}>'
        f'<script type="application/json">{data}</script>'
        f"<noscript>Figure: {words}. It is drawn by JavaScript.</noscript></div>"
    )
