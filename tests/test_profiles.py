"""Profiles change sizes, never silently anything else."""

from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest

from workbench.profiles import Profiled, describe


@dataclass(frozen=True)
class Config(Profiled):
    """A config like an experiment's."""

    steps: int = 100  # optimiser steps (paper: 10,000, sec. 4)
    seeds: tuple[int, ...] = (
        0,
        1,
    )  # one run each
    profile: str = "quick"  # which sizes

    profiles: ClassVar = {"full": {"steps": 1000, "seeds": (0, 1, 2, 3, 4)}}

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1.")


def test_quick_is_the_defaults_and_full_what_it_changes():
    assert Config.of() == Config()
    assert Config.of("full").steps == 1000


def test_none_means_from_the_profile_and_a_list_becomes_a_tuple():
    config = Config.of("full", steps=None, seeds=[7])
    assert (config.steps, config.seeds, config.profile) == (1000, (7,), "full")
    assert hash(config) == hash(Config.of("full", seeds=(7,)))


def test_what_does_not_exist_or_cannot_work_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="Did you mean 'full'"):
        Config.of("ful")
    with pytest.raises(ValueError, match="Did you mean 'steps'"):
        Config.of(step=3)
    with pytest.raises(ValueError, match="steps=0"):
        Config.of(steps=0)
    with pytest.raises(FrozenInstanceError):
        Config().steps = 3


def test_describe_reads_each_field_with_its_trailing_comment():
    steps, seeds, profile = describe(Config)
    assert (steps.name, steps.type, steps.default) == ("steps", "int", 100)
    assert steps.comment == "optimiser steps (paper: 10,000, sec. 4)"
    assert seeds.comment == "one run each"
    assert profile.name == "profile"
