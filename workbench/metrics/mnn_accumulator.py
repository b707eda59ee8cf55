"""The matrix nuclear norm over many texts, batch by batch, and of one text that does not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.metrics.hidden_matrix import check_hidden, token_mean, wide_dtype
from workbench.metrics.nuclear_norm import matrix_nuclear_norm, sum_of_largest
from workbench.metrics.uncertainty import Effect, bootstrap_interval


@dataclass
class MNNAccumulator:
    """Adds batches of texts and keeps one number a text; those without a direction are counted, not averaged."""

    top: int | None = None
    per_token: bool = True
    values: list[float] = field(default_factory=list)  # of the texts that have one, in order
    skipped: int = 0  # texts of no token, one token or equal tokens

    def add(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Count texts ``[batch, time, width]`` or one ``[tokens, width]``; the numbers of this batch, NaN included.

        Raises:
            TypeError, ValueError: as :func:`workbench.metrics.nuclear_norm.matrix_nuclear_norm`; nothing is counted.
        """
        found = matrix_nuclear_norm(hidden, top=self.top, per_token=self.per_token, mask=mask)
        for value in found.flatten().tolist():
            if math.isnan(value):
                self.skipped += 1
            else:
                self.values.append(value)
        return found

    def merge(self, other: MNNAccumulator) -> None:
        """Count what another process has counted.

        Raises:
            ValueError: it summed other columns or divided otherwise.
        """
        if (other.top, other.per_token) != (self.top, self.per_token):
            raise ValueError(
                f"one accumulator has top={self.top}, per_token={self.per_token}, the other top={other.top}, "
                f"per_token={other.per_token}: their numbers do not average."
            )
        self.values += other.values
        self.skipped += other.skipped

    @property
    def mean(self) -> float:
        """Over the texts that have a number; NaN before there is one."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    def effect(self, *, level: float = 0.95, seed: int = 0) -> Effect:
        """The mean with its bootstrap interval over texts.

        Raises:
            ValueError: no text has a number.
        """
        return bootstrap_interval(self.values, level=level, seed=seed)


def long_text_nuclear_norm(
    pieces: Callable[[], Iterable[Tensor]], *, top: int | None = None, per_token: bool = True
) -> Tensor:
    """The matrix nuclear norm of one text whose hidden states come in pieces, of which one is held at a time.

    Args:
        pieces: called twice; each time it yields ``[tokens, width]`` pieces, the same in the same order. The mean
            over all tokens must be known before any row's length is.
        top, per_token: as :func:`workbench.metrics.nuclear_norm.matrix_nuclear_norm`.

    Raises:
        TypeError, ValueError: as there; pieces of different width, or a second reading that has other tokens.
    """
    tokens, total, dtype = 0, None, torch.float32
    for piece in pieces():
        check_hidden(piece, argument="a piece")
        _check_width(piece, total)
        dtype = wide_dtype(piece)
        total = piece.double().sum(0) if total is None else total + piece.double().sum(0)
        tokens += len(piece)
    if total is None or tokens < 1:
        return torch.tensor(math.nan)
    mean, nothing = token_mean((total / tokens).to(dtype)[None])
    nothing *= tokens
    squares, seen = torch.zeros_like(mean), 0
    for piece in pieces():
        _check_width(piece, total)
        parts = F.mse_loss(piece.detach().to(dtype), mean.expand_as(piece), reduction="none")
        lengths = parts.sum(1)
        squares.addmv_(parts.t(), lengths.masked_fill_(lengths <= nothing, math.nan).reciprocal_())
        seen += len(piece)
    if seen != tokens:
        raise ValueError(f"the first reading had {tokens} tokens, the second {seen}: pieces must yield the same twice.")
    most = min(tokens, len(mean))
    if top is not None and not 1 <= top <= most:
        raise ValueError(f"top={top} must lie from 1 to min(tokens, width) = {most}.")
    summed = sum_of_largest(squares.sqrt_(), most if top is None else top)
    return summed / tokens if per_token else summed


def _check_width(piece: Tensor, total: Tensor | None) -> None:
    if total is not None and piece.shape[1] != len(total):
        raise ValueError(f"a piece has width {piece.shape[1]}, those before it {len(total)}: one text has one width.")
