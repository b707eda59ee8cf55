"""How a language model's hidden states compress texts: matrix nuclear norm, entropy and rank, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import check_choice, check_positive
from workbench.metrics.hidden_matrix import select_tokens
from workbench.metrics.matrix_entropy import covariance_spectrum, spectrum_entropy
from workbench.metrics.nuclear_norm import matrix_nuclear_norm, mnn_bound
from workbench.models.last_layer import last_layer
from workbench.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 2048  # the authors' limit
COLUMNS = ("text", "layer", "tokens", "mnn", "bound", "mnn_over_bound", "entropy", "effective_rank", "nuclear_norm")
Layers = str | int | Sequence[int]


def evaluate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    layers: Layers = "last",
    *,
    top: int | None = None,
    drop_first: int = 0,
    max_tokens: int = MAX_TOKENS,
    batch_size: int = 1,
    loss: bool = False,
    label: str = "texts",
) -> pd.DataFrame:
    """One row per text and layer: ``text, layer, tokens, mnn, bound, mnn_over_bound, entropy, effective_rank,
    nuclear_norm``.

    Args:
        layers: ``last`` (after the final norm, the authors' choice), ``all`` (0 is the embedding), a number or
            several; negative ones count from the end.
        top: columns of the matrix nuclear norm; ``None`` takes min(tokens, width).
        drop_first: tokens left out at the start of each text: a first token often has a huge state that says nothing.
        batch_size: texts read at once, padded on the right; padding does not count.
        loss: adds ``loss``, nats per token of the text's own next tokens (NaN where none is left).

    A text of no token, one token or equal tokens has NaN in the place of its numbers.

    Raises:
        ValueError: no texts, a layer that the model lacks, or hidden states that are not finite.
        UnknownName: a word for ``layers`` other than ``last`` and ``all``.
    """
    if not texts:
        raise ValueError("texts is empty: there is nothing to read.")
    check_positive(max_tokens=max_tokens, batch_size=batch_size)
    if drop_first < 0:
        raise ValueError(f"drop_first={drop_first} must be 0 or more tokens.")
    chosen = _layers(layers, model.config.num_hidden_layers)
    coded = [tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts]
    rows = []
    for start in progress(range(0, len(coded), batch_size), label=label):
        part = coded[start : start + batch_size]
        longest = max(map(len, part))
        if not longest:
            rows += [
                _row(start + place, layer, torch.empty(0, 1), top) for place in range(len(part)) for layer in chosen
            ]
            continue
        states, losses = read_batch(model, part, chosen, loss=loss)
        for place, ids in enumerate(part):
            for layer in chosen:
                kept = states[layer][place, drop_first : len(ids)]
                row = _row(start + place, layer, kept, top)
                rows.append(row | ({"loss": losses[place]} if loss else {}))
    return pd.DataFrame(rows, columns=[*COLUMNS, *(["loss"] if loss else [])])


@torch.no_grad()
def read_batch(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], layers: Sequence[int], *, loss: bool = False
) -> tuple[dict[int, Tensor], list[float]]:
    """Hidden states ``[batch, time, width]`` by layer, and each text's nats per token where ``loss`` asks for them.

    The last layer is taken after the final norm, as the model's head reads it.
    """
    longest = max(map(len, ids))
    padded = torch.tensor([[*one, *[0] * (longest - len(one))] for one in ids], device=model.device)
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids], device=model.device)
    last = model.config.num_hidden_layers
    found = model.base_model(padded, attention_mask=mask, output_hidden_states=any(layer != last for layer in layers))
    states = {layer: found[0] if layer == last else found.hidden_states[layer] for layer in layers}
    if not loss:
        return states, []
    head, losses = last_layer(model), []
    for place, one in enumerate(ids):
        logits = head.logits(found[0][place, : max(0, len(one) - 1)]).float()
        losses.append(float(F.cross_entropy(logits, padded[place, 1 : len(one)])) if len(one) > 1 else math.nan)
    return states, losses


def describe_hidden(hidden: Tensor, *, top: int | None = None, mask: Tensor | None = None) -> dict[str, float]:
    """The numbers of :func:`evaluate_texts` of one text ``[tokens, width]``; ``nuclear_norm`` is the true one a token.

    Entropy, rank and true norm come from one spectrum in float64.
    """
    hidden = select_tokens(hidden.detach(), mask)
    tokens, width = hidden.shape
    columns = min(tokens, width) if top is None else min(top, tokens, width)
    norm = float(matrix_nuclear_norm(hidden, top=columns or None))
    bound = mnn_bound(tokens, width, top=columns) if columns else math.nan
    spectrum = covariance_spectrum(hidden.double())
    nats = float(spectrum_entropy(spectrum))
    return {
        "tokens": tokens, "mnn": norm, "bound": bound, "mnn_over_bound": norm / bound,
        "entropy": nats / (math.log(width) if width > 1 else math.nan), "effective_rank": math.exp(nats),
        "nuclear_norm": float(spectrum.sqrt().sum()) / math.sqrt(tokens) if tokens else math.nan,
    }  # fmt: skip


def _row(text: int, layer: int, hidden: Tensor, top: int | None) -> dict[str, float]:
    return {"text": text, "layer": layer, **describe_hidden(hidden, top=top)}


def _layers(layers: Layers, last: int) -> list[int]:
    """Numbers from 0 (the embedding) to ``last``."""
    if isinstance(layers, str):
        return [last] if check_choice("layers", layers, ("last", "all")) == "last" else list(range(last + 1))
    chosen = [layers] if isinstance(layers, int) else list(layers)
    found = [layer + last + 1 if layer < 0 else layer for layer in chosen]
    if not found or not all(0 <= layer <= last for layer in found):
        raise ValueError(f"layers={layers!r} must name layers from 0 (the embedding) to {last}, or 'last', or 'all'.")
    return found
