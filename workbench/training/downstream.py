"""Downstream tasks that a pretrained teacher was not made for: a few labels, and what the teacher's layers say.

Digits: a network that knows the ten digits teaches odd from even. Text: a sentence encoder teaches who speaks, what
kind of play a passage is from, or the labels of anybody's own folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workbench.datasets.corpus import load_corpus
from workbench.datasets.passages import PLAY_GENRES, LabelledText, passages, speeches, split_by_group
from workbench.errors import UnknownName, check_choice, check_positive
from workbench.models.pretrained import SHORT_NAMES, find_pretrained, is_pretrained_name, load_pretrained
from workbench.models.splits import SplitModel, TransformerLayers, pooled_states, split_mlp
from workbench.runtime import seeded
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, made_once
from workbench.training.loop import fit
from workbench.training.parallel import run_tasks

DIGIT_TASKS = {"parity": 0.1, "halves": 0.25}  # spread of the noise on pixels that go from 0 to 1
TEXT_TASKS = ("genre", "speaker")
SOURCE_DIGITS, TEST_DIGITS = 900, 400  # the teacher's own images; the rest is the downstream task's
TEACHER_HIDDEN, TEACHER_STEPS = 128, 400
WORD_PIECES = 1000  # that the student of a text sees: the most frequent of the corpus
MAX_TOKENS = 128
PASSAGE_WORDS = 100
SPEAKERS, SPEECH_WORDS = 6, 25  # how many of the most talkative, and the least words of a speech
TOP_LAYERS = 1  # of a pretrained teacher that answers are run through
PARTS = ("inputs", "lower", "upper")
TEXT_CODE = ("datasets/passages.py", "models/splits.py", "training/downstream.py")


@dataclass(frozen=True)
class Draw:
    """The data of one seed: rows of the student's inputs, of the teacher's states, and labels."""

    inputs: Tensor  # [rows, input]
    lower: Tensor  # [rows, hidden] of the teacher
    upper: Tensor  # [rows, hidden]
    labels: Tensor  # [rows]
    pool: Tensor  # rows to train on, in the order in which labels are given: the first n are labelled
    test: Tensor  # rows to be judged on


@dataclass(frozen=True)
class Downstream:
    """A task with the teacher whose knowledge is asked for."""

    name: str
    classes: int
    teacher: SplitModel
    draws: tuple[Draw, ...]  # one a seed
    unlabelled: bool = True  # whether inputs without a label may be used

    @property
    def input_width(self) -> int:
        """Numbers per input of the student."""
        return self.draws[0].inputs.shape[1]


def task_and_teacher(task: str, teacher: str = "minilm") -> tuple[str, str]:
    """``genre@smollm2-135m`` as ``("genre", "smollm2-135m")``; without ``@`` the teacher is ``teacher``, of digits "".

    Raises:
        UnknownName: neither a task nor a folder with a sub-folder per label, or a teacher that no model is called.
    """
    name, _, own = task.partition("@")
    if not Path(name).expanduser().is_dir():
        check_choice("tasks", name, (*DIGIT_TASKS, *TEXT_TASKS))
    if name in DIGIT_TASKS:
        if own:
            raise UnknownName(f"tasks={task!r}: digits have their own teacher, only text can name one behind @.")
        return name, ""
    if not is_pretrained_name(own or teacher):
        check_choice("teacher", own or teacher, SHORT_NAMES)
    return name, own or teacher


def digits_task(name: str, seeds: Sequence[int], *, trained_teacher: bool = True) -> Downstream:
    """``parity`` (odd or even), or ``halves`` (5 and above) on noisier images without unlabelled ones.

    Args:
        trained_teacher: False takes the teacher's first, random weights: nothing can be learned from it.
    """
    check_choice("task", name, tuple(DIGIT_TASKS))
    images, digits, source = _digits()
    teacher = digit_teacher(trained=trained_teacher)
    rest = np.setdiff1d(np.arange(len(digits)), source)
    answers = digits % 2 if name == "parity" else (digits >= 5).long()
    draws = []
    for seed in seeds:
        random = np.random.default_rng([seed, 1])
        noisy = images + DIGIT_TASKS[name] * torch.from_numpy(random.standard_normal(images.shape)).float()
        rows = random.permutation(rest)
        with torch.no_grad():
            lower, upper = teacher.states(noisy)
        pool = _balanced(rows[TEST_DIGITS:], answers)
        draws.append(Draw(noisy, lower, upper, answers, pool, torch.from_numpy(rows[:TEST_DIGITS])))
    return Downstream(name, 2, teacher, tuple(draws), unlabelled=name == "parity")


@cache
def digit_teacher(*, trained: bool = True) -> SplitModel:
    """A network 64-128-128-10 that learned the ten digits from the 900 source images, or its first weights."""
    images, digits, source = _digits()
    with seeded(0):
        teacher = split_mlp(64, TEACHER_HIDDEN, 10)
    if trained:
        random = np.random.default_rng(0)
        rows = (torch.from_numpy(random.choice(source, 64)) for _ in range(TEACHER_STEPS))
        fit(
            teacher, rows, lambda model, row: nn.functional.cross_entropy(model(images[row]), digits[row]),
            steps=TEACHER_STEPS, lr=3e-3, label=None,
        )  # fmt: skip
    return teacher.eval()


@torch.no_grad()
def digit_accuracy(teacher: SplitModel) -> float:
    """The teacher's accuracy on its own task, of clean digits that it did not learn from."""
    images, digits, source = _digits()
    rest = np.setdiff1d(np.arange(len(digits)), source)
    return float((teacher(images[rest]).argmax(-1) == digits[rest]).float().mean())


@cache
def _digits() -> tuple[Tensor, Tensor, np.ndarray]:
    """Images ``[1797, 64]`` from 0 to 1, digits, and the rows that belong to the teacher."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    source = np.random.default_rng(0).permutation(len(digits))[:SOURCE_DIGITS]
    return torch.from_numpy(images / 16).float(), torch.from_numpy(digits).long(), source


@dataclass(frozen=True)
class PreparedTexts:
    """Texts of a task with what a pretrained teacher says of them, kept in a folder; processes read it from there."""

    name: str  # genre, speaker or somebody's folder
    texts: tuple[LabelledText, ...]
    teacher: Path  # folder of the model
    folder: Path  # inputs.npy, lower.npy, upper.npy


def prepare_texts(
    tasks: Sequence[tuple[str, str]], *, corpus: str = "shakespeare", texts: int = 600, cores: int | None = None
) -> list[PreparedTexts]:
    """Texts and teacher's states of ``(task, teacher)`` pairs, computed once and kept.

    A task is ``genre``, ``speaker``, or a folder whose sub-folders are the labels. The student sees how often each
    of the commonest word pieces occurs in the tokens that the teacher reads.

    Args:
        corpus: where plays come from.
        texts: at most so many for each task, evenly from all labels.

    Raises:
        ValueError, AssetError: what :func:`load_corpus`, :func:`passages`, :func:`speeches` or
            :func:`find_pretrained` refuse.
    """
    check_positive(texts=texts)
    prepared = []
    for name, teacher in tasks:
        found = tuple(_texts(name, corpus, texts))
        key = content_hash(texts=[one.text for one in found], teacher=teacher, code=code_hash(TEXT_CODE))
        prepared.append(PreparedTexts(name, found, find_pretrained(teacher), cache_folder("communication", key)))
    run_tasks(_fill, prepared, cores=cores, label="texts")
    return prepared


def text_task(prepared: PreparedTexts, seeds: Sequence[int]) -> Downstream:
    """The task of prepared texts with its teacher.

    No play (``genre``, folders: no document) and no scene (``speaker``) has texts in training and test of one seed.
    """
    inputs, lower, upper = (torch.from_numpy(np.load(prepared.folder / f"{part}.npy")) for part in PARTS)
    names = sorted({one.label for one in prepared.texts})
    labels = torch.tensor([names.index(one.label) for one in prepared.texts])
    draws = []
    for seed in seeds:
        training, test = split_by_group(prepared.texts, seed=seed)
        pool = _balanced(np.random.default_rng([seed, 1]).permutation(training), labels)
        draws.append(Draw(inputs, lower, upper, labels, pool, torch.tensor(test)))
    return Downstream(prepared.name, len(names), text_teacher(prepared.teacher), tuple(draws))


@cache
def text_teacher(folder: Path) -> SplitModel:
    """The top layers of a pretrained model as a teacher that answers: ``[batch, hidden]`` is a text of one token."""
    model, _ = load_pretrained(folder, device="cpu")
    layers = TransformerLayers(model, *top_layers(model)).requires_grad_(False).eval()
    for part in layers.modules():  # replicas refuse dropout, which a frozen teacher never uses
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return SplitModel(nn.Identity(), layers, hidden_dim=model.config.hidden_size)


def top_layers(model: nn.Module) -> tuple[int, int]:
    """Between which hidden states a pretrained teacher answers: the last layers of all."""
    last = model.config.num_hidden_layers
    return max(0, last - TOP_LAYERS), last


def _texts(name: str, corpus: str, count: int) -> list[LabelledText]:
    if name == "genre":
        found = passages(load_corpus(corpus), labels=PLAY_GENRES, words=PASSAGE_WORDS)
    elif name == "speaker":
        found = speeches(load_corpus(corpus), speakers=SPEAKERS, least_words=SPEECH_WORDS)
    else:
        found = passages(load_corpus(name), words=PASSAGE_WORDS)
    by_label: dict[str, list[LabelledText]] = {}
    for one in found:
        by_label.setdefault(one.label, []).append(one)
    each = max(1, count // len(by_label))
    spread = []
    for rows in by_label.values():
        kept = min(each, len(rows))
        spread.extend(rows[index * len(rows) // kept] for index in range(kept))
    return spread


def _fill(prepared: PreparedTexts) -> None:
    """Compute inputs and states of texts in their folder, where they are not there yet."""

    def make(folder: Path) -> None:
        model, tokenizer = load_pretrained(prepared.teacher, device="cpu")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        lower, upper = top_layers(model)
        texts = [one.text for one in prepared.texts]
        states = pooled_states(model, tokenizer, texts, layers=(lower, upper), max_tokens=MAX_TOKENS)
        tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, add_special_tokens=False)["input_ids"]
        for part, value in zip(PARTS, (_bags(tokens), states[lower], states[upper]), strict=True):
            np.save(folder / f"{part}.npy", np.asarray(value))

    made_once(prepared.folder, make)


def _bags(tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Square roots of counts; every row has the size that a row of pixels has for its width."""
    ids, uses = np.unique(np.concatenate([np.asarray(row) for row in tokens]), return_counts=True)
    kept = ids[np.argsort(-uses, kind="stable")[:WORD_PIECES]]
    place = {int(piece): column for column, piece in enumerate(kept)}
    bags = np.zeros((len(tokens), WORD_PIECES), dtype=np.float32)
    for row, pieces in enumerate(tokens):
        for piece in pieces:
            if piece in place:
                bags[row, place[piece]] += 1
    rooted = np.sqrt(bags)
    return rooted * (0.5 * WORD_PIECES**0.5 / np.linalg.norm(rooted, axis=1, keepdims=True).clip(1e-6))


def _balanced(rows: np.ndarray, labels: Tensor) -> Tensor:
    """``rows`` reordered so that any first n hold the classes as evenly as there are rows of each."""
    classes = labels[rows].numpy()
    turn = np.zeros(len(rows), dtype=int)
    for one in np.unique(classes):
        turn[classes == one] = np.arange((classes == one).sum())
    return torch.from_numpy(rows[np.lexsort((classes, turn))])
