"""What a language model loses for every bit that its weights give up, and the front of those that lose least."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import compact, height_for, log_ticks
from workbench.plots.columns import check_columns
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.pareto import front_of
from workbench.plots.theme import INK, look

BITS = "bits per weight, everything stored"
FLOAT = "not quantised"


def loss_by_bits(
    table: pd.DataFrame,
    *,
    x: str = "bits_per_weight",
    y: str = "perplexity",
    group: str = "method",
    panel: str | None = None,
    label: str = "variant",
    reference: str = FLOAT,
    ceiling: float | None = None,
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Loss (low is good) against bits per weight, one marker a variant, means over seeds with standard errors.

    Steps join the variants that no other beats with as few bits or fewer; the dashed line is the model before it was
    quantised, which has no place on the axis of bits.

    Args:
        table: tidy rows, one observation (seed) a row; the rows whose ``group`` is ``reference`` give the dashed line.
        panel: column of which every value has a panel of its own, with scales of its own.
        ceiling: values above it are drawn at it, as triangles: a collapse must not flatten everything else.

    Raises:
        ValueError: an empty table, a missing column ("did you mean"), or no row but the reference's.
    """
    check_columns(table, x=x, y=y, group=group, panel=panel, label=label)
    if not (table[group] != reference).any():
        raise ValueError(f"every row of {group} is {reference!r}: there is no quantised model to draw.")
    names = [""] if panel is None else [str(name) for name in table[panel].unique()]
    figure, places = small_multiples(names, columns=2, height=300, share_x=False, share_y=False)
    groups = [name for name in table[group].unique() if name != reference]
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        rows = table if panel is None else table[table[panel].astype(str) == name]
        _add_panel(figure, rows, place, groups, x=x, y=y, group=group, label=label, reference=reference,
                   ceiling=ceiling, legend=index == 0)  # fmt: skip
    words = labels or {}
    title_outer_axes(figure, places, x=words.get(x, BITS), y=words.get(y, y))
    height = figure.layout.height + height_for(len(groups) + 1) - height_for(1)
    return figure.update_layout(title_text=title, height=height, margin_t=80 if title else 40)


def _add_panel(
    figure: go.Figure,
    rows: pd.DataFrame,
    place: dict[str, int],
    groups: list,
    *,
    x: str,
    y: str,
    group: str,
    label: str,
    reference: str,
    ceiling: float | None,
    legend: bool,
) -> None:
    quantised, plain = rows[rows[group] != reference], rows[rows[group] == reference]
    cells = quantised.dropna(subset=[x, y]).groupby([group, label], sort=False)
    means = cells.agg(x=(x, "mean"), y=(y, "mean"), error=(y, "sem"), n=(y, "count")).reset_index()
    if means.empty:
        return
    shown = means["y"] if ceiling is None else means["y"].clip(upper=ceiling)
    means = means.assign(shown=shown, cut=shown < means["y"])
    least = front_of(means.assign(gain=-means["y"])[~means["cut"]], x="x", y="gain")
    figure.add_trace(
        go.Scatter(
            x=least["x"], y=least["shown"], name="front", mode="lines", legendgroup="front", showlegend=legend,
            line={"color": INK, "width": 1.5, "shape": "hv", "dash": "solid"}, hoverinfo="skip",
        ),
        **place,
    )  # fmt: skip
    for index, name in enumerate(groups):
        some = means[means[group] == name]
        style = look(index)
        symbols = ["triangle-up-open" if cut else style.symbol for cut in some["cut"]]
        figure.add_trace(
            go.Scatter(
                x=some["x"], y=some["shown"], name=str(name), mode="markers", legendgroup=str(name),
                showlegend=legend,
                marker={"color": style.colour, "symbol": symbols, "size": 10, "line": {"width": 1.6}},
                error_y={"array": some["error"].where(~some["cut"]), "thickness": 1.4, "width": 3},
                customdata=some[[label, "y", "n"]].to_numpy(),
                hovertemplate="%{customdata[0]}: %{customdata[1]:.4g} at %{x:.2f} bits (n = %{customdata[2]})"
                "<extra></extra>",
            ),
            **place,
        )  # fmt: skip
    if len(plain):
        level = plain[y].mean()
        ends = [means["x"].min() - 0.2, means["x"].max() + 0.2]
        figure.add_trace(
            go.Scatter(
                x=ends, y=[level, level], name=reference, mode="lines", legendgroup=reference, showlegend=legend,
                line={"color": INK, "width": 2, "dash": "dash"},
                hovertemplate=f"{reference}: %{{y:.4g}}<extra></extra>",
            ),
            **place,
        )  # fmt: skip
    values = [*means["shown"], *plain[y]]
    if min(values) > 0 and max(values) / min(values) > 1.5:
        ticks = log_ticks(values)
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=[compact(tick) for tick in ticks], **place)
