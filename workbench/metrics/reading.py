"""What a language model expects at every place of a sentence, and how surprised it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.metrics.distributions import log_softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Reading:
    """One model's way through one text.

    Attributes:
        text: what was read.
        token_ids: the text in the model's vocabulary, ``[time]``.
        starts: where each token begins, counted in characters of ``text``, ``[time]``.
        ends: where each token ends, ``[time]``.
        logits: what the model expects after each token, ``[time, vocab]``, float32.
        nats: surprise at each token, ``[time]``; NaN for the first, which nothing precedes.
        nats_per_byte: mean loss over the text after its first token, per UTF-8 byte, so that
            models of different vocabularies can be compared; NaN where only one token was read.
        tokenizer: the vocabulary.
    """

    text: str
    token_ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    logits: np.ndarray
    nats: np.ndarray
    nats_per_byte: float
    tokenizer: Any

    @property
    def start(self) -> int:
        """Characters left out in front because the model's context is shorter than the text."""
        return int(self.starts[0])

    def place(self, characters: int) -> int:
        """Index of the last token that ends within the first ``characters`` of the text (at least 0)."""
        return max(int(np.searchsorted(self.ends, characters, side="right")) - 1, 0)

    def top(self, place: int, count: int) -> np.ndarray:
        """Token ids of the ``count`` likeliest continuations after token ``place``, likeliest first."""
        row = self.logits[place]
        count = min(count, row.size)
        likely = np.argpartition(row, -count)[-count:]
        return likely[np.argsort(-row[likely], kind="stable")]

    def token_text(self, token_id: int) -> str:
        """The characters a token stands for."""
        return self.tokenizer.decode([int(token_id)], clean_up_tokenization_spaces=False)

    def pieces(self) -> list[tuple[str, float]]:
        """The text as the model cut it, with the surprise in nats of each piece.

        Tokens that spell one character together by its bytes make one piece.
        """
        pieces: list[tuple[str, float]] = []
        end_before = self.start
        for start, end, nats in zip(self.starts, self.ends, self.nats, strict=True):
            if pieces and start < end_before:
                text, before = pieces.pop()
                pieces.append((text + self.text[end_before:end], before + nats))
            else:
                pieces.append((self.text[start:end], float(nats)))
            end_before = max(end_before, end)
        return pieces


def same_vocabulary(first: Reading, second: Reading) -> bool:
    """Whether token ids mean the same in both, so that a KL between them exists."""
    if first.logits.shape[-1] != second.logits.shape[-1]:
        return False
    return first.tokenizer is second.tokenizer or first.tokenizer.get_vocab() == second.tokenizer.get_vocab()


def read_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> Reading:
    """Run ``model`` once over ``text``; where its context is too short, over the last tokens that fit.

    No begin-of-text token is put in front, so that models trained with and without one are asked
    the same question; the first token and its bytes count for nothing.

    Raises:
        ValueError: an empty text, or characters that the vocabulary cannot write.
    """
    if not text:
        raise ValueError("text is empty: give at least one character to read.")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    _check_known(ids, offsets, tokenizer, text)
    context = getattr(model.config, "max_position_embeddings", None) or len(ids)
    ids, offsets = ids[-context:], offsets[-context:]
    with torch.inference_mode():
        device = next(model.parameters()).device
        logits = model(torch.tensor([ids], device=device)).logits[0].float().cpu().numpy()
    token_ids, (starts, ends) = np.array(ids), np.array(offsets).T
    log_p = log_softmax(logits[:-1])
    surprise = -np.take_along_axis(log_p, token_ids[1:, None], -1)[:, 0]
    # A first character spelled by several tokens is left out as a whole, as its bytes are.
    inside = starts[1:] >= ends[0]
    counted = len(text[ends[0] :].encode())
    return Reading(
        text=text,
        token_ids=token_ids,
        starts=starts,
        ends=ends,
        logits=logits,
        nats=np.concatenate([[np.nan], surprise]),
        nats_per_byte=float(surprise[inside].sum() / counted) if counted else float("nan"),
        tokenizer=tokenizer,
    )


def _check_known(ids: list[int], offsets: list[tuple[int, int]], tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    unknown = {
        text[start:end] for token, (start, end) in zip(ids, offsets, strict=True) if token == tokenizer.unk_token_id
    }
    # A vocabulary without an unknown token drops what it cannot write: then nothing covers the place.
    covered = np.zeros(len(text), dtype=bool)
    for start, end in offsets:
        covered[start:end] = True
    unknown |= {character for character, known in zip(text, covered, strict=True) if not known}
    if unknown:
        listed = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"text holds {listed}, which this vocabulary of {len(tokenizer)} tokens cannot write.")
