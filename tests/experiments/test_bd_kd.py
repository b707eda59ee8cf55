"""The paper's protocol: what each step promises, and that bad settings are refused before any training."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import AssetError
from workbench.experiments import bd_kd as experiment
from workbench.training.online import PULLS


@pytest.fixture(scope="module")
def config():
    return experiment.Config.of("smoke")


@pytest.fixture(scope="module")
def grid(config):
    return experiment.train_pairs(config)


@pytest.fixture(scope="module")
def result(config, grid):
    return experiment.conclude(config, grid)


def test_every_method_is_run_with_every_noise_teacher_and_seed(config, result):
    students = result.rows[(result.rows["network"] == "student") & result.rows["method"].isin(PULLS)]
    cells = students.groupby(["noise", "teacher", "method"])["seed"].apply(tuple)
    assert len(cells) == len(config.noise) * len(config.teachers) * len(PULLS)
    assert set(cells) == {config.seeds}


def test_scaled_students_stand_beside_those_that_they_come_from(result):
    methods = result.rows.groupby("noise")["method"].unique()
    assert {"dml_scaled", "dml_scaled_clean", "cross_entropy_scaled"} <= set(methods[0.2])
    assert "dml_scaled_clean" not in methods[0.0]  # with true labels there is one validation set


def test_no_number_stands_beside_ours_since_none_could_be_read(result):
    assert result.published is None
    assert "published" not in result.table()


def test_smoke_judges_nothing_and_every_claim_names_its_source(result):
    assert set(result.check()["verdict"]) == {"not judged"}
    assert all(claim.source for claim in result.claims)
    assert len({claim.statement for claim in result.claims}) == len(result.claims) == 16


def test_what_gates_is_the_papers_main_claim_and_what_no_seed_moves(result):
    gating = [claim for claim in result.claims if claim.gating]
    assert [claim.effect.is_exact for claim in gating] == [False, True]
    assert "better calibrated than DML" in gating[0].statement
    assert gating[1].verdict == "supported"
    assert gating[1].effect.estimate == 0


def test_claims_are_about_the_last_teacher_and_the_highest_noise(config, result):
    rows = experiment.students_of(config, result.rows)
    assert set(rows["teacher"]) == {"32x1"}
    assert set(rows["noise"]) == {0.2}
    wide = rows.pivot(index="seed", columns="method", values="ece")
    assert result.claims[0].effect.estimate == pytest.approx((wide["bd_kd"] - wide["dml"]).mean())


def test_a_slope_is_per_tenfold_teacher(config):
    rows = pd.DataFrame(
        [
            {"noise": 0.2, "network": "student", "method": "bd_kd", "teacher_parameters": size, "seed": seed,
             "ece": 0.3 - 0.1 * np.log10(size) + seed}
            for size in (1e3, 1e4, 1e5)
            for seed in range(3)
        ]
    )  # fmt: skip
    assert experiment.growth(config, rows, "bd_kd").estimate == pytest.approx(-0.1)


def test_the_labels_that_are_shown_are_as_wrong_as_the_config_says(config):
    shown = experiment.show_labels(config, experiment.load_pictures(config)).set_index("noise")
    assert shown["wrong"].to_dict() == {0.2: 0.2, 0.0: 0.0}


def test_fewer_methods_and_one_teacher_give_fewer_claims():
    config = experiment.Config.of(
        "smoke", methods=["dml", "fixed", "bd_kd"], teachers=["16x1"], noise=[0.0], epochs=1, student="cnn2"
    )
    assert len(experiment.run(config).claims) == 6


def test_the_papers_setting_says_at_once_all_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for step in (experiment.run, experiment.load_pictures):
        with pytest.raises(AssetError) as caught:
            step(experiment.Config.of("paper"))
        said = str(caught.value)
        for part in ("a GPU", "CIFAR-100", "cifar-100-python.tar.gz", str(tmp_path / "archives"), "quick and full"):
            assert part in said
        assert "\n" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"methods": ("dml", "bd_kd")}, "lacks .*fixed"),
        ({"methods": ("dml", "bd_kd", "fixed", "bdkd_swap")}, "Did you mean 'bd_kd_swap'"),
        ({"methods": ("dml", "bd_kd", "fixed", "offline_kd")}, "needs cross_entropy"),
        ({"teachers": ("256",)}, "256x2"),
        ({"teachers": ("16x1", "16x1")}, "none twice"),
        ({"teachers": ()}, "teachers"),
        ({"noise": (1.5,)}, "noise"),
        ({"noise": ()}, "noise"),
        ({"seeds": ()}, "seeds"),
        ({"delta": 0.5}, "delta"),
        ({"epochs": 0}, "epochs"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)


def test_more_pictures_than_there_are_are_refused_with_how_many_will_do():
    with pytest.raises(ValueError, match="at most 714 will do"):
        experiment.load_pictures(experiment.Config.of("smoke", train_size=720))
