"""Runs of the bench for teachers: which student learns what from whom, known before anything is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.errors import UnknownName, check_choice, check_positive
from workbench.models.pretrained import SHORT_NAMES, is_pretrained_name
from workbench.models.small_lm import is_size_name, named_size
from workbench.training.checkpoints import content_hash
from workbench.training.objective import NO_TEACHER, Objective, named_objectives
from workbench.training.text_task import TextTask

NAMED = (
    "cross_entropy", "forward_kl", "reverse_kl", "generalized_jsd", "total_variation", "skew_kl", "taid",
    "taid_linear", "minima",
)  # fmt: skip
ENCODERS = ("minilm",)  # pretrained models that predict no next token
ARGUMENTS = ["student_logits", "teacher_logits", "mask"]


@dataclass(frozen=True)
class StudentRun:
    """One student: everything that decides its numbers, but for the code and the files behind the names.

    Raises:
        ValueError, UnknownName: a value that cannot work ("did you mean").
    """

    teacher: str  # a size that is trained here (64x2), a pretrained model, or none
    student: str  # a size, in its teacher's vocabulary
    loss: str  # what pulls it, see loss_names
    seed: int  # of first weights and batches
    vocabulary: str  # characters, the size of a byte-pair vocabulary, or the pretrained model that has it
    corpus: str  # name, .txt file or folder of .txt files
    context: int  # tokens a model sees
    steps: int  # optimiser steps of the student
    batch_size: int  # windows of a step
    teacher_steps: int  # optimiser steps of a teacher that is trained here; 0 for any other

    def __post_init__(self) -> None:
        check_positive(context=self.context, steps=self.steps, batch_size=self.batch_size)
        named_size(self.student)
        objective_named(self.loss, steps=self.steps).check()

    @property
    def pretrained(self) -> bool:
        """Whether the vocabulary is a pretrained model's."""
        return not own_vocabulary(self.vocabulary)

    @property
    def label(self) -> str:
        """Few words that tell the run from the others of a press."""
        return f"{self.source} to {self.student}, {self.loss}, seed {self.seed}"

    @property
    def source(self) -> str:
        """The teacher's name without the path before it; without a teacher, whose vocabulary is used."""
        if self.teacher != NO_TEACHER:
            return short(self.teacher)
        return f"none ({short(self.vocabulary)})" if self.pretrained else NO_TEACHER

    @property
    def task(self) -> TextTask:
        """The text in a vocabulary of its own."""
        vocabulary = int(self.vocabulary) if self.vocabulary.isdigit() else self.vocabulary
        return TextTask(corpus=self.corpus, vocabulary=vocabulary, context=self.context)

    @property
    def teacher_key(self) -> tuple[Any, ...]:
        """Equal for runs that load the same teacher and text."""
        return (self.teacher, self.vocabulary, self.corpus, self.context, self.teacher_steps)

    def parameters(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def files(self) -> str:
        """A hash of what the names stand for: the text, and the model where it is a folder.

        Raises:
            ValueError, AssetError: the corpus cannot be had.
        """
        from workbench.datasets.corpus import load_corpus

        folders = [Path(name).expanduser() for name in (self.teacher, self.vocabulary)]
        found = sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.*"))
        marks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
        return content_hash(text=load_corpus(self.corpus).fingerprint, models=marks)


def plan_runs(
    teachers: Sequence[str],
    student: str,
    losses: Sequence[str],
    seeds: Sequence[int],
    *,
    corpus: str,
    vocabulary: str,
    context: int,
    steps: int,
    batch_size: int,
    teacher_steps: int,
) -> list[StudentRun]:
    """Every teacher with every loss and seed; a loss that asks no teacher once per vocabulary and seed.

    Args:
        vocabulary: of the text that teachers trained here read; a pretrained teacher brings its own.

    Raises:
        ValueError, UnknownName: an empty or repeated choice, or a name or number that cannot work.
    """
    lists = {"teachers": list(teachers), "losses": list(losses), "seeds": list(seeds)}
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{name} is empty: choose at least one.")
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{name} holds {twice[0]!r} twice.")
    check_positive(teacher_steps=teacher_steps, steps=steps)
    if odd := [seed for seed in seeds if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0]:
        raise ValueError(f"seeds holds {odd[0]!r}: expected whole numbers from 0 up, such as 0, 1, 2.")
    for teacher in teachers:
        check_teacher(teacher)
    if not own_vocabulary(vocabulary):
        raise ValueError(
            f"vocabulary={vocabulary!r} must be 'characters' or the size of a byte-pair vocabulary, such as '2048'."
        )
    runs: dict[StudentRun, None] = {}
    for teacher in teachers:
        here = is_size_name(teacher)
        for loss in losses:
            alone = not objective_named(loss, steps=steps).needs_teacher
            for seed in seeds:
                run = StudentRun(
                    NO_TEACHER if alone else teacher, student, loss, seed, vocabulary if here else teacher, corpus,
                    context, steps, batch_size, teacher_steps if here and not alone else 0,
                )  # fmt: skip
                runs[run] = None
    return list(runs)


def check_teacher(name: str) -> None:
    """Raise one sentence unless ``name`` has the form of a teacher: a size, a folder, or a pretrained model."""
    if is_size_name(name):
        named_size(name)
    elif name in ENCODERS or not is_pretrained_name(name):
        known = [one for one in SHORT_NAMES if one not in ENCODERS]
        try:
            check_choice("teacher", name, known)
        except UnknownName as error:
            raise UnknownName(
                f"{error} A teacher is a size to train here, such as '64x2', one of these, a folder that holds a "
                "model, or owner/name on the Hugging Face hub."
            ) from None


def own_vocabulary(name: str) -> bool:
    """Whether ``name`` is a vocabulary made of the corpus."""
    return name == "characters" or name.isdigit()


def short(name: str) -> str:
    """A model's name without the folders or the owner before it."""
    return Path(name).name or name


def loss_names() -> list[str]:
    """The losses that a student can be given: the papers' objectives, then every loss on two sets of logits."""
    from workbench.losses import LOSSES

    return [*NAMED, *(name for name, loss in LOSSES.items() if name not in NAMED and _needs_logits_only(loss))]


def objective_named(name: str, *, steps: int) -> Objective:
    """The objective called ``name``, for a run of so many steps.

    Raises:
        UnknownName: no such loss ("did you mean").
    """
    check_choice("loss", name, loss_names())
    return named_objectives([name], steps=steps)[0] if name in NAMED else Objective(name, name)


def _needs_logits_only(loss: Any) -> bool:
    parameters = inspect.signature(loss).parameters.values()
    given = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
    return given == ARGUMENTS and all(
        one.default is not one.empty for one in parameters if one.kind is one.KEYWORD_ONLY
    )
