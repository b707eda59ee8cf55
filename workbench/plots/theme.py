"""One look for every figure: readable by the colour-blind, in grey, on light and on dark pages, in a talk."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
import plotly.io as pio

TEMPLATE = "workbench"

# Okabe & Ito 2008, "Color universal design": kept apart by every common colour blindness; their black and
# yellow are left out, since each vanishes on one of the two backgrounds; orange and sky blue, faint on white,
# are darkened a little; grey is added.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#DB9200", "#45A6DE", "#7F7F7F")
# As many as there are colours, so that a group keeps its dash and marker wherever its colour goes.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x")

# Neutral greys with a contrast near 4.2 against both white and near-black.
INK = "#787c83"
LINE = "rgba(128, 132, 140, 0.55)"
GRID = "rgba(128, 132, 140, 0.22)"
CLEAR = "rgba(0, 0, 0, 0)"
HEIGHT = 380  # pixels
GREYED = "#9a9da3"  # for numbers that were recalled, not read


class Look(NamedTuple):
    """How one group is drawn; each of the three tells the groups apart alone."""

    colour: str
    dash: str
    symbol: str


def look(index: int) -> Look:
    """The look of the group number ``index``; after the seven colours, dashes and markers move on by one."""
    place, turn = index % len(PALETTE), index // len(PALETTE)
    shifted = (place + turn) % len(PALETTE)
    return Look(PALETTE[place], DASHES[shifted], SYMBOLS[shifted])


def faded(colour: str, opacity: float) -> str:
    """A ``#rrggbb`` colour with the opacity 0 to 1, for bands."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def template() -> go.layout.Template:
    """The plotly template that :func:`register` makes known by the name ``TEMPLATE``."""
    axis = {
        "gridcolor": GRID,
        "linecolor": LINE,
        "zerolinecolor": LINE,
        "zerolinewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": LINE,
        "showline": True,
        "automargin": True,
        "title": {"standoff": 8},
    }
    layout = go.Layout(
        colorway=PALETTE,
        font={"family": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 14, "color": INK},
        # Title and legend make their own room, also where a legend wraps on a phone.
        title={
            "font": {"size": 17},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8, "b": 8},
            "automargin": True,
        },
        height=HEIGHT,
        # Plotly's own margins leave a third of a small figure to the plot; axes grow theirs where labels need it.
        margin={"l": 52, "r": 18, "t": 22, "b": 46},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        xaxis=axis,
        yaxis=axis,
        # Below the plot, a legend costs no width and never meets the title.
        legend={
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "title": {"side": "left", "font": {"size": 14}},
        },
        hovermode="closest",
        hoverlabel={"font": {"size": 13}},
        colorscale={"sequential": "Cividis", "sequentialminus": "Cividis", "diverging": "RdBu"},
    )
    looks = [look(index) for index in range(len(PALETTE))]
    scatter = [
        go.Scatter(line={"dash": one.dash, "width": 2.5}, marker={"symbol": one.symbol, "size": 9}) for one in looks
    ]
    bars = [
        go.Bar(marker={"line": {"width": 0}, "pattern": {"shape": shape, "fillmode": "overlay", "solidity": 0.15}})
        for shape in ("", "/", "\\", "x", "-", "|", "+")
    ]
    return go.layout.Template(layout=layout, data={"scatter": scatter, "bar": bars})


def register() -> None:
    """Make the template known to plotly and the default of every figure."""
    pio.templates[TEMPLATE] = template()
    pio.templates.default = TEMPLATE


def named(column: str, labels: dict[str, str] | None) -> str:
    """What an axis calls ``column``: its label with unit, else its name with spaces."""
    return (labels or {}).get(column, str(column).replace("_", " "))


register()
