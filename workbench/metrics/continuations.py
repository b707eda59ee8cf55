"""Log-likelihood of continuations of a shared context, read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_positive
from workbench.progress import progress

START = "\n"  # stands before a text without context: every vocabulary can write it, every model has read on after it


@dataclass(frozen=True)
class Continuations:
    """Token ids of what several texts have in common at their beginning, and of what each goes on with."""

    shared: list[int]  # at least one
    rest: list[list[int]]  # each at least one

    @property
    def tokens(self) -> int:
        """What the model is fed when the common beginning is read once."""
        return len(self.shared) - 1 + sum(map(len, self.rest))


def encode_continuations(
    tokenizer: Any,
    contexts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_length: int | None = None,
    beyond_context: bool = False,
) -> list[Continuations]:
    """Cut ``context + choice`` of every choice into tokens, as one text, and part them where they still agree.

    Where a vocabulary melts the end of the context into the first token of a choice, that token belongs to the
    rest of every choice: all of them still spell the same characters of the context, so that they can be compared.

    Args:
        contexts: one for each group of choices; an empty one becomes a line break.
        choices: the continuations of each context.
        max_length: most tokens that a model is fed; a longer context loses its beginning.
        beyond_context: also share what the choices have in common at their own beginning.

    Raises:
        ValueError: a choice that alone is longer than ``max_length``, or that the vocabulary cannot write.
    """
    contexts = [context or START for context in contexts]
    texts = [context + choice for context, group in zip(contexts, choices, strict=True) for choice in group]
    wholes = iter(_encode(tokenizer, texts))
    encoded = []
    for context, own, group in zip(contexts, _encode(tokenizer, contexts), choices, strict=True):
        rows = [next(wholes) for _ in group]
        most = min(map(len, rows)) - 1 if beyond_context else min(len(own), min(map(len, rows)) - 1)
        common = _common([*rows] if beyond_context else [own, *rows], most)
        if common == 0:  # even the first token differs: both parts are then cut by themselves
            rows = [own + row for row in _encode(tokenizer, list(group))]
            common = len(own)
        parts = Continuations(rows[0][:common], [row[common:] for row in rows])
        encoded.append(_shortened(parts, max_length, context))
    return encoded


def log_likelihoods(
    model: nn.Module,
    groups: Sequence[Continuations],
    *,
    batch_size: int,
    share_context: bool = True,
    label: str = "",
) -> list[list[float]]:
    """Nats of each continuation given what is shared, in the order given; sums over tokens in float64.

    Args:
        model: a causal language model of transformers, quantised or not; it is left in the mode it was in.
        batch_size: groups that are run together.
        share_context: read the common beginning once and continue from its keys and values; ``False`` reads it
            again with every choice, for models that keep none.
    """
    check_positive(batch_size=batch_size)
    # Groups of like length together: less padding.
    order = sorted(range(len(groups)), key=lambda index: (len(groups[index].shared), groups[index].tokens))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found: list[list[float]] = [[] for _ in groups]
    run = _run_shared if share_context else _run_whole
    with evaluating(model) as device:
        for batch in progress(batches, label=label):
            for index, values in zip(batch, run(model, [groups[index] for index in batch], device), strict=True):
                found[index] = values
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients inside the block, on the device that it names; afterwards as before."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(chain(model.parameters(), model.buffers())).device
    finally:
        model.train(training)


def most_tokens(model: nn.Module) -> int | None:
    """The longest text that ``model`` was made for, in tokens; None where it does not say."""
    return getattr(getattr(model, "config", None), "max_position_embeddings", None)


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for text, ids in zip(texts, encoded, strict=True):
        if not ids:
            raise ValueError(f"the vocabulary has no token for {text!r}: it cannot be scored.")
    return encoded


def _common(rows: Sequence[Sequence[int]], most: int) -> int:
    for place in range(most):
        if len({row[place] for row in rows}) > 1:
            return place
    return most


def _shortened(parts: Continuations, most: int | None, context: str) -> Continuations:
    longest = max(map(len, parts.rest))
    if most is None or len(parts.shared) + longest - 1 <= most:
        return parts
    if longest > most:
        raise ValueError(
            f"a choice after {context[-40:]!r} has {longest} tokens, more than the {most} that the model may be fed: "
            "give shorter choices or raise max_length."
        )
    return Continuations(parts.shared[longest - most - 1 :], parts.rest)


def _run_shared(model: nn.Module, groups: list[Continuations], device: torch.device) -> list[list[float]]:
    from transformers import DynamicCache

    # The last shared token goes with each choice, so that all logits that are needed come out of one pass.
    prefixes = [group.shared[:-1] for group in groups]
    if not any(prefixes):
        return _run_whole(model, groups, device)
    ids, mask = _padded(prefixes, device)
    cache = DynamicCache(config=model.config)
    model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
    owner = torch.tensor([index for index, group in enumerate(groups) for _ in group.rest], device=device)
    cache.batch_select_indices(owner)
    rows = [[group.shared[-1], *rest] for group in groups for rest in group.rest]
    ids, own_mask = _padded([row[:-1] for row in rows], device)
    lengths = mask.sum(-1)[owner]
    logits = model(
        input_ids=ids,
        attention_mask=torch.cat([mask[owner], own_mask], dim=-1),
        position_ids=lengths[:, None] + torch.arange(ids.shape[1], device=device),
        past_key_values=cache,
        use_cache=True,
    ).logits
    return _by_group(groups, [_nats(logits[index], row[1:], 0) for index, row in enumerate(rows)])


def _run_whole(model: nn.Module, groups: list[Continuations], device: torch.device) -> list[list[float]]:
    rows = [(group.shared, rest) for group in groups for rest in group.rest]
    ids, mask = _padded([shared + rest[:-1] for shared, rest in rows], device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return _by_group(groups, [_nats(logits[index], rest, len(shared) - 1) for index, (shared, rest) in enumerate(rows)])


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids ``[batch, time]``, filled up on the right, and which of them count (1 or 0)."""
    # On the right every place that fills up still sees a real token: on the left some would see none, and NaN arise.
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    return ids, mask


def _nats(logits: Tensor, targets: list[int], start: int) -> float:
    """Log-likelihood of ``targets`` under logits ``[time, vocab]`` from place ``start`` on."""
    wanted = torch.tensor(targets, device=logits.device)
    # Row by row: log-probabilities of a whole batch would double the largest tensor of all.
    losses = F.cross_entropy(logits[start : start + len(targets)].float(), wanted, reduction="none")
    return -float(losses.cpu().double().sum())


def _by_group(groups: list[Continuations], values: list[float]) -> list[list[float]]:
    following = iter(values)
    return [[next(following) for _ in group.rest] for group in groups]
