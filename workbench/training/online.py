"""Online distillation: two networks that train together from scratch, and how they pull each other.

Every pull here takes the logits of many pairs at once, ``[pairs, batch, classes]``, and gives one value per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_choice
from workbench.losses import forward_kl, reverse_kl
from workbench.losses.bd_kd import bd_kd, entropies

QUANTITIES = ("overconfident", "student_entropy", "teacher_entropy", "forward_weight", "weights_total")


class Pair(nn.Module):
    """A student and a teacher that see the same pictures; a ``frozen`` teacher only shows what it knows."""

    def __init__(self, student: nn.Module, teacher: nn.Module, *, frozen: bool = False) -> None:
        super().__init__()
        self.student, self.teacher, self.frozen = student, teacher, frozen

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``[batch, 2, classes]``, the student's first, then the teacher's."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            teacher = self.teacher(pictures)
        return torch.stack([self.student(pictures), teacher], dim=1)

    def train(self, mode: bool = True) -> Pair:
        """As any module's, but a frozen teacher stays as it is when used."""
        super().train(mode)
        if self.frozen:
            self.teacher.eval()
        return self


class Pulled(NamedTuple):
    """What two networks ask of each other, and with which weights of the student's two directions."""

    student: Tensor | None  # [pairs, batch], added to its cross-entropy; None: nothing
    teacher: Tensor | None
    forward_weight: Tensor | float = 0.0  # of KL(teacher || student)
    reverse_weight: Tensor | float = 0.0  # of KL(student || teacher)


Pull = Callable[..., Pulled]  # (student_logits, teacher_logits, *, delta, temperature)


def _alone(student: Tensor, teacher: Tensor, *, delta: float, temperature: float) -> Pulled:
    return Pulled(None, None)


def _mutual(
    student: Tensor, teacher: Tensor, *, delta: float, temperature: float, reverse: bool = False, weight: float = 1.0
) -> Pulled:
    """Deep mutual learning (Zhang et al. 2018): each network's forward KL from the other, held fixed."""
    options = {"temperature": temperature, "reduction": "none"}
    pulled = (reverse_kl if reverse else forward_kl)(student, teacher, **options)
    back = forward_kl(teacher, student, **options)
    return Pulled(weight * pulled, back, 0.0 if reverse else weight, weight if reverse else 0.0)


def _balanced(
    student: Tensor, teacher: Tensor, *, delta: float, temperature: float, mode: str, direction: str = "match"
) -> Pulled:
    call = partial(
        bd_kd, delta=delta, mode=mode, direction=direction, temperature=temperature, reduction="none"
    )  # fmt: skip
    if mode != "batch":
        return Pulled(*call(student, teacher))
    # A batch decides by itself, and every pair has its own.
    each = [call(one, other) for one, other in zip(student, teacher, strict=True)]
    return Pulled(*map(torch.stack, zip(*each, strict=True)))


def _taught(student: Tensor, teacher: Tensor, *, delta: float, temperature: float) -> Pulled:
    pulled = forward_kl(student, teacher, temperature=temperature, reduction="none")
    return Pulled(pulled, None, 1.0, 0.0)


PULLS: Mapping[str, Pull] = MappingProxyType(
    {
        "cross_entropy": _alone,  # neither sees the other
        "offline_kd": _taught,  # the teacher was trained before, by cross-entropy alone, and is frozen
        "dml": _mutual,
        "dml_x3": partial(_mutual, weight=3.0),  # as much pull as BD-KD's in all, without the reverse KL
        "reverse_kl": partial(_mutual, reverse=True),
        "fixed": partial(_balanced, mode="fixed"),  # BD-KD's weights in all, without the switch
        "bd_kd": partial(_balanced, mode="sample"),
        "bd_kd_batch": partial(_balanced, mode="batch"),
        "bd_kd_swap": partial(_balanced, mode="sample", direction="swap"),
    }
)
OFFLINE = "offline_kd"


class OnlineLoss:
    """The sum of both networks' losses for each pair, by its own method; gradients do not cross.

    Call it with what gives the logits ``[pairs, batch, 2, classes]`` of pictures ``[pairs, batch, ...]``, and with
    ``(pictures, labels [pairs, batch])``; it returns ``[pairs]``. Each ``record_every``-th call it keeps how sure
    both are, see :meth:`table`.

    Args:
        methods: one name of ``PULLS`` per pair; pairs of one method next to each other cost one call.
        delta: of BD-KD; the control ``fixed`` has the same total.
        temperature: of all divergences.

    Raises:
        UnknownName: a method that there is not ("did you mean").
    """

    def __init__(self, methods: Sequence[str], *, delta: float, temperature: float, record_every: int) -> None:
        for name in methods:
            check_choice("method", name, PULLS)
        self.methods = tuple(methods)
        self._options = {"delta": delta, "temperature": temperature}
        self._every, self._step = record_every, 0
        self._kept: list[tuple[int, dict[str, Tensor]]] = []

    def __call__(self, pairs: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """One loss per pair, ``[pairs]``, each the mean over its batch."""
        pictures, labels = batch
        student, teacher = pairs(pictures).unbind(2)
        student_terms, teacher_terms = _cross_entropy(student, labels), _cross_entropy(teacher, labels)
        totals, weights, start = [], [], 0
        for name, group in groupby(self.methods):
            place = slice(start, start + sum(1 for _ in group))
            start = place.stop
            pulled = PULLS[name](student[place], teacher[place], **self._options)
            total = student_terms[place] if pulled.student is None else student_terms[place] + pulled.student
            if name != OFFLINE:
                total = total + teacher_terms[place]
            totals.append(total if pulled.teacher is None else total + pulled.teacher)
            weights.append([_per_pair(weight, total) for weight in pulled[2:]])
        self._step += 1
        if self._step % self._every == 0 or self._step == 1:
            self._keep(student.detach(), teacher.detach(), weights)
        return torch.cat(totals).mean(1)

    def _keep(self, student: Tensor, teacher: Tensor, weights: list[list[Tensor]]) -> None:
        sure, unsure = entropies(student, student.dtype), entropies(teacher, teacher.dtype)
        forward, reverse = (torch.cat(parts) for parts in zip(*weights, strict=True))
        found = (
            (unsure > sure).float().mean(1), sure.mean(1), unsure.mean(1), forward, forward + reverse,
        )  # fmt: skip
        self._kept.append((self._step, dict(zip(QUANTITIES, found, strict=True))))

    def table(self) -> pd.DataFrame:
        """What was kept: ``pair`` (its place), ``step`` and the columns ``QUANTITIES``, means over the batch.

        ``overconfident`` is the share of samples whose teacher is less sure than the student, entropies are in nats.
        """
        columns = ["pair", "step", *QUANTITIES]
        rows = [
            (pair, step, *(float(found[name][pair]) for name in QUANTITIES))
            for step, found in self._kept
            for pair in range(len(self.methods))
        ]
        return pd.DataFrame(rows, columns=columns)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``[pairs, batch]`` of logits ``[pairs, batch, classes]``."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def _per_pair(weight: Tensor | float, like: Tensor) -> Tensor:
    return weight.mean(1) if isinstance(weight, Tensor) else torch.full((len(like),), float(weight))
