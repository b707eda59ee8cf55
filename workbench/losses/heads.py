"""A model's last layer, hidden states to logits, a few rows at a time and without autograd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 1024  # words that a thread multiplies at once: with a few hundred rows their products stay in its cache


@dataclass(frozen=True)
class Head:
    """``hidden [..., width] @ weight [vocab, width].T + bias``, then ``softcap * tanh(. / softcap)``.

    Products are made for one tile of the vocabulary after the other: where ``matmul_dtype`` is not that of
    the weight, only a tile is ever converted.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    matmul_dtype: torch.dtype

    def rows(self, positions: Tensor) -> Tensor:
        """Hidden states ``[rows, width]`` at flat ``positions``; states without a flat view are not copied whole."""
        shape = self.hidden.shape[:-1]
        found = self.hidden[tuple(torch.unravel_index(positions, shape)) if len(shape) > 1 else positions]
        return found.reshape(len(positions), -1).to(self.matmul_dtype)

    def project(self, hidden: Tensor, *, out: Tensor) -> None:
        """Write ``hidden @ weight.T`` into ``out [rows, vocab]``; bias and cap come with :meth:`finish`."""
        for tile, weight in self._tiles():
            torch.mm(hidden, weight.t(), out=out[:, tile])

    def finish(self, logits: Tensor) -> Tensor:
        """Add the bias and cap the projected rows ``[rows, vocab]`` in place."""
        if self.bias is not None:
            logits.add_(self.bias)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def through_cap(self, slope: Tensor, logits: Tensor) -> Tensor:
        """The slope ``[rows, vocab]`` before the cap, from that after it (in place) and the capped logits."""
        if self.softcap is None:
            return slope
        return slope.mul_((logits / self.softcap).square_().neg_().add_(1))

    def gradients(
        self,
        slope: Tensor,
        hidden: Tensor,
        *,
        of_hidden: Tensor | None,
        of_weight: Tensor | None,
        scale: float,
        first: bool,
    ) -> None:
        """Add to ``of_hidden [rows, width]`` and ``of_weight [vocab, width]`` what ``slope [rows, vocab]`` gives.

        ``of_weight`` need not be set before the ``first`` rows. Sums are in the dtype of the two.
        """
        for tile, weight in self._tiles():
            part = slope[:, tile]
            if of_hidden is not None:
                _add_product(of_hidden, part, weight, scale=scale, first=False)
            if of_weight is not None:
                _add_product(of_weight[tile], part.t(), hidden, scale=scale, first=first)

    def _tiles(self) -> Iterator[tuple[slice, Tensor]]:
        vocab = self.weight.shape[0]
        step = TILE * (torch.get_num_threads() if self.weight.device.type == "cpu" else vocab)
        for start in range(0, vocab, step):
            tile = slice(start, min(start + step, vocab))
            yield tile, self.weight[tile].to(self.matmul_dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, scale: float, first: bool) -> None:
    if left.dtype == total.dtype:
        torch.addmm(total, left, right, beta=0.0 if first else 1.0, alpha=scale, out=total)
    elif first:
        torch.mul(left @ right, scale, out=total)
    else:
        total.add_(left @ right, alpha=scale)


def matmul_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """What a head multiplies in: autocast's type where it is on, else the wider of both; never float16 on a CPU.

    A CPU has no float16 products of its own, and their sums would overflow.
    """
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if dtype != torch.float64 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return torch.float32 if dtype == torch.float16 and device == "cpu" else dtype
