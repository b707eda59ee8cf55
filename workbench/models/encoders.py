"""Sentences as vectors, by a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 256  # all-MiniLM-L6-v2 was made to read no more of a text


@torch.inference_mode()
def encode_sentences(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    max_tokens: int = MAX_TOKENS,
) -> Tensor:
    """Mean of the last hidden states over each text's own tokens, length 1: ``[texts, width]`` float32.

    The product of two rows is their cosine (Reimers & Gurevych 2019). Longer texts are cut at
    ``max_tokens``.

    Raises:
        TypeError: ``texts`` is one string instead of a list of them.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, got one string: put it into a list.")
    width = model.config.hidden_size
    vectors = torch.empty(len(texts), width)
    # Texts of like length together, so that little is spent on padding.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        ).to(model.device)
        hidden = model(**batch).last_hidden_state.float()  # [batch, time, width]
        counts = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * counts).sum(1) / counts.sum(1).clamp(min=1)
        vectors[rows] = normalize(mean, dim=-1).cpu()
    return vectors
