"""What one can do to a text's order and length: shuffle, reverse, repeat, cut; words stay whole."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from workbench.datasets.documents import Corpus
from workbench.datasets.passages import speeches_of
from workbench.errors import check_choice, check_positive

KEEP_WORDS = ("shuffle", "reverse", "shuffle sentences")  # operations that only reorder: as many tokens as before
OPERATIONS = ("none", *KEEP_WORDS, "repeat", "foreign words", "truncate")
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+")


def operate(text: str, operation: str, *, seed: int = 0, others: Sequence[str] = ()) -> str:
    """``text`` after ``operation``; words are what stands between spaces, and one space stands between them.

    Args:
        operation: ``none``, ``shuffle`` (words), ``reverse`` (words), ``shuffle sentences``, ``repeat`` (the first
            half twice), ``foreign words`` (as many, drawn from ``others``) or ``truncate`` (the first half alone).
        seed: of the draws.
        others: texts that foreign words are drawn from.

    Raises:
        UnknownName: another operation ("did you mean").
        ValueError: foreign words without other texts.
    """
    check_choice("operation", operation, OPERATIONS)
    words, draw = text.split(), random.Random(f"{operation} {seed} {text}")
    half = words[: (len(words) + 1) // 2]
    if operation == "shuffle":
        draw.shuffle(words)
    elif operation == "reverse":
        words.reverse()
    elif operation == "shuffle sentences":
        sentences = _SENTENCE.split(" ".join(words))
        draw.shuffle(sentences)
        words = sentences
    elif operation == "repeat":
        words = half + half[: len(words) - len(half)]
    elif operation == "truncate":
        words = half
    elif operation == "foreign words":
        pool = [word for other in others for word in other.split()]
        if not pool:
            raise ValueError("operation='foreign words' draws from others, which is empty: give the other texts.")
        words = draw.choices(pool, k=len(words))
    return " ".join(words)


def cut_texts(corpus: Corpus, *, words: int, count: int) -> list[str]:
    """``count`` pieces of ``words`` consecutive words, spread evenly over the corpus; none goes over a document's end.

    Of a play only what is spoken counts.

    Raises:
        ValueError: the corpus has fewer such pieces.
    """
    check_positive(words=words, count=count)
    pieces = []
    for document in corpus.documents:
        stream = (" ".join(speech.text for speech in speeches_of(document)) or document.text).split()
        starts = range(0, len(stream) - words + 1, words)
        pieces += [" ".join(stream[start : start + words]) for start in starts]
    if len(pieces) < count:
        raise ValueError(
            f"the corpus {corpus.name!r} has {len(pieces)} pieces of {words} words, {count} were asked for: "
            "take fewer or shorter texts, or a larger corpus."
        )
    return [pieces[place * len(pieces) // count] for place in range(count)]
