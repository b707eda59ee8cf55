"""The paper's protocol: what each step promises, and that bad settings are refused before any training."""

import numpy as np
import pandas as pd
import pytest

from workbench.experiments import taid as experiment
from workbench.losses import TAIDSchedule
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import DistilGrid, TextTask
from workbench.training.gaussian_fit import Mixture


@pytest.fixture(scope="module")
def config():
    return experiment.Config.of("smoke")


@pytest.fixture(scope="module")
def gaussians(config):
    return experiment.fit_gaussians(config)


@pytest.fixture(scope="module")
def result(config, gaussians):
    grid = experiment.distil_students(config, experiment.train_teachers(config))
    return experiment.conclude(config, gaussians, experiment.trace_schedule(config), grid)


def ends(gaussians, objective):
    return gaussians[(gaussians["objective"] == objective) & (gaussians["step"] == gaussians["step"].max())]


def test_forward_kl_matches_the_moments_with_the_value_known_for_them(gaussians):
    start = ends(gaussians, "forward KL").set_index("start").loc["mean 0, sd 3"]
    assert start["mean"] == pytest.approx(Mixture().mean, abs=2e-3)
    assert start["sd"] == pytest.approx(3.0463, abs=3e-3)
    assert start["value"] == pytest.approx(0.6643, abs=5e-4)


def test_reverse_kl_ends_at_minus_the_log_of_the_modes_weight(gaussians):
    narrow = ends(gaussians, "reverse KL").set_index("start")
    assert narrow.loc["mean -2, sd 0.5", "value"] == pytest.approx(-np.log(0.6), abs=1e-3)
    assert narrow.loc["mean 2, sd 0.5", "value"] == pytest.approx(-np.log(0.4), abs=1e-3)


def test_taid_ends_at_the_moments_from_every_start(gaussians):
    taid = ends(gaussians, "TAID")
    assert np.abs(taid["mean"] - Mixture().mean).max() < 0.02
    assert np.abs(taid["sd"] - Mixture().spread).max() < 0.02


def test_the_published_alpha_never_leaves_the_line_below_4000_steps_and_the_scaled_one_does():
    trace = experiment.trace_schedule(experiment.Config.of("quick"))
    lead = (trace["t"] - trace["line"]).groupby([trace["steps"], trace["schedule"]]).max()
    assert lead[400, "alpha = 5e-4"] == lead[4000, "alpha = 5e-4"] == 0
    assert lead[400, "alpha scaled"] > 0.1
    # After n strides t is about 1 - (1 - t_start) exp(-alpha n / 2), the line t_start + (1 - t_start) n / N.
    way = np.linspace(0, 1, 1001)
    expected = (0.8 * (1 - np.exp(-4 * way)) - 0.8 * way).max()
    assert lead[16000, "alpha = 5e-4"] == pytest.approx(expected, abs=0.01)


def test_the_trace_is_the_schedule_stepped_by_hand():
    config = experiment.Config.of("smoke")
    trace = experiment.trace_schedule(config)
    traced = trace.query("schedule == 'alpha scaled' and course == 'falling' and steps == 400").set_index("step")["t"]
    schedule = TAIDSchedule(t_start=config.t_start, alpha=8 / 400)
    by_hand = [schedule.t]
    for step in range(1, 401):
        by_hand.append(schedule.update(0.5 + 2 * np.exp(-3 * step / 400), step, 400))
    np.testing.assert_allclose(traced, np.array(by_hand)[traced.index], rtol=1e-10)


def test_every_teacher_teaches_every_objective_once_a_seed(config, result):
    cells = result.rows.groupby(["teacher", "objective"])["seed"].apply(list)
    assert len(cells) == len(config.teachers) * len(config.objectives)
    assert {tuple(seeds) for seeds in cells} == {config.seeds}


def test_table_3_stands_beside_the_students_of_the_largest_teacher_alone(result):
    beside = result.table().dropna(subset="published")
    assert set(beside["teacher"]) == {"32x1"}
    taid = beside[(beside["objective"] == "taid") & (beside["measure"] == "head_mass")]
    assert taid["published"].tolist() == [0.218]
    assert set(beside["objective"]) == {"forward_kl", "reverse_kl", "taid"}


def test_a_slope_is_per_tenfold_size():
    rows = pd.DataFrame(
        [
            {"objective": "taid", "teacher_parameters": size, "seed": seed, "nats": 3 - 0.5 * np.log10(size) + seed}
            for size in (1e3, 1e4, 1e5)
            for seed in range(3)
        ]
    )
    assert experiment.growth(rows, "taid").estimate == pytest.approx(-0.5)


def test_smoke_judges_nothing_and_every_claim_names_its_source(result):
    assert set(result.check()["verdict"]) == {"not judged"}
    assert all(claim.source for claim in result.claims)


def test_table_6_rises_for_taid_and_falls_for_skew_kl():
    table = experiment.published_teacher_sizes().sort_values("teacher_parameters")
    by_method = {name: rows["accuracy"].tolist() for name, rows in table.groupby("objective")}
    assert by_method["TAID"] == sorted(by_method["TAID"])
    assert by_method["Skew KL"] == sorted(by_method["Skew KL"], reverse=True)


def test_table_1_stands_beside_ours_by_rank_and_every_row_of_it_has_a_name(result, config):
    methods = experiment.published_methods()
    assert methods["objective"].notna().all()
    assert methods.query("objective == 'taid'")["score"].tolist() == [4.05, 4.27, 3.05]
    table = experiment.beside_table_1(result.rows).set_index("objective")
    assert set(table.index) == set(config.objectives)
    assert table.loc["taid", "published_rank"] == 1
    assert sorted(table["our_rank"]) == [1, 2, 3, 4]
    assert table["n"].eq(len(config.seeds)).all()


def test_full_has_every_loss_of_table_1_and_a_claim_for_each():
    config = experiment.Config.of("full")
    losses = set(experiment.published_methods()["objective"]) - {"cross_entropy"}  # fine-tuning needs no teacher
    assert losses <= set(config.objectives)
    assert losses - {"taid", "taid_linear"} <= set(experiment.NAMED)
    assert len(config.teachers) >= 5
    assert len(config.seeds) >= 5


def test_without_a_real_teacher_its_step_does_nothing(config):
    real = experiment.distil_from_real_teacher(config)
    assert real.rows.empty
    assert real.table().empty
    assert list(real.samples.columns) == ["model", "way", "prompt", "text"]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A tiny Llama of its own vocabulary in a folder stands for the hub's; one split only, so that it is quick."""
    folder = tmp_path_factory.mktemp("real") / "tiny"
    text = TextTask(vocabulary=300).prepare()
    small_lm(text.vocab_size, ModelSize(48, 1, 3), context=128, seed=5).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    config = experiment.Config.of("smoke", real_teacher=str(folder))
    return config, experiment.distil_from_real_teacher(config)


def test_a_real_teacher_is_any_folder_and_its_students_are_rows_of_the_result(real, gaussians, result):
    config, found = real
    assert found.rows["objective"].value_counts().to_dict() == dict.fromkeys(
        ["cross_entropy", "forward_kl", "taid", "topk_kl"], len(config.seeds)
    )
    assert found.rows[["nats", "perplexity", "kl_to_teacher", "reverse_kl_to_teacher"]].notna().all(axis=None)
    assert found.table()["model"].tolist()[0] == "tiny"
    grid = DistilGrid(result.rows.assign(init="", student="", student_parameters_without_embeddings=0), result.curves)
    both = experiment.conclude(config, gaussians, experiment.trace_schedule(config), grid, found)
    assert len(both.rows) == len(result.rows) + len(found.rows)
    assert len(both.claims) == len(result.claims) + 4
    before = {claim.statement: claim.effect for claim in result.claims}
    assert all(str(claim.effect) == str(before.get(claim.statement, claim.effect)) for claim in both.claims)
    assert {"perplexity", "nats"} <= set(both.table()["measure"])
    written = found.samples
    assert set(written["way"]) == {"greedy", "sampled"}
    assert written["model"].nunique() == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"objectives": ("taid", "forward_kl")}, "lacks .*reverse_kl"),
        ({"objectives": ("taid", "forward_kl", "reverse_kl", "skew_kl", "tiad")}, "Did you mean 'taid'"),
        ({"teachers": ("64x2",)}, "at least two"),
        ({"seeds": ()}, "seeds"),
        ({"student_steps": 0}, "student_steps"),
        ({"t_start": 1.5}, "t_start"),
        ({"real_teacher": "smollm3"}, "neither none, nor one of smollm2-135m"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)
