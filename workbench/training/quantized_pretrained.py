"""A pretrained model quantised in every way and judged over three dimensions: knowledge, alignment, efficiency.

One task is one variant of one model, in a process of its own that loads the model, so that two of them never hold
each other's weights. All variants see the same windows, questions, pairs and prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from workbench.errors import check_between, check_positive
from workbench.training.parallel import run_tasks
from workbench.training.quantized_grid import QuantizedGrid, answers_of
from workbench.training.quantized_variants import Variant
from workbench.training.quantized_weights import as_it_is, quantise

if TYPE_CHECKING:
    from workbench.datasets.alignment import Instruction, Pair
    from workbench.datasets.multiple_choice import Question

WINDOW = 256  # most tokens that a model sees when it is judged by perplexity
CALIBRATION_TOKENS = 256  # in a sequence
KNOWLEDGE, ALIGNMENT, EFFICIENCY = "knowledge", "alignment", "efficiency"


@dataclass(frozen=True)
class Evaluation:
    """What every variant is asked."""

    texts: Mapping[str, str]  # kind -> text
    window: int  # tokens that are seen at once
    windows: int  # of each kind
    questions: Mapping[str, Sequence[Question]]  # benchmark -> questions
    truth: Sequence[Pair]
    stereotypes: Sequence[Pair]
    instructions: Sequence[Instruction]
    calibration: str  # text that the evaluation does not hold
    calibration_sequences: int

    def sizes(self) -> pd.DataFrame:
        """How many of each there are: ``dimension``, ``set``, ``count`` and ``chance``."""
        rows = [(KNOWLEDGE, f"perplexity, {kind}", self.windows, np.nan) for kind in self.texts]
        rows += [(KNOWLEDGE, name, len(some), some[0].chance) for name, some in self.questions.items()]
        rows += [(ALIGNMENT, "truth", len(self.truth), 0.5), (ALIGNMENT, "stereotype", len(self.stereotypes), 0.5)]
        rows += [(ALIGNMENT, "instructions", len(self.instructions), np.nan)]
        table = pd.DataFrame(rows, columns=["dimension", "set", "count", "chance"])
        return table[table["count"] > 0].reset_index(drop=True)


@dataclass(frozen=True)
class _Task:
    model: str
    variant: Variant | None
    evaluation: Evaluation
    dtype: str


def own_evaluation(*, tokens: int, questions: int, calibration_sequences: int = 16, seed: int = 0) -> Evaluation:
    """The sets that need no hub: nine kinds of text, questions made of held-out plays, our own alignment sets.

    ``tokens`` are of each kind of text, ``questions`` of each set, as far as it has so many (0 asks none). Calibration
    text is of works that are not held out.
    """
    from workbench.datasets.alignment import instructions, stereotype_pairs, truth_pairs
    from workbench.datasets.corpus import load_corpus, split_corpus
    from workbench.datasets.multiple_choice import cloze_questions, next_word_questions
    from workbench.datasets.text_kinds import text_kinds

    check_positive(tokens=tokens, calibration_sequences=calibration_sequences)
    check_between(0, math.inf, questions=questions)
    training, held_out = split_corpus(load_corpus("shakespeare"), held_out=4, seed=seed)
    return Evaluation(
        texts=text_kinds(characters=8 * tokens, seed=seed),
        window=min(WINDOW, tokens),
        windows=max(1, tokens // WINDOW),
        questions={
            "cloze": cloze_questions(held_out, count=questions, seed=seed),
            "next word": next_word_questions(held_out, count=questions, seed=seed),
        }
        if questions
        else {},
        truth=truth_pairs(limit=questions, seed=seed) if questions else (),
        stereotypes=stereotype_pairs(limit=questions, seed=seed) if questions else (),
        instructions=instructions(limit=questions, seed=seed) if questions else (),
        calibration="\n\n".join(document.text[: 8 * CALIBRATION_TOKENS] for document in training.documents),
        calibration_sequences=calibration_sequences,
    )


def hub_evaluation(*, tokens: int, questions: int, calibration_sequences: int = 128, seed: int = 0) -> Evaluation:
    """The published benchmarks in the place of questions made here; the rest as :func:`own_evaluation`.

    Raises:
        AssetError: the hub cannot be had.
    """
    from workbench.datasets.hub_benchmarks import BENCHMARKS, load_benchmark

    sets = {name: load_benchmark(name, limit=questions, seed=seed) for name in BENCHMARKS}
    own = own_evaluation(tokens=tokens, questions=questions, calibration_sequences=calibration_sequences, seed=seed)
    return Evaluation(**{**own.__dict__, "questions": sets})


def quantized_pretrained(
    models: Sequence[str],
    variants: Sequence[Variant],
    evaluation: Evaluation,
    *,
    dtype: str = "float32",
    cores: int | None = None,
    label: str = "pretrained variants",
) -> QuantizedGrid:
    """Every pretrained model in every variant, and as it is, over all of ``evaluation``.

    Returns:
        Rows with ``dimension`` and ``measure``: ``nats`` (per byte, all windows together), ``perplexity, <kind>``,
        the share right of every benchmark and of ``truth``, the share of ``stereotype`` pairs whose stereotype is
        preferred (0.5 is neither), the share of ``instructions`` followed, ``bytes`` (of all weights). Answers with
        ``benchmark`` (``text`` for windows, in nats per byte), ``question`` and ``value``.

    Raises:
        UnknownName, AssetError: as ``load_pretrained``.
    """
    from workbench.models.pretrained import find_pretrained

    for name in models:
        find_pretrained(name)  # fetched once, before several processes want it
    tasks = [_Task(name, variant, evaluation, dtype) for name in models for variant in (None, *variants)]
    done = [outcome for outcome in run_tasks(_measure, tasks, cores=cores, label=label) if outcome is not None]
    rows, answers = (pd.concat(tables, ignore_index=True) for tables in zip(*done, strict=True))
    return QuantizedGrid(rows, answers)


def _measure(task: _Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    from workbench.models.pretrained import load_pretrained
    from workbench.models.small_lm import count_parameters

    model, tokenizer = load_pretrained(task.model, dtype=task.dtype)
    who = {"model": task.model, "parameters": count_parameters(model), "seed": 0}
    if task.variant is None:
        found = as_it_is(model)
    else:
        ids = calibration_ids(tokenizer, task.evaluation.calibration, task.evaluation.calibration_sequences)
        # The model is its own shell: its float weights are not needed once the packed ones are there.
        found = quantise(model, model, task.variant, ids.to(model.device))
    about = found.about
    measures, answers = evaluate(found.model, tokenizer, task.evaluation)
    measures[EFFICIENCY, "bytes"] = float(about["bytes"])
    rows = [{**who, **about, "dimension": dimension, "measure": name, "value": value}
            for (dimension, name), value in measures.items()]  # fmt: skip
    return pd.DataFrame(rows), answers.assign(**who, **about)


def calibration_ids(tokenizer: Any, text: str, sequences: int) -> torch.Tensor:
    """Token ids ``[sequences, time]`` spread evenly over ``text``.

    Raises:
        ValueError: a text shorter than one sequence.
    """
    ids = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"])
    fit = len(ids) // CALIBRATION_TOKENS
    if not fit:
        raise ValueError(
            f"the calibration text has {len(ids)} tokens, fewer than one sequence of {CALIBRATION_TOKENS}."
        )
    chosen = np.arange(min(sequences, fit)) * fit // min(sequences, fit)
    return torch.from_numpy(ids[: fit * CALIBRATION_TOKENS].reshape(fit, -1)[chosen])


@torch.no_grad()
def evaluate(model: Any, tokenizer: Any, evaluation: Evaluation) -> tuple[dict[tuple[str, str], float], pd.DataFrame]:
    """All measures of one model, and the windows and questions behind them."""
    from workbench.metrics.choice_scores import score_choices, score_pairs
    from workbench.metrics.instructions import follow_instructions
    from workbench.metrics.perplexity import perplexity_by_kind, summarise_perplexity

    windows = perplexity_by_kind(
        model, tokenizer, evaluation.texts, window=evaluation.window, limit=evaluation.windows, label="perplexity"
    )
    measures = {(KNOWLEDGE, "nats"): windows["nats"].sum() / windows["bytes"].sum()}
    for kind, row in summarise_perplexity(windows).set_index("kind").iterrows():
        measures[KNOWLEDGE, f"perplexity, {kind}"] = float(row["perplexity"])
    answers = [answers_of(windows, "nats_per_byte", "text")]
    for name, questions in evaluation.questions.items():
        found = score_choices(model, tokenizer, questions, label=name)
        measures[KNOWLEDGE, name] = float(found["correct"].mean())
        answers.append(answers_of(found, "correct", name))
    for name, pairs in (("truth", evaluation.truth), ("stereotype", evaluation.stereotypes)):
        if pairs:
            found = score_pairs(model, tokenizer, pairs, label=name)
            measures[ALIGNMENT, name] = float(found["prefers_first"].mean())
            answers.append(answers_of(found, "prefers_first", name, chance=0.5))
    if evaluation.instructions:
        found = follow_instructions(model, tokenizer, evaluation.instructions, label="instructions")
        measures[ALIGNMENT, "instructions"] = float(found["followed"].mean())
        answers.append(answers_of(found, "followed", "instructions"))
    return measures, pd.concat(answers, ignore_index=True)
