"""What a language model's hidden states do when a text is reordered or grows, text by text and layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from workbench.datasets.text_operations import operate
from workbench.metrics.matrix_entropy import covariance_spectrum
from workbench.metrics.nuclear_norm import column_norms
from workbench.metrics.text_metrics import describe_hidden, read_batch
from workbench.metrics.uncertainty import bootstrap_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNTOUCHED, HALF = "none", "truncate"
SAMPLES = 5  # texts whose hidden states are kept, to be timed and looked at
MEASURES = ("mnn", "mnn_without_first", "entropy", "entropy_without_first", "loss")


@dataclass
class Reading:
    """What :func:`read_operations` found."""

    rows: pd.DataFrame  # operation, text, loss, the numbers of describe_hidden, two of them without the first token
    layers: pd.DataFrame  # operation, text, layer, mnn, bound, mnn_over_bound, entropy
    samples: list[Tensor]  # [tokens, width] of the first texts as they are
    forward_ms: list[float]  # CPU time of reading each of them, head left out

    @classmethod
    def together(cls, parts: Sequence[Reading]) -> Reading:
        """Readings of different texts as one; of samples the first few are kept.

        Raises:
            ValueError: no part.
        """
        if not parts:
            raise ValueError("parts is empty: there is no reading.")
        samples = [(sample, cost) for part in parts for sample, cost in zip(part.samples, part.forward_ms, strict=True)]
        return cls(
            pd.concat([part.rows for part in parts], ignore_index=True),
            pd.concat([part.layers for part in parts], ignore_index=True),
            [sample for sample, _ in samples[:SAMPLES]],
            [cost for _, cost in samples[:SAMPLES]],
        )


def read_operations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    operations: Sequence[str],
    *,
    only: Sequence[int] | None = None,
    max_tokens: int = 2048,
    seed: int = 0,
) -> Reading:
    """Read every text as it is and after each of ``operations`` (of :mod:`workbench.datasets.text_operations`).

    A text that is cut is not read again: what a causal model says of its beginning does not depend on the rest.

    Args:
        only: which of the texts to read; foreign words come from all of them.

    Raises:
        ValueError: no texts, or hidden states that are not finite.
        UnknownName: an unknown operation ("did you mean").
    """
    places = range(len(texts)) if only is None else only
    if not len(places):
        raise ValueError("texts is empty: there is nothing to read.")
    reads = [UNTOUCHED, *(operation for operation in operations if operation not in (UNTOUCHED, HALF))]
    last = model.config.num_hidden_layers
    found = Reading(pd.DataFrame(), pd.DataFrame(), [], [])
    rows, layers = [], []
    for place in places:
        halves = []
        for operation in reads:
            # A space before the first word: then every word has one, and no reordering changes how many tokens.
            words = " " + operate(texts[place], operation, seed=seed + place, others=texts)
            ids = tokenizer(words, truncation=True, max_length=max_tokens)["input_ids"]
            states, losses = read_batch(model, [ids], range(last + 1), loss=True)
            hidden = states[last][0]
            rows.append({"operation": operation, "text": place, "loss": losses[0], **_ends(hidden)})
            layers += [_layer(states[layer][0], operation, place, layer) for layer in states]
            if operation != UNTOUCHED:
                continue
            if HALF in operations:
                half = hidden[: (len(ids) + 1) // 2]
                halves.append({"operation": HALF, "text": place, "loss": math.nan, **_ends(half)})
            if len(found.samples) < SAMPLES:
                before = time.process_time()
                read_batch(model, [ids], [last])
                found.forward_ms.append(1e3 * (time.process_time() - before))
                found.samples.append(hidden.clone())
        rows += halves
    found.rows, found.layers = pd.DataFrame(rows), pd.DataFrame(layers)
    return found


def read_lengths(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    shortest: int = 16,
    max_tokens: int = 2048,
) -> pd.DataFrame:
    """:func:`workbench.metrics.text_metrics.describe_hidden` of a text's first 16, 32, 64 ... tokens, read once.

    A text shorter than ``shortest`` gives one row, of all it has.
    """
    last = model.config.num_hidden_layers
    ids = tokenizer(" " + text, truncation=True, max_length=max_tokens)["input_ids"]
    hidden = read_batch(model, [ids], [last])[0][last][0]
    lengths = [shortest * 2**power for power in range(20) if shortest * 2**power <= len(hidden)] or [len(hidden)]
    return pd.DataFrame(describe_hidden(hidden[:length]) for length in lengths)


def operation_effects(rows: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """What each operation changes, paired by text, with bootstrap intervals over texts.

    Returns:
        The columns ``operation, measure, estimate, low, high, n``; the estimate is the mean of the text after the
        operation less the text as it is.
    """
    found = []
    for measure in MEASURES:
        wide = rows.pivot(index="text", columns="operation", values=measure)
        for operation in [name for name in rows["operation"].unique() if name != UNTOUCHED]:
            difference = (wide[operation] - wide[UNTOUCHED]).dropna()
            if len(difference):
                effect = bootstrap_interval(difference.to_numpy(), level=level)
                found.append({"operation": operation, "measure": measure, "estimate": effect.estimate,
                              "low": effect.low, "high": effect.high, "n": effect.n})  # fmt: skip
    return pd.DataFrame(found, columns=["operation", "measure", "estimate", "low", "high", "n"])


@torch.no_grad()
def spectra(hidden: Tensor) -> pd.DataFrame:
    """Column norms and singular values of normalised ``hidden [tokens, width]``, falling: ``kind, rank, value``."""
    singular = (covariance_spectrum(hidden.double()) * len(hidden)).sqrt().flip(0)
    columns = column_norms(hidden).sort(descending=True)[0]
    return pd.concat(
        [
            pd.DataFrame({"kind": kind, "rank": range(1, len(values) + 1), "value": values.tolist()})
            for kind, values in (("column norm", columns), ("singular value", singular))
        ],
        ignore_index=True,
    )


def _ends(hidden: Tensor) -> dict[str, float]:
    without = describe_hidden(hidden[1:])
    return {**describe_hidden(hidden), "mnn_without_first": without["mnn"], "entropy_without_first": without["entropy"]}


def _layer(hidden: Tensor, operation: str, text: int, layer: int) -> dict[str, object]:
    found = describe_hidden(hidden)
    kept = {name: found[name] for name in ("mnn", "bound", "mnn_over_bound", "entropy")}
    return {"operation": operation, "text": text, "layer": layer, **kept}
