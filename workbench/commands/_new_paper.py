"""The four files of a new paper: a small experiment on real images that runs as it is, to be replaced step by step."""

from __future__ import annotations

import json

EXPERIMENT = '''"""More labelled images give higher accuracy. (Replace: the claim of the paper as one sentence.)

Paper: Authors, year, "Title", table 1. (Replace.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from workbench.metrics.uncertainty import paired_difference
from workbench.profiles import Profiled
from workbench.published import load
from workbench.result import Claim, Result

STEM = "{stem}"
HELD_OUT = 500  # images that no classifier sees in training


@dataclass(frozen=True)
class Config(Profiled):
    """Defaults are the ``quick`` profile: a few seconds on two processor cores."""

    few: int = 50  # labelled images of the poor regime (paper: ..., sec. ...)
    many: int = 500  # labelled images of the rich regime (paper: ..., sec. ...)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # one split of the images each, the spread is the error bar
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar = {{
        "smoke": {{"seeds": (0, 1)}},
        "full": {{"seeds": tuple(range(20))}},
    }}

    def __post_init__(self) -> None:
        if not 10 <= self.few < self.many <= 1000:
            raise ValueError(f"few={{self.few}} and many={{self.many}} must satisfy 10 <= few < many <= 1000.")
        if not self.seeds:
            raise ValueError("seeds is empty: give at least one.")


def train_classifiers(config: Config) -> pd.DataFrame:
    """Accuracy on held-out digits, one row per (regime, seed)."""
    regimes = {{"few": config.few, "many": config.many}}
    return pd.DataFrame(
        {{"regime": regime, "seed": seed, "accuracy": _accuracy(images, seed)}}
        for regime, images in regimes.items()
        for seed in config.seeds
    )


def _accuracy(images: int, seed: int) -> float:
    pixels, labels = load_digits(return_X_y=True)
    training, held_out, training_labels, held_out_labels = train_test_split(
        pixels / 16, labels, train_size=images, test_size=HELD_OUT, stratify=labels, random_state=seed
    )
    classifier = LogisticRegression(max_iter=500).fit(training, training_labels)
    return float(classifier.score(held_out, held_out_labels))


def conclude(config: Config, accuracy: pd.DataFrame) -> Result:
    """What the paper says, judged by these rows."""
    gain = paired_difference(accuracy, "many", "few", value="accuracy", by="regime")
    claims = [Claim("More labelled images give higher accuracy", gain, above=0.0, source="table 1", gating=True)]
    published = load(STEM, "table_1")  # no row until somebody has read one
    return Result(STEM, config, accuracy, claims=claims, published=published if len(published) else None)


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    return conclude(config, train_classifiers(config))
'''

TEST = '''"""Beliefs about ``workbench.experiments.{stem}``. (Add: limits, identities and hand sums of its steps.)"""

import pytest

from workbench.experiments import {stem} as experiment
from workbench.runs.notebooks import find_notebook
from workbench.runs.parameters import parameters


def test_the_steps_give_the_rows_that_run_gives():
    config = experiment.Config.of("smoke")
    by_hand = experiment.conclude(config, experiment.train_classifiers(config))
    assert experiment.run(config).rows.equals(by_hand.rows)


def test_every_regime_is_seen_once_with_every_seed():
    config = experiment.Config.of("smoke")
    rows = experiment.train_classifiers(config)
    assert rows.groupby("regime")["seed"].apply(list).to_dict() == {{"few": [0, 1], "many": [0, 1]}}


def test_regimes_that_cannot_differ_are_refused_before_any_training():
    with pytest.raises(ValueError, match="few=50 and many=50"):
        experiment.Config.of("quick", few=50, many=50)


def test_the_notebook_can_be_asked_for_what_the_config_knows():
    asked = {{parameter.name for parameter in parameters(find_notebook("{stem}"))}}
    assert asked == {{"profile", "few", "many", "seeds"}}
'''

PUBLISHED = "regime,measure,published,source,status\n"

CELLS = (
    (
        "markdown",
        "# {title}\n\nMore labelled images give higher accuracy: replace this by what the paper claims, in two "
        "sentences, and say what the quick run shows and how long it takes.",
    ),
    (
        "parameters",
        'profile: str = "quick"  # smoke (tests), quick (CI), full (half an hour) or paper (GPU)\n'
        "few: int = None  # labelled images of the poor regime\n"
        "many: int = None  # labelled images of the rich regime\n"
        "seeds: list = None  # one split of the images each, the spread is the error bar",
    ),
    (
        "code",
        "from workbench.experiments import {stem} as experiment\nfrom workbench.plots import tables, verdicts\n\n"
        "config = experiment.Config.of(profile, few=few, many=many, seeds=seeds)\nconfig",
    ),
    ("markdown", "## What more labels bring\n\nThe same classifier is trained on few and on many images of digits."),
    ("code", "accuracy = experiment.train_classifiers(config)\naccuracy"),
    ("markdown", "## What the run shows\n\nMeans over seeds with their standard errors, then the claims."),
    ("code", "result = experiment.conclude(config, accuracy)\nresult.save();"),
    ("code", "tables.beside_published(result.table())"),
    ("code", "verdicts(result.judgements)"),
    ("code", "tables.claims(result.check())"),
    ("markdown", "## Play\n\nThe whole experiment as a form: change a value and press Run."),
    (
        "code",
        "from workbench.widgets.experiment_form import ExperimentForm\n\nExperimentForm(experiment)",
    ),
)


def notebook_text(stem: str, title: str) -> str:
    """The notebook as JSON, without outputs."""
    cells = []
    for place, (kind, source) in enumerate(CELLS):
        cell = {
            "cell_type": "markdown" if kind == "markdown" else "code",
            "id": f"cell-{place:02d}",
            "metadata": {"tags": ["parameters"]} if kind == "parameters" else {},
            "source": source.format(stem=stem, title=title).splitlines(keepends=True),
        }
        if kind != "markdown":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
