"""Perplexity by kind of text, window by window, so that two models can be compared on the same windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from workbench.errors import check_positive
from workbench.metrics.continuations import evaluating
from workbench.progress import progress


def perplexity_by_kind(
    model: nn.Module,
    tokenizer: Any,
    texts: Mapping[str, str],
    *,
    window: int = 256,
    stride: int | None = None,
    batch_size: int = 2,
    limit: int | None = None,
    label: str = "",
) -> pd.DataFrame:
    """How well ``model`` predicts each text, in windows of ``window`` tokens.

    Every token after a text's first is predicted exactly once, from at most ``window`` tokens before it. By default
    (``stride=None``, the same as ``window``) windows do not overlap and the first token of each is all that its
    second is predicted from; with a smaller stride at least ``window - stride + 1`` tokens precede every one behind
    the first window, at the cost of reading each ``window / stride`` times. No special token is added.
    Rows of two models with one tokenizer stand for the same words, so that they can be paired over
    ``(kind, window)``; between tokenizers compare nats per byte of whole kinds.

    Args:
        model: a causal language model of transformers, quantised or not.
        tokenizer: its (fast) tokenizer, which knows what characters a token stands for.
        texts: kind -> text.
        window: most tokens that the model sees.
        stride: tokens from the beginning of one window to the next.
        batch_size: windows that are run together; logits take ``4 * batch_size * window * vocab`` bytes.
        limit: most windows of a text; None = all of it.

    Returns:
        One row a window: ``kind``, ``window`` (its place), ``tokens`` and ``bytes`` that were predicted, ``nats``
        (their sum), ``nats_per_token``, ``nats_per_byte``, ``perplexity`` (per token).

    Raises:
        ValueError: no texts, one of fewer than two tokens, or a stride beyond the window.
    """
    stride = window if stride is None else stride
    check_positive(window=window, stride=stride, batch_size=batch_size, limit=1 if limit is None else limit)
    if stride > window:
        raise ValueError(f"stride={stride} is beyond window={window}: the tokens between would never be predicted.")
    if not texts:
        raise ValueError("texts is empty: give at least one kind of text.")
    cuts = [cut for kind, text in texts.items() for cut in _cut(tokenizer, kind, text, window, stride, limit)]
    rows = []
    with evaluating(model) as device:
        batches = [cuts[start : start + batch_size] for start in range(0, len(cuts), batch_size)]
        for batch in progress(batches, label=label):
            longest = max(len(cut.ids) for cut in batch)
            # The last token is predicted and never read; filling up on the right changes nothing before it.
            ids = torch.zeros(len(batch), longest - 1, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, cut in enumerate(batch):
                ids[row, : len(cut.ids) - 1] = torch.from_numpy(cut.ids[:-1])
                mask[row, : len(cut.ids) - 1] = 1
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            for row, cut in enumerate(batch):
                end = len(cut.ids) - 1
                targets = torch.from_numpy(cut.ids[-cut.tokens :]).to(device)
                losses = F.cross_entropy(logits[row, end - cut.tokens : end].float(), targets, reduction="none")
                rows.append(cut.row(float(losses.cpu().double().sum())))
    return pd.DataFrame(rows)


def summarise_perplexity(windows: pd.DataFrame) -> pd.DataFrame:
    """One row a kind, in the order given, from rows of :func:`perplexity_by_kind`; each token weighs the same.

    Columns ``kind``, ``windows``, ``tokens``, ``bytes``, ``nats``, ``nats_per_token``, ``nats_per_byte``,
    ``perplexity``.
    """
    groups = windows.groupby("kind", sort=False)
    table = groups[["tokens", "bytes", "nats"]].sum()
    table.insert(0, "windows", groups.size())
    return _with_means(table.reset_index())


@dataclass(frozen=True)
class _Window:
    kind: str
    place: int
    ids: np.ndarray  # [time + 1], int64
    tokens: int  # of them, at the end, that are predicted here and in no other window
    bytes: int  # that these stand for

    def row(self, nats: float) -> dict[str, Any]:
        per_token = nats / self.tokens
        return {
            "kind": self.kind,
            "window": self.place,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "nats": nats,
            "nats_per_token": per_token,
            "nats_per_byte": nats / self.bytes if self.bytes else float("nan"),
            "perplexity": float(np.exp(per_token)),
        }


def _with_means(table: pd.DataFrame) -> pd.DataFrame:
    per_token = table["nats"] / table["tokens"]
    return table.assign(
        nats_per_token=per_token, nats_per_byte=table["nats"] / table["bytes"], perplexity=np.exp(per_token)
    )


def _cut(tokenizer: Any, kind: str, text: str, window: int, stride: int, limit: int | None) -> list[_Window]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array(encoded["input_ids"], dtype=np.int64)
    if len(ids) < 2:
        raise ValueError(f"the text of kind {kind!r} has {len(ids)} tokens: two are needed to predict one.")
    # Bytes up to the end of each token. Tokens that spell one character together share its end: its bytes count once.
    bytes_before = np.concatenate([[0], np.cumsum([len(character.encode()) for character in text])])
    ends = bytes_before[np.maximum.accumulate([end for _, end in encoded["offset_mapping"]])]
    cuts = []
    done = 1  # tokens before this one are the first, which nothing precedes, or were predicted already
    for place, start in enumerate(range(0, len(ids) - 1, stride)):
        end = min(start + window + 1, len(ids))
        if done == len(ids) or (limit is not None and place == limit):
            break
        cuts.append(_Window(kind, place, ids[start:end], end - done, int(ends[end - 1] - ends[done - 1])))
        done = end
    return cuts
