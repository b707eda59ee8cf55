"""Valleys, optima and the law: marks stand where the tables say, and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench import published
from workbench.errors import UnknownName
from workbench.plots.law import u_curves
from workbench.plots.law_line import fitted_students, law_line, published_line

SIZES = (1000, 4000, 16000, 64000)
LAW = published.load("capacity_gap", "law_fit")


def grid(students=(2000,), objectives=("forward_kl", "reverse_kl"), inits=("random",), seeds=3) -> pd.DataFrame:
    rows = []
    for student in students:
        common = {"student": f"s{student}", "student_parameters": student}
        rows += [
            common
            | {"teacher": "none", "objective": "cross_entropy", "init": inits[0], "seed": seed,
               "nats": 2.5 + 0.01 * seed}
            for seed in range(seeds)
        ]  # fmt: skip
        rows += [
            common
            | {"teacher": f"t{size}", "teacher_parameters": size, "teacher_nats": 3 - 0.1 * np.log(size), "init": init,
               "ratio": size / student, "objective": objective, "seed": seed,
               "nats": 2.3 + 0.1 * place + 0.01 * np.log(size / 4000) ** 2 + 0.005 * seed}
            for size in SIZES for place, objective in enumerate(objectives) for init in inits for seed in range(seeds)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def optima(
    kind="interior", estimate=4000.0, low=3000.0, high=8000.0, student=2000, objective="forward_kl"
) -> pd.DataFrame:
    row = {"student": f"s{student}", "student_size": student, "init": "random", "objective": objective,
           "estimate": estimate, "low": low, "high": high, "kind": kind, "smallest": 1000,
           "largest": 64000}  # fmt: skip
    return pd.DataFrame([row])


def marks(figure):
    return [trace for trace in figure.data if str(trace.name).startswith("best for")]


def notes(figure):
    return [note.text for note in figure.layout.annotations]


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_a_curve_is_the_mean_over_seeds_with_its_error_and_the_baseline_a_band():
    figure = u_curves(grid())
    (curve,) = named(figure, "forward_kl")
    assert list(curve.x) == list(SIZES)
    assert curve.y[1] == pytest.approx(2.305)
    assert curve.error_y.array[1] == pytest.approx(0.005 / np.sqrt(3))
    (line,) = named(figure, "no teacher")
    assert list(line.y) == pytest.approx([2.51, 2.51])
    (band,) = named(figure, "no teacher ± s.e.")
    assert max(band.y) - min(band.y) == pytest.approx(2 * 0.01 / np.sqrt(3))


def test_the_laws_teacher_is_marked_among_those_tried_and_told_where_it_is_not():
    figure = u_curves(grid())
    assert [shape.x0 for shape in figure.layout.shapes] == pytest.approx([5000])
    assert "law: 2.5 × student" in notes(figure)
    outside = u_curves(grid(students=(90000,)))
    assert not outside.layout.shapes
    assert "<i>2.5 × student lies outside</i>" in notes(outside)


def test_only_an_interior_optimum_is_marked():
    (mark,) = marks(u_curves(grid(), optima()))
    assert list(mark.x) == [4000, 4000]
    assert mark.error_x.array[0] == pytest.approx(4000)
    assert mark.error_x.arrayminus[0] == pytest.approx(1000)
    for kind in ("edge of range", "undecided"):
        figure = u_curves(grid(), optima(kind))
        assert not marks(figure)
        assert "<i>no optimum inside the sizes tried</i>" in notes(figure)


def test_an_open_interval_ends_at_the_sizes_tried():
    (mark,) = marks(u_curves(grid(), optima(low=0.0, high=np.inf)))
    assert mark.error_x.arrayminus[0] == pytest.approx(3000)
    assert mark.error_x.array[0] == pytest.approx(60000)


@pytest.mark.parametrize(("x", "at"), [("ratio", 2.0), ("teacher_nats", 3 - 0.1 * np.log(4000))])
def test_another_axis_takes_the_optimum_along(x, at):
    figure = u_curves(grid(), optima(), x=x)
    assert marks(figure)[0].x[0] == pytest.approx(at)
    assert figure.layout.shapes[0].x0 == pytest.approx(2.5 if x == "ratio" else 3 - 0.1 * np.log(5000))
    assert figure.layout.xaxis.type == (None if x == "teacher_nats" else "log")


def test_several_students_and_starts_get_a_panel_each_with_their_own_marks():
    rows = grid(students=(2000, 8000), inits=("random", "pruned"))
    figure = u_curves(rows, optima(student=8000))
    assert [text for text in notes(figure) if text.startswith("student")] == [
        "student s2000 (2000), random", "student s2000 (2000), pruned",
        "student s8000 (8000), random", "student s8000 (8000), pruned",
    ]  # fmt: skip
    assert [trace.xaxis for trace in marks(figure)] == ["x3"]
    assert len(named(figure, "no teacher")) == 4  # one baseline serves both starts


def test_without_a_teacher_or_with_an_unknown_axis_nothing_is_drawn():
    with pytest.raises(ValueError, match="no student with a teacher"):
        u_curves(grid(objectives=()).assign(teacher_parameters=np.nan))
    with pytest.raises(UnknownName, match="Did you mean 'teacher_nats'"):
        u_curves(grid(), x="teacher_nat")


def test_the_papers_line_is_solid_between_its_own_teachers_and_passes_near_minima():
    figure = law_line(optima().head(0), None, LAW)
    (solid,) = named(figure, "the paper's line where it was fitted")
    assert solid.line.dash == "solid"
    assert (solid.y[0], solid.y[-1]) == (pytest.approx(70e6), pytest.approx(2800e6))
    assert {trace.line.dash for trace in named(figure, "the paper's line, extrapolated")} == {"dash"}
    (star,) = named(figure, "MiniMA-3B")
    fit = LAW.set_index("quantity")["value"].astype(float)
    assert published_line(fit, np.array(star.x))[0] == pytest.approx(star.y[0], rel=0.05)
    assert np.isnan(published_line(fit, np.array([4e6]))[0])
    assert fitted_students(fit)[0] == pytest.approx((70 + 11.498) / 2.498 * 1e6)


def test_an_interior_optimum_is_filled_and_a_bound_is_open_and_points_beyond():
    (point,) = named(law_line(optima(), None, LAW), "forward_kl")
    assert not str(point.marker.symbol).endswith("open")
    assert point.error_y.array[0] == pytest.approx(4000)
    for estimate, low, high, symbol in (
        (64000.0, 9000.0, np.inf, "triangle-up-open"), (1000.0, 0.0, 2000.0, "triangle-down-open"),
    ):  # fmt: skip
        figure = law_line(optima("edge of range", estimate, low, high), None, LAW)
        (point,) = named(figure, "forward_kl (bound or undecided)")
        assert list(point.marker.symbol) == [symbol]
        assert np.isfinite([*point.error_y.array, *point.error_y.arrayminus]).all()


def test_one_seed_has_no_interval_and_an_undecided_optimum_is_an_open_circle():
    (point,) = named(
        law_line(optima("undecided", low=np.nan, high=np.nan), None, LAW), "forward_kl (bound or undecided)"
    )
    assert list(point.marker.symbol) == ["circle-open"]
    assert point.error_y.array[0] == point.error_y.arrayminus[0] == 0


def test_our_line_goes_no_further_than_our_students():
    points = pd.concat([optima(), optima(student=8000, estimate=16000.0, low=9000.0, high=30000.0)])
    fitted = pd.DataFrame([{"objective": "forward_kl", "slope": 2.0, "intercept": 0.0}])
    (line,) = named(law_line(points, fitted, LAW), "our line, forward_kl")
    assert (min(line.x), max(line.x)) == (pytest.approx(2000), pytest.approx(8000))
    assert list(line.y) == pytest.approx([2 * size for size in line.x])
    assert not [trace for trace in law_line(points, fitted.head(0), LAW).data if str(trace.name).startswith("our line")]


def test_starts_are_told_apart_where_there_are_several():
    points = pd.concat([optima(), optima().assign(init="pruned")])
    names = {trace.name for trace in law_line(points, None, LAW).data}
    assert {"forward_kl, random", "forward_kl, pruned"} <= names
