"""The paper's protocol: where an optimum lies, what may be called one, and the paper's own numbers."""

import numpy as np
import pandas as pd
import pytest

from workbench.experiments import capacity_gap as experiment
from workbench.training import DistilGrid


@pytest.fixture(scope="module")
def config():
    return experiment.Config.of("smoke", inits=("random", "pruned"), teachers=("12x1", "16x1", "32x1", "48x1", "64x1"))


@pytest.fixture(scope="module")
def grid(config):
    return experiment.distil_students(config, experiment.train_teachers(config))


def made_up(bottoms, *, seeds=6):
    """Rows of students whose held-out loss is a parabola in log teacher size with a known bottom."""
    random = np.random.default_rng(0)
    rows = [
        {
            "student": student, "student_parameters": size, "teacher": str(teacher), "teacher_parameters": teacher,
            "ratio": teacher / size, "init": "random", "objective": objective, "seed": seed,
            "nats": 2 + 0.1 * np.log(teacher / (bottom * size)) ** 2 + 1e-3 * random.normal(),
        }
        for student, size, bottom in bottoms
        for teacher in (2e3, 8e3, 32e3, 128e3, 512e3)
        for objective in ("minima", "forward_kl", "reverse_kl")
        for seed in range(seeds)
    ]  # fmt: skip
    return DistilGrid(pd.DataFrame(rows), pd.DataFrame())


def test_optima_and_law_are_found_where_they_were_put():
    config = experiment.Config.of("quick")
    optima = experiment.locate_optima(config, made_up([("a", 5e3, 2.5), ("b", 1e4, 2.5), ("c", 4e4, 2.5)]))
    assert set(optima["kind"]) == {"interior"}
    np.testing.assert_allclose(optima["ratio"], 2.5, rtol=0.05)
    law = experiment.fit_law(config, optima).set_index("objective")
    assert law.loc["minima", "slope"] == pytest.approx(2.5, rel=0.05)
    assert law.loc["minima", ["students", "interior"]].tolist() == [3, 3]


def test_an_interval_that_reaches_the_end_of_the_sizes_is_open_there():
    config = experiment.Config.of("quick")
    optima = experiment.locate_optima(config, made_up([("small", 5e3, 0.1), ("large", 5e5, 50.0)]))
    by_student = optima.drop_duplicates("student").set_index("student")
    assert by_student.loc["small", "low"] == 0.0
    assert by_student.loc["large", "high"] == np.inf
    assert set(optima["kind"]) == {"edge of range"}


def test_students_without_an_optimum_make_no_line():
    config = experiment.Config.of("quick")
    optima = experiment.locate_optima(config, made_up([("a", 5e3, 0.1), ("b", 1e4, 2.5)]))
    law = experiment.fit_law(config, optima).set_index("objective")
    assert law.loc["minima", ["students", "interior"]].tolist() == [2, 1]
    assert np.isnan(law.loc["minima", "slope"])


def test_sizes_can_be_counted_without_embeddings_and_nothing_else(grid, config):
    optima = experiment.locate_optima(config, grid, size="teacher_parameters_without_embeddings")
    assert optima["student_size"].max() < experiment.locate_optima(config, grid)["student_size"].min()
    with pytest.raises(ValueError, match="Did you mean 'teacher_parameters'"):
        experiment.locate_optima(config, grid, size="teacher_parameter")


def test_one_student_makes_no_line():
    config = experiment.Config.of("quick")
    assert experiment.fit_law(config, experiment.locate_optima(config, made_up([("a", 5e3, 2.5)]))).empty


def test_a_pruned_student_comes_only_from_a_larger_teacher_of_its_kind(grid):
    pruned = grid.rows[grid.rows["init"] == "pruned"]
    assert set(pruned["teacher"]) == {"32x1", "48x1", "64x1"}
    assert (pruned["ratio"] > 1).all()
    assert set(pruned["objective"]) == {experiment.PAPERS_OBJECTIVE}


def test_full_compares_five_teachers_two_students_five_losses_and_five_seeds_at_least():
    full = experiment.Config.of("full")
    pulled = [name for name in full.objectives if name != "cross_entropy"]
    assert min(len(full.teachers), len(pulled), len(full.seeds)) >= 5
    assert len(full.students) >= 2


def test_the_baseline_without_a_teacher_is_trained_once(grid, config):
    baseline = grid.rows[grid.rows["teacher"] == "none"]
    assert set(baseline["objective"]) == {"cross_entropy"}
    assert baseline["seed"].tolist() == list(config.seeds)


def test_every_step_leads_to_claims_that_name_their_source(grid, config):
    teachers = experiment.train_teachers(config)
    optima = experiment.locate_optima(config, grid)
    result = experiment.conclude(config, teachers, grid, optima, experiment.fit_law(config, optima))
    assert all(claim.source for claim in result.claims)
    assert set(result.check()["verdict"]) == {"not judged"}
    assert any("pruned from its teacher" in claim.statement for claim in result.claims)
    table = result.table().query("measure == 'nats' and objective == 'minima'")
    assert table["n"].eq(len(config.seeds)).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"teachers": ("16x1", "32x1")}, "at least three"),
        ({"inits": ("prunned",)}, "Did you mean 'pruned'"),
        ({"objectives": ("minima",)}, "lacks"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)
