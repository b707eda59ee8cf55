"""The law itself: best teacher size against student size, ours beside the paper's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.axes import compact
from workbench.plots.columns import check_columns
from workbench.plots.theme import INK, TEMPLATE, faded, look

MILLION = 1e6
# What may be said of an optimum at the smallest or largest teacher tried: it lies there or beyond.
BOUNDS = {"down": "triangle-down-open", "up": "triangle-up-open", "": "circle-open"}


def law_line(
    points: pd.DataFrame,
    fitted: pd.DataFrame | None,
    published_law: pd.DataFrame,
    *,
    student: str = "student_size",
    group: str = "objective",
    ratio: float = 2.5,
    title: str | None = None,
) -> go.Figure:
    """Best teacher size against student size in parameters, both logarithmic.

    Filled points are optima inside the sizes tried, with intervals; open, faded ones are bounds
    (triangles up: that size or larger) or undecided. The paper's line is solid where it was fitted.

    Args:
        points: the columns ``student``, ``group``, ``estimate``, ``low``, ``high`` and ``kind``; may be
            empty. ``smallest`` and ``largest``, the sizes tried, tell in which direction a bound is open.
        fitted: our lines: ``group``, ``slope`` and ``intercept`` in parameters, or None; may be empty.
        published_law: the paper's numbers, ``published.load("capacity_gap", "law_fit")``.
        ratio: of the dotted line ``teacher = ratio × student``, for students where the paper's line gives none.

    Raises:
        ValueError: a missing column ("did you mean") or a number that the paper's table lacks.
    """
    figure = go.Figure()
    fit = published_law.set_index("quantity")["value"].astype(float)
    students = [] if points.empty else points[student].astype(float).tolist()
    if not points.empty:
        check_columns(points, argument="points", student=student, group=group, estimate="estimate", kind="kind")
    points, fitted = (_with_start(table, group) for table in (points, fitted))
    _add_published(figure, fit, students, ratio)
    names = [] if points.empty else list(points[group].unique())
    for index, name in enumerate(names):
        _add_points(figure, points[points[group] == name], student, str(name), index, shift=index - len(names) / 2)
    if fitted is not None and not fitted.empty:
        check_columns(fitted, argument="fitted", group=group, slope="slope", intercept="intercept")
        for one in fitted.to_dict("records"):
            index = names.index(one[group]) if one[group] in names else len(names)
            _add_fit(figure, one, students, f"our line, {one[group]}", index)
    for axis in ("xaxis", "yaxis"):
        powers = 10.0 ** np.arange(1, 13)
        figure.layout[axis].update(type="log", tickvals=powers, ticktext=[compact(power) for power in powers])
    figure.update_xaxes(title_text="student parameters")
    figure.update_yaxes(title_text="parameters of its best teacher")
    return figure.update_layout(template=TEMPLATE, title_text=title, height=460)


def _with_start(table: pd.DataFrame | None, group: str) -> pd.DataFrame | None:
    """Name the kind of start beside the objective where a table holds several."""
    if table is None or "init" not in table.columns or len(table["init"].unique()) < 2:
        return table
    return table.assign(**{group: table[group].astype(str) + ", " + table["init"].astype(str)})


def published_line(fit: pd.Series, students: np.ndarray) -> np.ndarray:
    """Best teacher in parameters for ``students`` in parameters; NaN where the paper's line gives none."""
    teachers = fit["slope"] * students + fit["intercept"] * MILLION
    return np.where(teachers > 0, teachers, np.nan)


def fitted_students(fit: pd.Series) -> tuple[float, float]:
    """The smallest and largest student, in parameters, whose best teachers lie among those the paper used."""
    ends = (
        min(fit["fit_range_gpt2_teachers_min"], fit["fit_range_pythia_teachers_min"]),
        max(fit["fit_range_gpt2_teachers_max"], fit["fit_range_pythia_teachers_max"]),
    )
    return tuple(float((teacher - fit["intercept"]) / fit["slope"] * MILLION) for teacher in ends)


def _add_published(figure: go.Figure, fit: pd.Series, students: list[float], ratio: float) -> None:
    low, high = fitted_students(fit)
    crossing = -fit["intercept"] / fit["slope"] * MILLION
    far = 4 * fit["extrapolation_student"] * MILLION
    colour = look(0).colour
    near = min([*students, crossing]) / 2
    figure.add_trace(
        go.Scatter(
            x=[near, far], y=[ratio * near, ratio * far], mode="lines", name=f"{ratio:g} × student",
            line={"color": INK, "dash": "dot", "width": 1.5}, hoverinfo="skip",
        )
    )  # fmt: skip
    for name, start, stop, dash, width in (
        ("the paper's line, extrapolated", crossing * 1.02, low, "dash", 2),
        ("the paper's line, extrapolated", high, far, "dash", 2),
        ("the paper's line where it was fitted", low, high, "solid", 4),
    ):
        sizes = np.geomspace(start, stop, 60)
        figure.add_trace(
            go.Scatter(
                x=sizes, y=published_line(fit, sizes), mode="lines", name=name, legendgroup=name,
                showlegend=bool(start != high), line={"color": colour, "dash": dash, "width": width},
                hovertemplate="student %{x:.3s}: teacher %{y:.3s}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[fit["extrapolation_student"] * MILLION], y=[fit["extrapolation_teacher"] * MILLION],
            mode="markers+text", text=["MiniMA-3B from a 7B"], textposition="top left", name="MiniMA-3B",
            marker={"symbol": "star", "size": 14, "color": colour}, textfont={"size": 13, "color": INK},
            showlegend=False, hovertemplate="student %{x:.3s}, teacher %{y:.3s}<extra>%{fullData.name}</extra>",
        )
    )  # fmt: skip


def _add_points(figure: go.Figure, rows: pd.DataFrame, student: str, name: str, index: int, *, shift: float) -> None:
    """Objectives stand a little beside each other, since they share their students."""
    style = look(index + 1)
    inside = rows["kind"] == "interior"
    for some, sure in ((rows[inside], True), (rows[~inside], False)):
        if some.empty:
            continue
        best = some["estimate"].to_numpy(dtype=float)
        low, high = _interval(some)
        symbols = style.symbol if sure else [BOUNDS[_open_side(one)] for one in some.to_dict("records")]
        said = name if sure else f"{name} (bound or undecided)"
        figure.add_trace(
            go.Scatter(
                x=some[student] * 10 ** (0.08 * shift), y=best, mode="markers", name=said,
                marker={
                    "symbol": symbols, "size": 10, "color": style.colour, "line": {"width": 1.6, "color": style.colour}
                },
                error_y={
                    "array": high - best, "arrayminus": best - low, "symmetric": False, "thickness": 1.8, "width": 5,
                    "color": faded(style.colour, 1 if sure else 0.4),
                },
                customdata=some[["kind"]],
                hovertemplate="student %{x:.3s}: teacher %{y:.3s} (%{customdata[0]})<extra>" + name + "</extra>",
            )
        )  # fmt: skip


def _interval(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals, open ones (0, infinity) cut at the sizes tried, no interval where it is not known."""
    best = rows["estimate"].to_numpy(dtype=float)
    smallest = rows["smallest"].to_numpy(dtype=float) if "smallest" in rows.columns else best
    largest = rows["largest"].to_numpy(dtype=float) if "largest" in rows.columns else best
    low, high = (rows[name].to_numpy(dtype=float) for name in ("low", "high"))
    low = np.where(np.isnan(low), best, np.maximum(low, smallest))
    high = np.where(np.isnan(high), best, np.minimum(high, largest))
    return np.minimum(low, best), np.maximum(high, best)


def _open_side(row: dict) -> str:
    if row["kind"] != "edge of range":
        return ""
    if row["estimate"] >= row.get("largest", row["high"]):
        return "up"
    return "down" if row["estimate"] <= row.get("smallest", row["low"]) else ""


def _add_fit(figure: go.Figure, fit: dict, students: list[float], name: str, index: int) -> None:
    """Only between the students it was fitted to: a line on three points says nothing beyond them."""
    if not students:
        return
    sizes = np.geomspace(min(students), max(students), 40)
    teachers = fit["slope"] * sizes + fit["intercept"]
    style = look(index + 1)
    figure.add_trace(
        go.Scatter(
            x=sizes, y=np.where(teachers > 0, teachers, np.nan), mode="lines", name=name,
            line={"color": style.colour, "dash": style.dash, "width": 2},
            hovertemplate="student %{x:.3s}: teacher %{y:.3s}<extra>%{fullData.name}</extra>",
        )
    )  # fmt: skip
