"""Small sets of our own that ask whether a model tells the truth, leans on stereotypes, does as it is told.

All were written for this project. They are small: a share over 100 pairs has a standard error of up to 0.05, over 40
prompts of up to 0.08. They show a fall from one model to another (paired), not where a model stands in the world.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar

from workbench.errors import check_positive

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ in one word or phrase, at one place."""

    first: str  # truth: the true one; stereotype: the one that follows the stereotype
    second: str  # the false one; the one that goes against it
    kind: str  # truth | stereotype
    group: str  # geography | arithmetic | biology | misconception; occupation | household | age


@dataclass(frozen=True)
class Instruction:
    """A prompt whose answer is judged by a rule of :mod:`workbench.metrics.instruction_rules`."""

    prompt: str
    rule: str  # name of the rule
    argument: str  # what the rule is about, e.g. the word to end with; "" where it needs nothing
    group: str  # letters | length | format | content
    plain: str = ""  # the same request without the rule
    complying: str = ""  # an answer that follows the rule
    violating: str = ""  # one of like content that does not


def truth_pairs(*, limit: int | None = None, seed: int = 0) -> list[Pair]:
    """100 pairs of a true and a false statement: 26 geography, 20 arithmetic, 24 biology, 30 misconceptions.

    In the first three groups each word that makes one statement true makes its neighbour false ("The capital of
    France is Paris / Rome", "The capital of Italy is Rome / Paris"): who prefers a word whatever stands before it
    is right in half of them. Misconceptions cannot be turned round; there the truth is more often a denial, so look
    at them apart. The share of pairs whose first sentence a model thinks likelier is 0.5 by chance.

    Args:
        limit: so many pairs, drawn by ``seed`` in the groups' shares, neighbours together; None = all.

    Raises:
        ValueError: a ``limit`` below 1.
    """
    return _pairs("truth", limit, seed)


def stereotype_pairs(*, limit: int | None = None, seed: int = 0) -> list[Pair]:
    """80 pairs of a sentence that follows a stereotype and the same against it: 40 occupation, 16 household, 24 age.

    The words (she / he, mother / father, older / younger) follow the stereotype equally often in every group, and
    occupations share their sentences: who prefers a word whatever stands around it comes to 0.5. So does a model
    without the stereotype; more is a leaning to it, less one against it. They concern occupations with mostly women
    or mostly men, chores and age only, and say nothing about other prejudice.

    Args:
        limit: so many pairs, drawn by ``seed`` in the groups' shares, neighbours together; None = all.

    Raises:
        ValueError: a ``limit`` below 1.
    """
    return _pairs("stereotype", limit, seed)


def instructions(*, limit: int | None = None, seed: int = 0) -> list[Instruction]:
    """40 prompts whose answers a rule can judge: 10 letters, 10 length, 14 format, 6 content.

    The rules look at the form alone, not at whether an answer is right. Chance has no fixed value: text that means
    nothing meets some of them ("no comma") and never others ("a JSON object with these keys"). Each prompt comes
    with the same request without the rule, an answer that follows the rule and one that does not: even a model too
    small to write the former may find it less surprising when it was asked for.

    Args:
        limit: so many prompts, drawn by ``seed`` in the groups' shares; None = all.

    Raises:
        ValueError: a ``limit`` below 1.
    """
    return _drawn([Instruction(**row) for row in _table("instructions")], limit, seed, together=1)


def _pairs(kind: str, limit: int | None, seed: int) -> list[Pair]:
    rows = [
        Pair(row["template"].format(row["first"]), row["template"].format(row["second"]), kind, row["group"])
        for row in _table(kind)
    ]
    return _drawn(rows, limit, seed, together=2)


def _table(name: str) -> list[dict[str, str]]:
    text = (files("workbench.datasets") / "alignment_sets" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def _drawn(rows: Sequence[Item], limit: int | None, seed: int, *, together: int) -> list[Item]:
    """``limit`` rows, evenly from the groups that follow each other, ``together`` neighbours at a time, in order."""
    if limit is None:
        return list(rows)
    check_positive(limit=limit)
    blocks = [rows[start : start + together] for start in range(0, len(rows), together)]
    count = min(len(blocks), -(-limit // together))
    # Evenly spaced from a drawn beginning: each group gets its share whatever the seed.
    shift = random.Random(seed).random()
    chosen = sorted({int((place + shift) * len(blocks) / count) % len(blocks) for place in range(count)})
    return [row for place in chosen for row in blocks[place]][:limit]
