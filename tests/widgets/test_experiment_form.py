"""The form, driven as a hand would drive it; no kernel and no browser is needed."""

import textwrap
import threading

import pytest

from workbench.widgets.experiment_form import ExperimentForm

SOURCE = '''
"""The sample mean of more draws spreads less."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from workbench import telemetry
from workbench.claim import Claim
from workbench.metrics.uncertainty import mean_and_error, paired_difference
from workbench.profiles import Profiled
from workbench.result import Result


@dataclass(frozen=True)
class Config(Profiled):
    draws: tuple[int, ...] = (2, 50)  # draws per mean (table 1)
    scale: float = 1.0  # standard deviation of one draw
    law: str = "normal"  # what is drawn
    rounding: Literal["none", "whole"] = "none"  # of each draw
    antithetic: bool = False  # pair every draw with its mirror image
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    limit: int | None = None  # largest absolute draw
    groups: tuple[frozenset, ...] = (frozenset({1, 2}),)  # what no text box can hold
    profile: str = "quick"

    profiles: ClassVar = {"smoke": {"draws": (2, 4), "seeds": (0, 1)}}
    choices: ClassVar = {"law": ("normal", "laplace")}

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0.")


def run(config):
    rows = []
    for seed in config.seeds:
        for draws in config.draws:
            telemetry.check_stop()
            sample = getattr(np.random.default_rng(seed), config.law)(0, config.scale, draws)
            rows.append({"draws": str(draws), "seed": seed, "distance": abs(float(sample.mean()))})
            telemetry.publish(f"{draws} draws", seed, rows[-1]["distance"])
            telemetry.publish_row(rows[-1])
            AFTER_ROW(len(rows))
    table = pd.DataFrame(rows)
    few, many = map(str, config.draws)
    effect = paired_difference(table, few, many, value="distance", by="draws")
    return Result("sample_mean", config, table, claims=[Claim("More draws come closer", effect, above=0.0)])


def AFTER_ROW(count):
    pass
'''


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A real, tiny experiment: a module file with a ``Config`` and ``run``."""
    (tmp_path / "sample_mean_experiment.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("sample_mean_experiment")
    yield module
    import sys

    del sys.modules["sample_mean_experiment"]


def test_every_field_but_the_profile_has_a_control_with_its_comment(experiment):
    form = ExperimentForm(experiment)
    assert list(form.fields.controls) == ["draws", "scale", "law", "rounding", "antithetic", "seeds", "limit", "groups"]
    assert form.fields.controls["draws"].tooltip == "draws per mean (table 1)"


def test_a_field_with_choices_is_a_drop_down(experiment):
    controls = ExperimentForm(experiment).fields.controls
    assert controls["law"].options == ("normal", "laplace")
    assert controls["rounding"].options == ("none", "whole")


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_an_untouched_form_says_exactly_the_profile(experiment, profile):
    assert ExperimentForm(experiment, profile).config() == experiment.Config.of(profile)


def test_what_no_text_box_can_hold_is_shown_and_left_as_it_is(experiment):
    form = ExperimentForm(experiment)
    assert form.fields.controls["groups"].disabled
    form.start()
    form.wait()
    assert form.fields.controls["groups"].disabled
    assert not form.fields.controls["limit"].disabled
    assert form.config().groups == experiment.Config().groups


def test_choosing_a_profile_refills_the_fields(experiment):
    form = ExperimentForm(experiment)
    form.fields.controls["scale"].value = 3.0
    form.profile.value = "smoke"
    assert form.fields.controls["draws"].value == "2, 4"
    assert form.config() == experiment.Config.of("smoke")


def test_what_is_typed_arrives_in_the_config(experiment):
    form = ExperimentForm(experiment)
    form.fields.controls["draws"].value = "3, 30"
    form.fields.controls["law"].value = "laplace"
    form.fields.controls["antithetic"].value = True
    form.fields.controls["limit"].value = "5"
    config = form.config()
    assert (config.draws, config.law, config.antithetic, config.limit) == ((3, 30), "laplace", True, 5)


def test_a_run_ends_with_claims_the_table_and_the_same_rows_as_without_the_form(experiment):
    form = ExperimentForm(experiment)
    form.run_button.click()
    form.wait()
    assert form.state == "done"
    assert form.rows.equals(experiment.run(experiment.Config.of("quick")).rows)
    assert "More draws come closer" in form.report.value
    assert "±" in form.report.value
    assert not form.run_button.disabled


def test_live_curves_hold_every_published_point(experiment):
    form = ExperimentForm(experiment)
    form.start()
    form.wait()
    drawn = {trace.name: list(trace.y) for trace in form.curves.figure.data}
    assert drawn["50 draws"] == form.rows[form.rows["draws"] == "50"]["distance"].tolist()


def test_stop_keeps_what_is_done_and_ends_the_rest(experiment, monkeypatch):
    form = ExperimentForm(experiment)
    third_row, stop_was_pressed = threading.Event(), threading.Event()

    def hold_at_the_third(count):
        if count == 3:
            third_row.set()
            stop_was_pressed.wait(30)

    monkeypatch.setattr(experiment, "AFTER_ROW", hold_at_the_third)
    form.start()
    assert third_row.wait(30)
    form.stop_button.click()
    stop_was_pressed.set()
    form.wait()
    assert form.state == "stopped"
    assert form.rows["distance"].tolist() == experiment.run(experiment.Config.of("quick")).rows["distance"].tolist()[:3]
    assert form.result is None
    assert "form.rows" in form.status.value


def test_a_value_that_cannot_work_is_told_in_the_configs_words_and_starts_nothing(experiment):
    form = ExperimentForm(experiment)
    form.fields.controls["scale"].value = -1.0
    form.start()
    assert "scale=-1.0 must be above 0." in form.status.value
    assert form.rows.empty
    assert not form.run_button.disabled


def test_a_text_that_is_no_value_names_its_field(experiment):
    form = ExperimentForm(experiment)
    form.fields.controls["limit"].value = "[5"
    form.start()
    assert "limit: expected" in form.status.value


def test_an_experiment_that_fails_says_why_and_can_be_run_again(experiment):
    form = ExperimentForm(experiment)
    form.fields.controls["draws"].value = "2"  # one regime cannot be compared
    form.start()
    form.wait()
    assert form.state == "failed"
    assert "ValueError" in form.status.value
    assert len(form.rows) == 5  # what was observed before it failed
    form.fields.controls["draws"].value = "2, 50"
    form.start()
    form.wait()
    assert form.state == "done"


def test_a_module_without_config_is_refused():
    with pytest.raises(TypeError, match=r"Config and run"):
        ExperimentForm(textwrap)
