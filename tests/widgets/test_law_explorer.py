"""The law under the hand, without kernel or browser."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import UnknownName
from workbench.metrics.capacity_gap import CapacityGapLaw
from workbench.widgets.law_explorer import LawExplorer

ROWS = pd.DataFrame(
    [
        {"teacher": f"t{size}", "teacher_parameters": size, "teacher_nats": 3 - 0.1 * np.log(size), "student": "s",
         "student_parameters": 2000, "ratio": size / 2000, "objective": "forward_kl", "init": "random", "seed": seed,
         "nats": 2.3 + 0.01 * np.log(size / 4000) ** 2 + 0.01 * seed}
        for size in (1000, 4000, 16000) for seed in range(2)
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def shared():
    return LawExplorer()


@pytest.fixture
def explorer(shared):
    shared.student.value = 400
    for button in shared.benchmarks.values():
        button.value = True
    return shared


def test_the_teacher_is_that_of_the_law_and_stands_in_sentence_and_figure(explorer):
    explorer.student.value = 100
    assert explorer.teacher == pytest.approx(CapacityGapLaw().optimal_teacher(100))
    assert "a teacher of 238M, 2.38 times its size." in explorer.sentence.value
    point = explorer.line.data[-1]
    assert (point.x[0], point.y[0]) == (pytest.approx(1e8), pytest.approx(238.302e6))


def test_beyond_the_students_of_the_fit_it_says_that_it_extrapolates(explorer):
    assert not explorer.extrapolates
    explorer.student.value = 2900
    assert explorer.extrapolates
    assert "extrapolated: it was fitted to students of 32.6M to 1.13B" in explorer.sentence.value


def test_below_4_6_million_the_line_gives_no_teacher_and_the_point_goes(explorer):
    explorer.student.value = 4
    assert math.isnan(explorer.teacher)
    assert "gives no teacher: below 4.6M" in explorer.sentence.value
    assert explorer.line.data[-1].x[0] is None


def test_the_grounds_are_shaded_outside_the_fit(explorer):
    left, right = explorer.line.layout.shapes
    assert left.x1 == pytest.approx(32.6e6, rel=0.01)
    assert right.x0 == pytest.approx(1125.5e6, rel=0.01)


def test_a_line_of_ones_own_in_parameters_brings_its_own_range():
    explorer = LawExplorer(CapacityGapLaw(3.0, 0.0, "", (2000.0, 50000.0)))
    assert not explorer.extrapolates
    explorer.student.value = 0.01
    assert explorer.teacher == pytest.approx(0.03)
    explorer.student.value = 1.0
    assert explorer.extrapolates
    with pytest.raises(ValueError, match="unit='B'"):
        LawExplorer(CapacityGapLaw(unit="B"))


def test_the_benchmarks_that_are_chosen_make_the_mean(explorer):
    assert "digitised" in set(explorer.scores["status"])
    for name, button in explorer.benchmarks.items():
        button.value = name == "MMLU_5shot"
    scores = explorer.scores.set_index("model")["mean"]
    assert scores["MiniMA-3B"] == 28.51
    assert "no single benchmarks" in explorer.said.value
    assert explorer.front.layout.yaxis.title.text == "MMLU 5shot (per cent)"
    drawn = {name for trace in explorer.front.data[1:] for name in (trace.customdata[:, 0] if len(trace.x) else ())}
    assert drawn == set(scores.index)


def test_no_benchmark_empties_the_panel_and_the_next_choice_fills_it(explorer):
    for button in explorer.benchmarks.values():
        button.value = False
    assert "Choose at least one" in explorer.said.value
    assert explorer.scores.empty
    assert not any(len(trace.x) for trace in explorer.front.data)
    explorer.benchmarks["GSM8K_8shot"].value = True
    assert len(explorer.front.data[3].x) == 3
    assert "Choose" not in explorer.said.value


def test_the_papers_models_are_on_the_front_of_the_mean_of_six(explorer):
    assert "on the front: MiniMA-3B, MiniMA-2-1B, MiniMA-2-3B." in explorer.said.value


def test_rows_add_valleys_whose_axis_can_be_changed():
    explorer = LawExplorer(rows=ROWS)
    figure = explorer.valleys.children[0]
    assert list(figure.data[0].x) == [1000, 4000, 16000]
    explorer.axis.value = "ratio"
    assert list(explorer.valleys.children[0].data[0].x) == [0.5, 2.0, 8.0]
    explorer.axis.value = "teacher_nats"
    assert explorer.valleys.children[0].layout.xaxis.autorange == "reversed"


def test_only_axes_that_the_rows_have_can_be_chosen():
    names = [value for _, value in LawExplorer(rows=ROWS).axis.options]
    assert names == ["teacher_parameters", "ratio", "teacher_nats"]
    with pytest.raises(UnknownName, match="nats"):
        LawExplorer(rows=ROWS.drop(columns="nats"))


def test_without_anybody_looking_the_figures_are_plain_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    explorer = LawExplorer(rows=ROWS)
    assert type(explorer.line) is type(explorer.front) is go.Figure
    explorer.student.value = 1000
    explorer.axis.value = "ratio"
    assert explorer.line.to_json()
    assert "2.49 times" in explorer.sentence.value
