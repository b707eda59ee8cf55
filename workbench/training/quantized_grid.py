"""Small models trained here in float32, each quantised in every way and judged on the same held-out text.

One task is one model: it is loaded once, quantised variant after variant, and scored on the same windows and
questions, so that all variants of a seed are paired.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.errors import check_positive
from workbench.models.small_lm import ModelSize, named_size
from workbench.training.ladder import TrainedModel, train_ladder
from workbench.training.parallel import run_tasks
from workbench.training.quantized_variants import Variant
from workbench.training.quantized_weights import Quantised, as_it_is, quantise
from workbench.training.text_task import TextTask

if TYPE_CHECKING:
    from workbench.datasets.multiple_choice import Question

CALIBRATION_WINDOWS = 32  # of training text
NEURONS = 32  # feed-forward layers have a multiple of it, so that groups of 32 divide every layer
CONTEXT_WORDS, CHOICE_LENGTH = 6, 20  # of a question for models that see 64 characters
WRONG_SPELLINGS = 3
KNOWLEDGE, EFFICIENCY = "knowledge", "efficiency"


@dataclass(frozen=True)
class QuantizedGrid:
    """``rows``: one number a row (variant, model, seed, measure, value). ``answers``: one question or window a row."""

    rows: pd.DataFrame
    answers: pd.DataFrame


@dataclass(frozen=True)
class SeededModel:
    """A trained model and the seed of its first weights and its batches."""

    trained: TrainedModel
    seed: int


@dataclass(frozen=True)
class _Task:
    model: SeededModel
    variants: tuple[Variant, ...]
    windows: int
    folder: Path  # of the prepared text, found before any process starts
    sets: Mapping[str, list[Question]]


def quantizable_size(name: str) -> ModelSize:
    """The size called ``64x2`` with its neurons rounded up to a multiple of 32: groups then divide every layer."""
    size = named_size(name)
    return ModelSize(size.width, size.layers, size.heads, -(-size.feed_forward // NEURONS) * NEURONS)


def train_seeds(
    names: Sequence[str], task: TextTask, seeds: Sequence[int], *, steps: int, batch_size: int = 8
) -> list[SeededModel]:
    """A model per name and seed, trained here in float32 (or found trained), sizes in their order.

    Raises:
        ValueError: as :func:`train_ladder`.
    """
    sizes = [quantizable_size(name) for name in names]
    found = [
        SeededModel(trained, seed)
        for seed in seeds
        for trained in train_ladder(
            sizes, task, steps=steps, batch_size=batch_size, seed=seed, label=f"models of seed {seed}"
        )
    ]
    return sorted(found, key=lambda model: (model.trained.parameters, model.seed))


def quantized_grid(
    models: Sequence[SeededModel],
    variants: Sequence[Variant],
    *,
    windows: int = 128,
    questions: int = 100,
    cores: int | None = None,
    label: str = "quantised models",
) -> QuantizedGrid:
    """Every model in every variant, and as it is.

    Args:
        windows: of held-out text for perplexity.
        questions: of each kind, made of held-out plays.

    Returns:
        Rows with ``dimension`` (knowledge, efficiency) and ``measure``: ``nats`` (per byte), ``perplexity`` (per
        token), ``accuracy`` (next token), ``cloze`` and ``spelling`` (share right), ``bytes`` (of all weights);
        answers with ``benchmark``, ``question``, ``value`` (1 right, 0 wrong) and ``chance``.
    """
    check_positive(windows=windows, questions=questions)
    # All models learn one text; making questions of it takes longer than answering them.
    sets = question_sets(models[0].trained.task, count=questions)
    tasks = [
        _Task(model, tuple(variants), windows, model.trained.task.prepare().folder, sets)
        for model in sorted(models, key=lambda model: -model.trained.parameters)
    ]
    done = run_tasks(_measure, tasks, cores=cores, label=label)
    rows, answers = (pd.concat(tables, ignore_index=True) for tables in zip(*done, strict=True))
    order = {model.trained.name: place for place, model in enumerate(models)}
    tables = [
        table.sort_values("seed", kind="stable").sort_values("model", key=lambda names: names.map(order), kind="stable")
        for table in (rows, answers)
    ]
    return QuantizedGrid(*(table.reset_index(drop=True) for table in tables))


def _measure(task: _Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    from workbench.training.batches import fixed_windows, random_windows
    from workbench.training.text_task import PreparedText

    trained = task.model.trained
    text = PreparedText(task.folder, trained.task.context)
    held_out = fixed_windows(text.held_out, context=text.context, count=task.windows)
    batches = random_windows(text.training, context=text.context, batch_size=CALIBRATION_WINDOWS, seed=0)
    calibration = next(batches)[:, :-1]
    model = trained.load()
    shell = copy.deepcopy(model)
    rows, answers = [], []

    def note(found: Quantised) -> None:
        who = {"model": trained.name, "parameters": trained.parameters, "seed": task.model.seed, **found.about}
        measures, given = _score(found.model, text, held_out, task.sets)
        measures[EFFICIENCY, "bytes"] = float(found.about["bytes"])
        rows.extend({**who, "dimension": dimension, "measure": name, "value": value}
                    for (dimension, name), value in measures.items())  # fmt: skip
        answers.append(given.assign(**who))

    note(as_it_is(model))
    for variant in task.variants:
        note(quantise(model, shell, variant, calibration))
    return pd.DataFrame(rows), pd.concat(answers, ignore_index=True)


def question_sets(task: TextTask, *, count: int) -> dict[str, list[Question]]:
    """Questions of held-out documents that fit into the context of a model trained on ``task``."""
    from workbench.datasets.corpus import load_corpus, split_corpus
    from workbench.datasets.multiple_choice import cloze_questions

    _, held_out = split_corpus(load_corpus(task.corpus), held_out=task.held_out, seed=task.split_seed)
    cloze = cloze_questions(held_out, count=count, context_words=CONTEXT_WORDS, length=CHOICE_LENGTH)
    return {"cloze": cloze, "spelling": spelling_questions(cloze)}


def spelling_questions(questions: Sequence[Question], *, seed: int = 0) -> list[Question]:
    """The same passages with what follows them spelt rightly, and with two letters in the midst of a word swapped.

    What a model of some thousand parameters that reads characters can know: which letters follow which. Each wrong
    choice has its own swap; questions without three such places are left out.
    """
    rng = random.Random(seed)
    found = []
    for question in questions:
        right = question.choices[question.answer]
        # Neither the first nor the last letter of a word, and never two equal ones.
        places = [match.start() for match in re.finditer(r"(?<=\w)(?=(\w)(?!\1)\w\w)", right)]
        if len(places) >= WRONG_SPELLINGS:
            wrong = [f"{right[:place]}{right[place + 1]}{right[place]}{right[place + 2:]}"
                     for place in rng.sample(places, WRONG_SPELLINGS)]  # fmt: skip
            choices = [right, *wrong]
            rng.shuffle(choices)
            answer = choices.index(right)
            found.append(dataclasses.replace(question, choices=tuple(choices), answer=answer, kind="spelling"))
    return found


def answers_of(found: pd.DataFrame, value: str, benchmark: str, *, chance: float | None = None) -> pd.DataFrame:
    """One question a row: ``benchmark``, ``question``, ``value``, ``chance``."""
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "question": range(len(found)),
            "value": found[value].to_numpy(dtype=float),
            "chance": found["chance"].to_numpy(dtype=float) if "chance" in found else chance,
        }
    )


@torch.no_grad()
def _score(
    model: nn.Module, text: Any, windows: Tensor, sets: Mapping[str, list[Question]]
) -> tuple[dict[tuple[str, str], float], pd.DataFrame]:
    from workbench.metrics.choice_scores import score_choices
    from workbench.metrics.language import held_out_scores

    scores = held_out_scores(model, windows, bytes_per_token=text.bytes_per_token)
    measures = {
        (KNOWLEDGE, "nats"): scores["nats"],
        (KNOWLEDGE, "perplexity"): float(torch.tensor(scores["nats_per_token"]).exp()),
        (KNOWLEDGE, "accuracy"): scores["accuracy"],
    }
    answers = []
    for name, questions in sets.items():
        # A context of some characters is cheaper read with each choice than kept in a cache.
        found = score_choices(model, text.tokenizer, questions, batch_size=64, max_length=text.context,
                              share_context=False)  # fmt: skip
        measures[KNOWLEDGE, name] = float(found["correct"].mean())
        answers.append(answers_of(found, "correct", name))
    return measures, pd.concat(answers, ignore_index=True)
