"""Likelihood-scored multiple choice and pairs: which continuation a language model expects most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import nn

from workbench.datasets.alignment import Pair
from workbench.datasets.multiple_choice import Question
from workbench.errors import check_choice
from workbench.metrics.continuations import encode_continuations, log_likelihoods, most_tokens

NORMALISE = ("bytes", "tokens", "none")
TIE = 1e-9  # relative; sums of equal logits in another order differ by less


def score_choices(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    batch_size: int = 8,
    normalise: str = "bytes",
    max_length: int | None = None,
    share_context: bool = True,
    label: str = "",
) -> pd.DataFrame:
    """What ``model`` chooses: the choice of the highest log-likelihood given the context, by its length.

    Args:
        model: a causal language model of transformers, quantised or not.
        tokenizer: its tokenizer; no special tokens are added, and an empty context is read as a line break.
        questions: any mixture of kinds and numbers of choices.
        batch_size: questions that are run together.
        normalise: divide each log-likelihood by the choice's UTF-8 ``bytes``, by its ``tokens``, or by nothing.
        max_length: most tokens fed at once, a longer context loses its beginning; None = what the model says.
        share_context: read each context once for all of its choices (see :func:`.log_likelihoods`).

    Returns:
        One row a question: ``question`` (its place), ``kind``, ``group``, ``chance``, ``answer``, ``chosen``,
        ``correct`` (1 or 0; 1/k where k choices tie for the top and the right one is among them), ``margin``
        (the right one's score minus the best wrong one's: nats per byte or token, or nats),
        ``log_likelihoods`` (a tuple in nats), ``tokens`` (fed to the model where contexts are shared).

    Raises:
        ValueError: no questions, or a choice that is longer than the model may be fed.
        UnknownName: another ``normalise``.
    """
    check_choice("normalise", normalise, NORMALISE)
    if not questions:
        raise ValueError("questions is empty: there is nothing to score.")
    encoded = encode_continuations(
        tokenizer,
        [question.context for question in questions],
        [question.choices for question in questions],
        max_length=most_tokens(model) if max_length is None else max_length,
    )
    found = log_likelihoods(model, encoded, batch_size=batch_size, share_context=share_context, label=label)
    rows = []
    for place, (question, parts, nats) in enumerate(zip(questions, encoded, found, strict=True)):
        lengths = {
            "bytes": [len(choice.encode()) for choice in question.choices],
            "tokens": list(map(len, parts.rest)),
            "none": [1] * len(nats),
        }[normalise]
        scores = [value / length for value, length in zip(nats, lengths, strict=True)]
        rows.append(
            {
                "question": place,
                "kind": question.kind,
                "group": question.group,
                "chance": question.chance,
                "answer": question.answer,
                **_judged(scores, question.answer),
                "log_likelihoods": tuple(nats),
                "tokens": parts.tokens,
            }
        )
    return pd.DataFrame(rows)


def score_pairs(
    model: nn.Module, tokenizer: Any, pairs: Sequence[Pair], *, batch_size: int = 16, label: str = ""
) -> pd.DataFrame:
    """Which sentence of each pair ``model`` thinks likelier, read after a line break.

    The two agree up to the place where they differ, so that the difference of their log-likelihoods is that of
    what follows from there on; only this part is scored.

    Returns:
        One row a pair: ``pair`` (its place), ``kind``, ``group``, ``prefers_first`` (1 or 0; 0.5 where they tie),
        ``gap`` (log-likelihood of the first minus the second's, nats), ``gap_per_byte`` (divided by the mean length
        of the two sentences in UTF-8 bytes), ``first_nats`` and ``second_nats`` (log-likelihood from the first
        difference on), ``tokens`` (fed to the model).

    Raises:
        ValueError: no pairs, or a sentence that is longer than the model may be fed.
    """
    if not pairs:
        raise ValueError("pairs is empty: there is nothing to score.")
    encoded = encode_continuations(
        tokenizer,
        [""] * len(pairs),
        [(pair.first, pair.second) for pair in pairs],
        max_length=most_tokens(model),
        beyond_context=True,
    )
    found = log_likelihoods(model, encoded, batch_size=batch_size, label=label)
    rows = []
    for place, (pair, parts, (first, second)) in enumerate(zip(pairs, encoded, found, strict=True)):
        tie = math.isclose(first, second, rel_tol=TIE)
        length = (len(pair.first.encode()) + len(pair.second.encode())) / 2
        rows.append(
            {
                "pair": place,
                "kind": pair.kind,
                "group": pair.group,
                "prefers_first": 0.5 if tie else float(first > second),
                "gap": first - second,
                "gap_per_byte": (first - second) / length,
                "first_nats": first,
                "second_nats": second,
                "tokens": parts.tokens,
            }
        )
    return pd.DataFrame(rows)


def _judged(scores: list[float], answer: int) -> dict[str, float | int]:
    best = max(scores)
    top = [index for index, score in enumerate(scores) if math.isclose(score, best, rel_tol=TIE)]
    wrong = max(score for index, score in enumerate(scores) if index != answer)
    return {
        "chosen": top[0],
        "correct": 1 / len(top) if answer in top else 0.0,
        "margin": scores[answer] - wrong,
    }
