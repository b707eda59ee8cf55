"""The strip of sensitivities: a bar for each layer, below it the bits that a recipe gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, LINE, TEMPLATE, faded

# From dark to light with rising bits: they keep their order in grey and for every colour blindness.
SHADES = ("#3b0f4f", "#1d5b8f", "#2f9e8f", "#f0b13a", "#d9dbe0")
HEIGHT = 380  # pixels
LABELLED = 64  # layers; more have no room for their bits in the strip
DECADES = 5.0  # that the axis of nats shows below the largest


def sensitivity_strip(
    table: pd.DataFrame, choice: Mapping[str, int] | None = None, *, title: str | None = None
) -> go.Figure:
    """Nats that each layer adds alone at the bits that ``choice`` gives it, over a strip of these bits.

    Layers stand in the order of the table. A bar has the magnitude; one that seems to lower the loss is hatched. A
    layer that is left as it is has no bar but its place in the strip.

    Args:
        table: of :func:`workbench.quantizers.sensitivity.layer_sensitivity`, one row per layer and bits.
        choice: bits by layer; None takes the middle one of the bits there are for all.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, layer="layer", bits="bits", added_nats="added_nats", standard_error="standard_error")
    bits = sorted(int(one) for one in table["bits"].unique())
    layers = list(table["layer"].unique())
    if choice is None:
        choice = dict.fromkeys(layers, bits[len(bits) // 2])
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.84, 0.16], vertical_spacing=0.03)
    for trace, row in zip(strip_traces(table, choice), (1, 2), strict=True):
        figure.add_trace(trace, row=row, col=1)
    for one, shade in zip(bits, shades(bits), strict=True):
        # For the legend alone: a bar has the shade of its bits.
        figure.add_trace(
            go.Bar(x=[None], y=[None], name=bits_text(one, bits), marker={"color": shade, "pattern": {"shape": ""}}),
            row=1, col=1,
        )  # fmt: skip
    if (table["added_nats"] < 0).any():
        hatched = {"color": INK, "pattern": {"shape": "/", "fgcolor": "white", "solidity": 0.35}}
        figure.add_trace(go.Bar(x=[None], y=[None], name="seems to lower it", marker=hatched), row=1, col=1)
    ticks, texts = _block_ticks(layers)
    figure.update_xaxes(showgrid=False, range=[-0.6, len(layers) - 0.4], tickvals=ticks, ticktext=texts)
    figure.update_xaxes(title_text="layer, in the order of the forward pass (numbers: block)", row=2, col=1)
    figure.update_xaxes(showticklabels=False, ticks="", row=1, col=1)
    high = _log_range(table)
    powers = np.arange(np.floor(high[0]), np.ceil(high[1]) + 1)
    figure.update_yaxes(
        type="log", range=high, title_text="added loss (nats per token)",
        tickvals=10.0**powers, ticktext=[f"10<sup>{power:.0f}</sup>" for power in powers], row=1, col=1,
    )  # fmt: skip
    figure.update_yaxes(
        showticklabels=False, ticks="", showgrid=False, title_text="bits", range=[-0.5, 0.5], row=2, col=1
    )
    return figure.update_layout(
        template=TEMPLATE, title_text=title, height=HEIGHT, bargap=0.12, barmode="overlay", margin={"t": 12, "b": 84},
        legend_title_text="bits of the layer", hovermode="closest", showlegend=True,
    )  # fmt: skip


def strip_traces(table: pd.DataFrame, choice: Mapping[str, int]) -> tuple[go.Bar, go.Heatmap]:
    """Bars and strip of :func:`sensitivity_strip`, so that a live figure can take their values."""
    layers = list(table["layer"].unique())
    bits = sorted(int(one) for one in table["bits"].unique())
    chosen = table.set_index(["layer", "bits"]).loc[[(layer, choice[layer]) for layer in layers]].reset_index()
    colours = dict(zip(bits, shades(bits), strict=True))
    heights = chosen["added_nats"].to_numpy(dtype=float)
    shown = [bits_text(one, bits) for one in chosen["bits"]]
    told = np.stack([np.array(layers, dtype=object), np.array(shown, dtype=object),
                     chosen["standard_error"].to_numpy(dtype=float), heights], axis=-1)  # fmt: skip
    bars = go.Bar(
        x=np.arange(len(layers)), y=bar_heights(heights), showlegend=False, name="added loss",
        marker={"color": [colours[one] for one in chosen["bits"]], "line": {"width": 0.6, "color": LINE},
                "pattern": {"shape": hatches(heights), "fgcolor": "white", "solidity": 0.35}},
        error_y={"type": "data", "array": chosen["standard_error"].to_numpy(dtype=float), "thickness": 1, "width": 0,
                 "color": faded(INK, 0.8), "visible": len(layers) <= LABELLED},
        customdata=told,
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}: %{customdata[3]:.2g} ± %{customdata[2]:.1g} nats"
        "<extra></extra>",
    )  # fmt: skip
    ranks = [bits.index(one) for one in chosen["bits"]]
    strip = go.Heatmap(
        x=np.arange(len(layers)), y=[0], z=[ranks], zmin=-0.5, zmax=len(bits) - 0.5, showscale=False,
        xgap=1 if len(layers) <= LABELLED else 0,
        colorscale=_steps(bits), customdata=told[None],
        text=[[_short(one, bits) for one in chosen["bits"]]],
        texttemplate="%{text}" if len(layers) <= LABELLED else "", textfont={"size": 12},
        hovertemplate="%{customdata[0]}: %{customdata[1]}<br>click for the next bits<extra></extra>", name="bits",
    )  # fmt: skip
    return bars, strip


def bar_heights(added: np.ndarray) -> np.ndarray:
    """Magnitudes for a logarithmic axis; none for 0. Those below 0 are told by :func:`hatches`."""
    return np.where(added != 0, np.abs(added), np.nan)


def hatches(added: np.ndarray) -> list[str]:
    """A pattern for every bar: hatched where a layer seems to lower the loss."""
    return ["/" if value < 0 else "" for value in added]


def shades(bits: Sequence[int]) -> list[str]:
    """A shade for each of the rising ``bits``."""
    places = np.linspace(0, len(SHADES) - 1, max(len(bits), 2)).round().astype(int)
    return [SHADES[place] for place in places[: len(bits)]]


def bits_text(bits: int, among: Sequence[int]) -> str:
    """``4 bits``, or that the layer is left as it is, which the most bits stand for where they are 16 or more."""
    return f"float ({bits} bits)" if bits == max(among) and bits >= 16 else f"{bits} bits"


def _short(bits: int, among: Sequence[int]) -> str:
    return "f" if bits == max(among) and bits >= 16 else str(bits)


def _steps(bits: Sequence[int]) -> list[list[float | str]]:
    edges = np.linspace(0, 1, len(bits) + 1)
    pairs = zip(shades(bits), edges[:-1], edges[1:], strict=True)
    return [[float(edge), shade] for shade, low, high in pairs for edge in (low, high)]


def _log_range(table: pd.DataFrame) -> list[float]:
    """Powers of ten from the least to the largest, no more than :data:`DECADES` of them."""
    sizes = table["added_nats"].abs()
    sizes = sizes[sizes > 0]
    if sizes.empty:
        return [-6.0, 0.0]
    top, low = float(np.log10(sizes.max())), float(np.log10(sizes.min()))
    return [max(low - 0.2, top - DECADES), top + 0.25]


def _block_ticks(layers: Sequence[str]) -> tuple[list[int], list[str]]:
    """The number of the block below its first layer; names where layers have no number."""
    ticks, texts, last = [], [], None
    for place, name in enumerate(layers):
        block = next((part for part in name.split(".") if part.isdigit()), name)
        if block != last:
            ticks.append(place)
            texts.append(block)
        last = block
    return ticks, texts
