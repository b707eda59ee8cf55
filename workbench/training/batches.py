"""Windows of a token stream: random ones to train on, fixed ones to be judged on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from workbench.errors import check_positive


def random_windows(tokens: np.ndarray, *, context: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches ``[batch, context + 1]`` cut from ``tokens`` at random; the order depends on ``seed`` alone.

    The first ``context`` columns are inputs, the last ``context`` what comes next.

    Raises:
        ValueError: the text is shorter than one window.
    """
    check_positive(batch_size=batch_size)
    _check_length(tokens, context)
    return _windows(tokens, context, batch_size, np.random.default_rng(seed))


def _windows(tokens: np.ndarray, context: int, batch_size: int, random: np.random.Generator) -> Iterator[Tensor]:
    inside = np.arange(context + 1)
    while True:
        starts = random.integers(0, len(tokens) - context, size=batch_size)
        yield torch.from_numpy(tokens[starts[:, None] + inside].astype(np.int64))


def fixed_windows(tokens: np.ndarray, *, context: int, count: int | None = None) -> Tensor:
    """At most ``count`` windows ``[windows, context + 1]`` spread evenly over ``tokens``, no target in two of them.

    ``None`` takes all that fit.

    Raises:
        ValueError: the text is shorter than one window.
    """
    _check_length(tokens, context)
    fit = (len(tokens) - 1) // context
    count = fit if count is None else min(count, fit)
    check_positive(count=count)
    starts = (np.arange(count) * fit // count) * context
    return torch.from_numpy(tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64))


def _check_length(tokens: np.ndarray, context: int) -> None:
    check_positive(context=context)
    if len(tokens) < context + 1:
        raise ValueError(
            f"the text has {len(tokens)} tokens, fewer than one window of context + 1 = {context + 1}: "
            "take a longer text or a smaller context."
        )
