"""Students against the size of their teachers: valleys, their optima, and the line through these."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import check_choice
from workbench.plots.axes import compact, log_ticks
from workbench.plots.columns import check_columns, spread
from workbench.plots.panels import small_multiples, title_outer_axes
from workbench.plots.theme import INK, TEMPLATE, faded, look, named

NO_TEACHER = "none"
RATIO = 2.5  # the law, rounded as the paper does: the best teacher over its student
X_LABELS = {
    "teacher_parameters": "teacher parameters",
    "teacher_parameters_without_embeddings": "teacher parameters without embeddings",
    "ratio": "teacher size / student size",
    "teacher_nats": "teacher's held-out nats per byte (better to the right)",
    "nats": "held-out nats per byte",
}


def u_curves(
    rows: pd.DataFrame,
    optima: pd.DataFrame | None = None,
    *,
    x: str = "teacher_parameters",
    y: str = "nats",
    group: str = "objective",
    optima_in: str = "teacher_parameters",
    ratio: float = RATIO,
    labels: dict[str, str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Held-out loss ± s.e. against the teacher per objective; a panel per student and kind of start.

    An ``interior`` optimum is a vertical line with its interval at the foot of the panel; others are
    not drawn, since they are none. Students without a teacher are a horizontal band.

    Args:
        rows: one student a row, as ``distil_grid`` gives them.
        optima: the columns ``student``, ``init``, ``objective``, ``estimate``, ``low``, ``high`` (0 or
            infinity where open) and ``kind``.
        x: one of ``X_LABELS``: a size or ``ratio`` on a logarithmic axis, ``teacher_nats`` on a linear one.
        optima_in: the column of ``rows`` that the optima were located in.
        ratio: the law's ``teacher = ratio × student``, drawn as a dotted line.

    Raises:
        ValueError: an empty table, no row with a teacher, a missing column or an unknown ``x`` ("did you mean").
    """
    check_choice("x", x, [name for name in X_LABELS if name != "nats"])
    check_columns(rows, argument="rows", x=x, y=y, group=group, optima_in=optima_in, teacher="teacher")
    taught = rows[rows["teacher"] != NO_TEACHER]
    if taught.empty:
        raise ValueError("rows hold no student with a teacher: there is no curve to draw.")
    groups = list(taught[group].unique())
    facets = [name for name in ("student", "init") if name in taught.columns]
    panels = list(taught[facets].drop_duplicates().itertuples(index=False, name=None)) if facets else [()]
    heads = [_head(taught, dict(zip(facets, one, strict=True))) for one in panels]
    figure, places = small_multiples(heads, height=330 if len(panels) == 1 else 250)
    means = taught.groupby([*facets, group, x], observed=True)[y].mean()
    foot = _foot(means, rows.loc[rows["teacher"] == NO_TEACHER, y])
    for place, panel in zip(places, panels, strict=True):
        chosen = dict(zip(facets, panel, strict=True))
        some, shown = _of(taught, chosen), place == places[0]
        # A baseline has no start of its own: it serves every panel of its student.
        alone = _of(rows[rows["teacher"] == NO_TEACHER], {key: chosen[key] for key in chosen if key == "student"})
        _add_baseline(figure, place, some[x], alone[y], shown=shown)
        _add_law(figure, place, some, x=x, ratio=ratio, optima_in=optima_in, shown=shown)
        marks = None if optima is None else _of(optima, chosen)
        for index, name in enumerate(groups):
            cells = spread(some[some[group] == name], x=x, y=y)
            if cells.empty:
                continue
            figure.add_trace(_line(cells, x, str(name), index, shown=shown), **place)
            if marks is not None:
                found = marks[(marks[group] == name) & (marks["kind"] == "interior")]
                for one in found.to_dict("records"):
                    _add_optimum(figure, place, one, cells, some, x=x, optima_in=optima_in, foot=foot, index=index)
        if marks is not None and not (marks["kind"] == "interior").any():
            _say(figure, place, "no optimum inside the sizes tried")
    figure.update_yaxes(range=[foot[0], foot[1]], zeroline=False)
    if x == "teacher_nats":
        figure.update_xaxes(autorange="reversed", zeroline=False)
    else:
        ticks = log_ticks(taught[x])
        if len(panels) > 1:
            ticks = ticks[:: -(-len(ticks) // 4)]  # narrow panels have room for a few
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[compact(tick) for tick in ticks], tickangle=0)
    names = X_LABELS | (labels or {})
    title_outer_axes(figure, places, x=named(x, names), y=named(y, names))
    return figure.update_layout(template=TEMPLATE, title_text=title)


def _head(taught: pd.DataFrame, panel: dict) -> str:
    """Say only what differs between panels; one panel has no heading."""
    several = {name: len(taught[name].unique()) > 1 for name in panel}
    parts = []
    if several.get("student"):
        size = _of(taught, panel)["student_parameters"].iloc[0] if "student_parameters" in taught.columns else None
        parts.append(f"student {panel['student']}" + ("" if size is None else f" ({compact(size)})"))
    if several.get("init"):
        parts.append(f"{panel['init']}" + ("" if parts else " start"))
    return ", ".join(parts)


def _of(table: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    for name, value in chosen.items():
        if name in table.columns:
            table = table[table[name] == value]
    return table


def _foot(means: pd.Series, alone: pd.Series) -> tuple[float, float]:
    """Lowest and highest height of the panels: room below the curves for the intervals of optima."""
    heights = [*means.dropna(), *([alone.mean()] if alone.notna().any() else [])]
    low, high = min(heights), max(heights)
    reach = (high - low) or abs(low) * 0.1 or 1.0
    return low - 0.28 * reach, high + 0.16 * reach


def _line(cells: pd.DataFrame, x: str, name: str, index: int, *, shown: bool) -> go.Scatter:
    style = look(index)
    return go.Scatter(
        x=cells[x], y=cells["mean"], name=name, legendgroup=name, showlegend=shown, mode="lines+markers",
        line={"color": style.colour, "dash": style.dash, "width": 2.5},
        marker={"color": style.colour, "symbol": style.symbol, "size": 8},
        error_y={"array": cells["error"], "thickness": 1.5, "width": 3, "color": style.colour},
        customdata=cells[["error", "n"]],
        hovertemplate="%{x:.4g}: %{y:.4f} ± %{customdata[0]:.2g} (n = %{customdata[1]})<extra>%{fullData.name}</extra>",
    )  # fmt: skip


def _add_baseline(figure: go.Figure, place: dict, x: pd.Series, values: pd.Series, *, shown: bool) -> None:
    values = values.dropna()
    if values.empty:
        return
    mean, error = values.mean(), 0.0 if len(values) < 2 else values.sem()
    ends = [x.min(), x.max()]
    common = {"mode": "lines", "legendgroup": NO_TEACHER, "hoverinfo": "skip"}
    figure.add_trace(
        go.Scatter(
            x=[*ends, *ends[::-1]], y=[mean + error] * 2 + [mean - error] * 2, fill="toself", line={"width": 0},
            fillcolor=faded(INK, 0.2), showlegend=False, name="no teacher ± s.e.", **common,
        ),
        **place,
    )  # fmt: skip
    line = {"color": INK, "width": 1.5, "dash": "longdash"}
    figure.add_trace(
        go.Scatter(x=ends, y=[mean] * 2, line=line, name="no teacher", showlegend=shown, **common), **place
    )


def _add_law(
    figure: go.Figure, place: dict, some: pd.DataFrame, *, x: str, ratio: float, optima_in: str, shown: bool,
) -> None:  # fmt: skip
    """The law's teacher, where it lies among those tried."""
    size = optima_in.replace("teacher", "student")
    if size not in some.columns:
        return
    best = _across(ratio * float(some[size].iloc[0]), some, optima_in, x)
    if best is None:
        _say(figure, place, f"{ratio:g} × student lies outside")
        return
    figure.add_shape(
        type="line", x0=best, x1=best, y0=0, y1=1, yref="y domain", line={"color": INK, "width": 1.5, "dash": "dot"},
        layer="below", **place,
    )  # fmt: skip
    where = np.log10(best) if x != "teacher_nats" else best
    figure.add_annotation(
        x=where, y=1, yref="y domain", yanchor="top", xanchor="left", showarrow=False, xshift=3,
        text=f"law: {ratio:g} × student" if shown else f"{ratio:g} ×", font={"size": 12, "color": INK}, **place,
    )  # fmt: skip


def _add_optimum(
    figure: go.Figure, place: dict, optimum: dict, cells: pd.DataFrame, some: pd.DataFrame, *, x: str, optima_in: str,
    foot: tuple[float, float], index: int,
) -> None:  # fmt: skip
    style, name = look(index), f"best for {optimum['objective']}"
    best = _across(optimum["estimate"], some, optima_in, x)
    if best is None:
        return
    tried = some[optima_in]
    held = np.clip([optimum["low"], optimum["high"]], tried.min(), tried.max())
    low, high = sorted(_across(float(end), some, optima_in, x) for end in held)
    height = foot[0] + (0.03 + 0.03 * index) * (foot[1] - foot[0])
    order = cells.sort_values(x)
    along = np.log if x != "teacher_nats" else np.asarray
    top = float(np.interp(along(best), along(order[x].to_numpy(dtype=float)), order["mean"]))
    figure.add_trace(
        go.Scatter(
            x=[best, best], y=[height, top], mode="lines+markers", name=name, legendgroup=str(optimum["objective"]),
            showlegend=False, line={"color": faded(style.colour, 0.6), "width": 1.2, "dash": "solid"},
            marker={"color": style.colour, "symbol": style.symbol, "size": [9, 1]},
            error_x={
                "array": [high - best, np.nan], "arrayminus": [best - low, np.nan], "symmetric": False, "thickness": 3,
                "width": 5, "color": style.colour,
            },
            hovertemplate=f"{best:.4g} [{low:.4g}, {high:.4g}]<extra>{name}</extra>",
        ),
        **place,
    )  # fmt: skip


def _across(value: float, some: pd.DataFrame, given: str, wanted: str) -> float | None:
    """What the column ``wanted`` would be at ``value`` of ``given``, between the teachers tried; else None."""
    known = some.drop_duplicates(given).sort_values(given)
    sizes, targets = (known[name].to_numpy(dtype=float) for name in (given, wanted))
    if not sizes[0] <= value <= sizes[-1]:
        return None
    if given == wanted:
        return value
    logarithmic = wanted != "teacher_nats"
    between = np.interp(np.log(value), np.log(sizes), np.log(targets) if logarithmic else targets)
    return float(np.exp(between) if logarithmic else between)


def _say(figure: go.Figure, place: dict, text: str) -> None:
    """Notes of one panel stand on each other at its foot."""
    index = sum(note.text.startswith("<i>") for note in figure.layout.annotations if note.name == str(place))
    figure.add_annotation(
        name=str(place), text=f"<i>{text}</i>", x=0.02, xref="x domain", y=0.02, yref="y domain", yanchor="bottom",
        xanchor="left", yshift=15 * index, showarrow=False, font={"size": 12, "color": INK}, **place,
    )  # fmt: skip
