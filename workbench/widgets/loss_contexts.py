"""What a student and a teacher expect after a text, cut down to a few tokens that sliders can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.errors import check_positive
from workbench.metrics.distributions import log_softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

REST = "all others"
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})  # blanks that would look like nothing


class Context(NamedTuple):
    """The next token after a text: names ``[k]`` and the logits of both models, ``[k]`` each."""

    tokens: Sequence[str]
    teacher_logits: np.ndarray
    student_logits: np.ndarray


def two_peaks() -> dict[str, Context]:
    """A context made by hand: a teacher with two likely endings, a student sure of a third."""
    tokens = ("mat", "sofa", "roof", "moon", "table", "floor", "idea", "the")
    teacher = np.array([2.5, 2.3, 0.4, -2.0, 0.2, 0.6, -3.5, -3.0])
    student = np.array([0.3, -0.4, 0.2, 0.5, 1.8, 0.4, -1.0, 0.0])
    return {"The cat sat on the …": Context(tokens, teacher, student)}


def contexts_from_models(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    top: int = 12,
) -> dict[str, Context]:
    """The ``top`` next tokens after each text, by the mean of both models, and one bucket for all others.

    The bucket holds the logarithm of its tokens' summed weights, so that every probability is the
    model's own at temperature 1; at other temperatures the bucket softens as if it were one token.

    Raises:
        ValueError: no texts, ``top`` below 1, models of different vocabularies, or a text that the
            vocabulary cannot write.
    """
    from workbench.metrics.reading import read_text  # torch, which a context made by hand does not need

    check_positive(top=top)
    if not texts:
        raise ValueError("texts is empty: give at least one text to go on from.")
    contexts = {}
    for text in texts:
        of_student, of_teacher = (read_text(model, tokenizer, text) for model in (student, teacher))
        if of_student.logits.shape != of_teacher.logits.shape:
            sizes = of_student.logits.shape[-1], of_teacher.logits.shape[-1]
            raise ValueError(
                f"student has {sizes[0]} tokens and teacher {sizes[1]}: the losses compare token by token, "
                "so both need the vocabulary of tokenizer."
            )
        log_q, log_p = (log_softmax(reading.logits[-1]) for reading in (of_student, of_teacher))
        likely = np.argsort(-(np.exp(log_q) + np.exp(log_p)), kind="stable")[: int(top)]
        names = [of_student.token_text(token).translate(VISIBLE) or "(nothing)" for token in likely]
        if len(likely) < log_q.size:
            names.append(REST)
            log_q, log_p = (np.append(one[likely], _rest(one, likely)) for one in (log_q, log_p))
        else:
            log_q, log_p = log_q[likely], log_p[likely]
        contexts[text] = Context(tuple(names), log_p, log_q)
    return contexts


def _rest(log_probabilities: np.ndarray, likely: np.ndarray) -> float:
    others = np.delete(log_probabilities, likely)
    return float(np.logaddexp.reduce(others))
