"""MMLU, C-Eval, TruthfulQA and BBQ from the Hugging Face hub, as multiple-choice questions."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from workbench import runtime
from workbench.datasets.multiple_choice import Question
from workbench.errors import AssetError, check_choice, check_positive

LETTERS = "ABCD"
Row = Mapping[str, Any]


def mmlu_question(row: Row) -> Question:
    """A row of ``cais/mmlu``: ``question``, ``subject``, ``choices`` (4 texts), ``answer`` (0 to 3)."""
    subject = row["subject"].replace("_", " ")
    context = f"Question about {subject}: {row['question'].strip()}\n{_lettered(row['choices'])}\nAnswer:"
    return Question(context, tuple(f" {letter}" for letter in LETTERS), int(row["answer"]), "mmlu", row["subject"])


def ceval_question(row: Row) -> Question:
    """A row of ``ceval/ceval-exam``: ``question``, ``A``, ``B``, ``C``, ``D``, ``answer`` (a letter).

    The subject is the name of the configuration, which the reader puts into ``subject``.
    """
    answer = row["answer"].strip().upper()
    check_choice("answer", answer, LETTERS)  # the test part comes without answers
    context = f"{row['question'].strip()}\n{_lettered([row[letter] for letter in LETTERS])}\n答案："
    return Question(context, tuple(LETTERS), LETTERS.index(answer), "ceval", row["subject"])


def truthfulqa_question(row: Row) -> Question:
    """A row of ``truthfulqa/truthful_qa`` (MC1): ``question``, ``mc1_targets`` with ``choices`` and ``labels``.

    Exactly one choice has label 1; the number of choices, and with it chance, differs from row to row.
    """
    targets = row["mc1_targets"]
    labels = dict(zip(targets["choices"], targets["labels"], strict=True))  # a choice that stands there twice is one
    choices = list(labels)
    answer = next(place for place, choice in enumerate(choices) if labels[choice] == 1)
    spoken = tuple(f" {choice}" for choice in choices)
    return Question(f"Q: {row['question'].strip()}\nA:", spoken, answer, "truthfulqa", "mc1")


def bbq_question(row: Row) -> Question:
    """A row of ``Elfsong/BBQ``: ``context``, ``question``, ``ans0``, ``ans1``, ``ans2``, ``answer_label``,
    ``context_condition`` (``ambig | disambig``).

    The group is the category, which the reader puts into ``subject``, and the condition: where the context does not
    tell, the right answer is that it does not.
    """
    choices = tuple(f" {row[name].strip()}" for name in ("ans0", "ans1", "ans2"))
    context = f"{row['context'].strip()}\nQ: {row['question'].strip()}\nA:"
    group = f"{row['subject']}, {row['context_condition']}"
    return Question(context, choices, int(row["answer_label"]), "bbq", group)


@dataclass(frozen=True)
class _Source:
    """Where a benchmark lies on the hub, and how a row of it is read."""

    repository: str
    configuration: str | None  # None = all that there are, each a subject
    split: str | None  # None = all that there are, each a subject
    convert: Callable[[Row], Question]


_SOURCES = {
    "mmlu": _Source("cais/mmlu", "all", "test", mmlu_question),
    "ceval": _Source("ceval/ceval-exam", None, "val", ceval_question),  # the answers of its test part are secret
    "truthfulqa": _Source("truthfulqa/truthful_qa", "multiple_choice", "validation", truthfulqa_question),
    "bbq": _Source("Elfsong/BBQ", "default", None, bbq_question),
}
BENCHMARKS = tuple(_SOURCES)


def load_benchmark(name: str, *, limit: int | None = None, seed: int = 0) -> list[Question]:
    """The questions of ``mmlu``, ``ceval``, ``truthfulqa`` (MC1) or ``bbq``, without examples in front.

    MMLU and C-Eval are asked by letter, the other two by the text of the answer. Rows that cannot be asked (two equal
    answers) are left out. What was downloaded once is read from the cache of the library ``datasets`` afterwards.

    Args:
        name: the benchmark.
        limit: so many questions, drawn by ``seed``; None = all.

    Raises:
        UnknownName: another name.
        AssetError: ``datasets`` is not installed, or the hub does not answer and its cache holds no copy.
    """
    check_choice("benchmark", name, BENCHMARKS)
    if limit is not None:
        check_positive(limit=limit)
    if importlib.util.find_spec("datasets") is None:
        raise AssetError(f"benchmark={name!r} needs the package datasets: {runtime.PAPER_EXTRA}.")
    if not runtime.hub_is_switched_off():
        _ask_hub(name)
    questions = list(questions_of(_rows(name), name))
    if limit is None or limit >= len(questions):
        return questions
    return random.Random(seed).sample(questions, limit)


def questions_of(rows: Iterator[Row], name: str) -> Iterator[Question]:
    """The question in each of ``rows`` of benchmark ``name`` that has all its choices different and not empty.

    Raises:
        AssetError: a row without the columns that this benchmark is known to have.
    """
    convert = _SOURCES[name].convert
    for row in rows:
        try:
            question = convert(row)
        except KeyError as error:
            raise AssetError(
                f"benchmark={name!r} has no column {error}, only {', '.join(row)}: its form on the hub changed."
            ) from error
        except ValueError:  # two equal choices, or none that is right
            continue
        yield question


def _lettered(choices: list[str]) -> str:
    return "\n".join(f"{letter}. {str(choice).strip()}" for letter, choice in zip(LETTERS, choices, strict=True))


def _ask_hub(name: str) -> None:
    from huggingface_hub import HfApi

    try:
        # Asked first and once: the download itself would try for minutes before it says that nobody answers.
        HfApi().dataset_info(_SOURCES[name].repository, timeout=runtime.HUB_SECONDS)
    except Exception as error:
        # Whatever it is: the hub's client changes its network library, and with it these errors, between versions.
        _explain(name, error)


def _rows(name: str) -> Iterator[Row]:
    from datasets import get_dataset_config_names, load_dataset

    source = _SOURCES[name]
    try:
        several = source.configuration is None
        configurations = get_dataset_config_names(source.repository) if several else [source.configuration]
        for configuration in sorted(configurations):
            parts = load_dataset(source.repository, configuration)
            for split in parts if source.split is None else [source.split]:
                subject = configuration if several else split
                for row in parts[split]:
                    yield {"subject": subject, **row}
    except (AssetError, GeneratorExit):
        raise
    except Exception as error:
        # As above; besides, a copy in the cache may lack a part.
        _explain(name, error)


def _explain(name: str, error: Exception) -> NoReturn:
    raise AssetError(
        f"benchmark={name!r} ({_SOURCES[name].repository}) cannot be had from the Hugging Face hub "
        f"({runtime.first_line(error)}): check the network; profiles quick and full need no benchmark."
    ) from error
