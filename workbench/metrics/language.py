"""How well a language model predicts held-out text, and how near it comes to its teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import check_positive, check_same_shape
from workbench.models.next_token import logits_of

if TYPE_CHECKING:
    from torch import nn

HEAD = 10  # tokens (TAID, Shing et al. 2025, table 3)
TAIL = 0.2  # the lowest fifth of the teacher's ranking: percentiles 80 to 100 (same table)


@dataclass
class LanguageScores:
    """Sums over positions, so that a long text can be added window by window."""

    bytes_per_token: float = 1.0
    positions: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        logits: Tensor,
        labels: Tensor,
        teacher_log_probs: Tensor | None = None,
        ranks: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Count logits ``[..., vocab]`` against labels ``[...]`` and the teacher's log-probabilities.

        ``ranks`` is :func:`head_and_tail` of the teacher, when the caller compares several students to it.
        """
        student = torch.log_softmax(logits.detach().float(), dim=-1)
        self.positions += labels.numel()
        self._sum("nats_per_token", -student.gather(-1, labels[..., None]))
        self._sum("accuracy", (student.argmax(-1) == labels).float())
        if teacher_log_probs is None:
            return
        check_same_shape(student=student, teacher=teacher_log_probs)
        q, p = student.exp(), teacher_log_probs.exp()
        self._sum("kl_to_teacher", _divergence(p, teacher_log_probs, student))
        self._sum("reverse_kl_to_teacher", _divergence(q, student, teacher_log_probs))
        head, tail = head_and_tail(teacher_log_probs) if ranks is None else ranks
        self._sum("head_mass", q.gather(-1, head))
        self._sum("tail_mass", q.gather(-1, tail))

    def result(self) -> dict[str, float]:
        """Means: ``nats`` per byte, ``nats_per_token``, ``accuracy``, and to the teacher (NaN without one)
        ``kl_to_teacher``, ``reverse_kl_to_teacher`` (nats per token), ``head_mass``, ``tail_mass``.

        Raises:
            ValueError: nothing was added.
        """
        if not self.positions:
            raise ValueError("no position was added: there is nothing to score.")
        wanted = (
            "nats_per_token", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher", "head_mass", "tail_mass",
        )  # fmt: skip
        means = {name: self.sums.get(name, math.nan) / self.positions for name in wanted}
        return {"nats": means["nats_per_token"] / self.bytes_per_token, **means}

    def _sum(self, name: str, values: Tensor) -> None:
        wide = values.cpu() if values.device.type == "mps" else values  # that device has no float64
        self.sums[name] = self.sums.get(name, 0.0) + wide.double().sum().item()


def head_and_tail(teacher_log_probs: Tensor, *, head: int = HEAD, tail: float = TAIL) -> tuple[Tensor, Tensor]:
    """Indices ``[..., k]`` of the tokens that the teacher ranks highest, and of its lowest ``tail`` share.

    The head has at most a fifth of the vocabulary, so that in a vocabulary of characters it stays a head.
    Mass of a student on them: TAID (Shing et al. 2025), table 3.
    """
    vocabulary = teacher_log_probs.shape[-1]
    order = teacher_log_probs.argsort(dim=-1, descending=True, stable=True)
    return order[..., : min(head, math.ceil(vocabulary / 5))], order[..., math.floor((1 - tail) * vocabulary) :]


def _divergence(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (log_p - log_q), 0.0)


@torch.no_grad()
def held_out_scores(
    model: nn.Module,
    windows: Tensor,
    *,
    bytes_per_token: float,
    teacher_log_probs: Tensor | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """:meth:`LanguageScores.result` of ``model`` on windows ``[windows, time + 1]``.

    ``teacher_log_probs`` ``[windows, time, vocab]`` are those of :func:`log_probabilities` on the same windows.
    """
    check_positive(bytes_per_token=bytes_per_token, batch_size=batch_size)
    scores = LanguageScores(bytes_per_token)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    for start in range(0, len(windows), batch_size):
        part = windows[start : start + batch_size].to(device)
        teacher = None if teacher_log_probs is None else teacher_log_probs[start : start + batch_size].to(device)
        scores.add(logits_of(model, part[:, :-1]), part[:, 1:], teacher)
    model.train(training)
    return scores.result()


@torch.no_grad()
def log_probabilities(model: nn.Module, windows: Tensor, *, batch_size: int = 64) -> Tensor:
    """Float32 log-probabilities ``[windows, time, vocab]`` of every next token of windows ``[windows, time + 1]``."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    parts = [
        torch.log_softmax(logits_of(model, windows[start : start + batch_size, :-1].to(device)).float(), dim=-1).cpu()
        for start in range(0, len(windows), batch_size)
    ]
    model.train(training)
    return torch.cat(parts)
