"""Multiple choice out of real text: which continuation follows a passage, which rare word comes next."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from workbench.datasets.documents import Corpus, Document
from workbench.datasets.passages import speeches_of
from workbench.errors import check_positive

TRIES = 60  # places of a work that are tried for each question before it counts as too short
EQUAL_LENGTH = 0.1  # continuations differ from the right one by at most this share of its bytes
RARE = (3, 40)  # how often a rare word stands in the corpus: known to it, but not common
SAME_FREQUENCY = 1.5  # the other words are at most so many times rarer or more frequent
LETTERS = 5  # fewest letters of a rare word: shorter ones are seldom nouns or verbs
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Question:
    """One question with one right choice; ``context + choice`` is the text as a model reads it.

    Raises:
        ValueError: fewer than two choices, equal or empty ones, or an answer that is none of them.
    """

    context: str  # may be empty
    choices: tuple[str, ...]  # each begins with the space or line break that parts it from the context
    answer: int  # index of the right choice
    kind: str  # cloze | next word | the name of a benchmark
    group: str  # the work that it comes from, or the benchmark's subject

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices) or not all(self.choices):
            raise ValueError(f"choices={self.choices!r} must be at least two, all different and none empty.")
        if not 0 <= self.answer < len(self.choices):
            raise ValueError(f"answer={self.answer!r} is the place of none of the {len(self.choices)} choices.")

    @property
    def chance(self) -> float:
        """Share of right answers of somebody who knows nothing."""
        return 1 / len(self.choices)


def cloze_questions(
    corpus: Corpus, *, count: int, choices: int = 4, seed: int = 0, context_words: int = 40, length: int = 60
) -> list[Question]:
    """Passages of ``corpus``, each with the words that follow it and stretches of the same work that do not.

    All choices are whole words of about ``length`` bytes (10 % more or less than the right one) and begin within a
    sentence, as the right one does, so that neither length nor a capital tells. A wrong one lies elsewhere in the
    work, apart from the passage and from the other choices, and nowhere in the work follows the passage's last two
    words. Of a play only what is spoken counts. Documents take turns, as many questions each as possible; too short
    ones are passed over. Chance is ``1 / choices``.

    Args:
        corpus: texts that the model was not trained on, where that can be had.
        count: questions; the same first ones for every count.
        context_words: words of the passage.
        length: bytes of a choice.

    Raises:
        ValueError: fewer than two choices, or no document that is long enough.
    """
    check_positive(count=count, context_words=context_words, length=length)
    _check_choices(choices)

    def ask(words: list[str], name: str, rng: random.Random) -> Question | None:
        start = rng.randrange(max(len(words) - context_words, 1))
        end = start + context_words
        if not _within_sentence(words, end):
            return None
        right = _stretch(words, end, length)
        taken, found = [(start, end + len(right))], []
        for _ in range(TRIES):
            place = rng.randrange(len(words))
            wrong = _stretch(words, place, length)
            apart = all(place + len(wrong) <= low or high <= place for low, high in taken)
            if (
                apart
                and _within_sentence(words, place)
                and _about_equal(wrong, right)
                and wrong not in (right, *found)
                and not _follows(words, words[end - 2 : end], wrong)
            ):
                taken.append((place, place + len(wrong)))
                found.append(wrong)
            if len(found) == choices - 1:
                context = " ".join(words[start:end])
                return _question(context, " ".join(right), [" ".join(one) for one in found], "cloze", name, rng)
        return None

    return _in_turn(corpus, count, seed, ask, least=context_words + 10 * length)


def next_word_questions(
    corpus: Corpus, *, count: int, choices: int = 4, seed: int = 0, context_words: int = 25
) -> list[Question]:
    """Passages of ``corpus`` that end before a rare word, with other words that are as rare and about as long.

    A rare word stands 3 to 40 times in the corpus, always small, and has at least five letters. The wrong ones are
    at most 1.5 times rarer or more frequent and at most two letters longer or shorter, and nowhere in the corpus
    follow the word before the gap. Chance is ``1 / choices``.

    Args:
        corpus, count: as for :func:`cloze_questions`; frequencies are counted in this corpus.
        context_words: words of the passage.

    Raises:
        ValueError: fewer than two choices, or no document that is long enough.
    """
    check_positive(count=count, context_words=context_words)
    _check_choices(choices)
    streams = [_words_of(document) for document in corpus.documents]
    frequency = Counter(_bare(word) for words in streams for word in words)
    capitals = {_bare(word.lower()) for words in streams for word in words if word != word.lower()}
    follows: defaultdict[str, set[str]] = defaultdict(set)
    for words in streams:
        for before, word in pairwise(words):
            follows[before.lower()].add(_bare(word))
    rare = sorted(
        word
        for word, often in frequency.items()
        if RARE[0] <= often <= RARE[1] and len(word) >= LETTERS and word not in capitals and _WORD.fullmatch(word)
    )
    known = set(rare)

    def ask(words: list[str], name: str, rng: random.Random) -> Question | None:
        end = rng.randrange(context_words, len(words))
        right = _bare(words[end])
        if right not in known or not words[end].startswith(right) or not _within_sentence(words, end):
            return None
        alike = [
            word
            for word in rare
            if word != right
            and abs(len(word) - len(right)) <= 2
            and 1 / SAME_FREQUENCY <= frequency[word] / frequency[right] <= SAME_FREQUENCY
            and word not in follows[words[end - 1].lower()]
        ]
        if len(alike) < choices - 1:
            return None
        context = " ".join(words[end - context_words : end])
        return _question(context, right, rng.sample(alike, choices - 1), "next word", name, rng)

    return _in_turn(corpus, count, seed, ask, least=context_words + 1)


def _in_turn(
    corpus: Corpus,
    count: int,
    seed: int,
    ask: Callable[[list[str], str, random.Random], Question | None],
    *,
    least: int,
) -> list[Question]:
    """``count`` questions, one of each document in turn; ``least`` words make a document long enough."""
    rng = random.Random(seed)
    streams = {document.name: _words_of(document) for document in corpus.documents}
    names = [name for name, words in streams.items() if len(words) >= least]
    rng.shuffle(names)
    questions: list[Question] = []
    seen: set[str] = set()
    while names and len(questions) < count:
        for name in list(names):
            question = next(_tried(lambda name=name: ask(streams[name], name, rng), seen), None)
            if question is None:
                names.remove(name)
                continue
            seen.add(question.context)
            questions.append(question)
    if len(questions) < count:
        raise ValueError(
            f"count={count} questions cannot be had from the corpus {corpus.name!r}, only {len(questions)}: "
            "give more text or ask for fewer."
        )
    return questions[:count]


def _tried(ask: Callable[[], Question | None], seen: set[str]) -> Iterator[Question]:
    for _ in range(TRIES):
        question = ask()
        if question is not None and question.context not in seen:
            yield question


def _question(context: str, right: str, wrong: Sequence[str], kind: str, group: str, rng: random.Random) -> Question:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return Question(context, tuple(f" {choice}" for choice in choices), choices.index(right), kind, group)


def _words_of(document: Document) -> list[str]:
    spoken = " ".join(speech.text for speech in speeches_of(document)) or document.text
    return spoken.split()


def _stretch(words: list[str], start: int, length: int) -> list[str]:
    """The words from ``start`` on until there are ``length`` bytes."""
    end, size = start, 0
    while end < len(words) and size < length:
        size += len(words[end].encode()) + 1
        end += 1
    return words[start:end]


def _within_sentence(words: list[str], place: int) -> bool:
    """Whether a sentence goes on at ``place``: no stop before it, and no capital at it."""
    return 0 < place < len(words) and words[place - 1][-1].isalpha() and words[place][0].islower()


def _about_equal(first: list[str], second: list[str]) -> bool:
    sizes = [len(" ".join(words).encode()) for words in (first, second)]
    return abs(sizes[0] - sizes[1]) <= EQUAL_LENGTH * sizes[1]


def _follows(words: list[str], before: list[str], after: list[str]) -> bool:
    """Whether ``after`` stands directly behind ``before`` anywhere in ``words``."""
    wanted = [*before, *after]
    return any(words[place : place + len(wanted)] == wanted for place in range(len(words) - len(wanted) + 1))


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()[]-—’‘")


def _check_choices(choices: int) -> None:
    if not isinstance(choices, int) or choices < 2:
        raise ValueError(f"choices={choices!r} must be a whole number of at least 2.")
