"""Every loss that can pull a student, by name, in one form: ``f(student, teacher, labels, mask)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workbench.errors import check_choice

Pull = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # student, teacher [..., vocab], labels, mask [...]


def bd_kd_student(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, *, delta: float = 2.0,
    mode: str = "sample", direction: str = "match", temperature: float = 1.0,
) -> Tensor:  # fmt: skip
    """The student's part of :func:`workbench.losses.bd_kd`, beside a teacher that does not learn."""
    from workbench.losses.bd_kd import bd_kd

    return bd_kd(
        student_logits, teacher_logits, mask, delta=delta, mode=mode, direction=direction, temperature=temperature
    ).student_loss


def standardized_kl(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, *, temperature: float = 2.0
) -> Tensor:
    """Forward KL of standardised logits (Sun et al. 2024), which leave a student the scale of its own."""
    from workbench.losses.divergence import forward_kl
    from workbench.losses.matching import standardize_logits

    return forward_kl(
        standardize_logits(student_logits, mask),
        standardize_logits(teacher_logits, mask),
        mask,
        temperature=temperature,
    )


def topk_kl_of_logits(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, *, k: int = 16, tail: bool = True,
    temperature: float = 1.0,
) -> Tensor:  # fmt: skip
    """:func:`workbench.losses.topk_kl` with the ``k`` likeliest tokens of a teacher that is at hand."""
    from workbench.losses.sparse import topk_kl

    teacher = teacher_logits.detach()
    top = teacher.log_softmax(-1).topk(min(k, teacher.shape[-1]), dim=-1)
    return topk_kl(student_logits, top.values, top.indices, mask, tail=tail, temperature=temperature)


MADE_HERE: Mapping[str, Callable[..., Tensor]] = {
    "bd_kd": bd_kd_student,
    "standardized_kl": standardized_kl,
    "topk_kl": topk_kl_of_logits,
}


def loss_names() -> tuple[str, ...]:
    """What an objective's ``loss`` may be called, besides ``none``."""
    from workbench.losses.names import LOSSES, NEEDS_LABELS

    return (*LOSSES, *NEEDS_LABELS, *MADE_HERE, "curriculum_temperature")


def pull_by_name(name: str, options: Mapping[str, Any]) -> Pull:
    """The loss called ``name`` with its options set; ``taid`` and ``curriculum_temperature`` have a state and are not.

    Raises:
        UnknownName: no such loss or option ("did you mean").
        ValueError: an option outside its range.
    """
    from workbench.losses.names import NEEDS_LABELS, loss_by_name

    if name in MADE_HERE:
        known = [one.name for one in inspect.signature(MADE_HERE[name]).parameters.values()
                 if one.kind is one.KEYWORD_ONLY]  # fmt: skip
        for option in options:
            check_choice(f"option of {name}", option, known)
        loss = partial(MADE_HERE[name], **options)
        loss(torch.zeros(1, 2), torch.zeros(1, 2))  # tried at once: a wrong value is refused before any training
        return without_labels(loss)
    loss = loss_by_name(name, **options)
    return loss if name in NEEDS_LABELS else without_labels(loss)


def without_labels(loss: Callable[..., Tensor]) -> Pull:
    """``f(student, teacher, mask)`` in the form that is given labels too."""
    return lambda student, teacher, _labels, mask: loss(student, teacher, mask)


class LearntTemperature:
    """:class:`workbench.losses.CurriculumTemperature` with the optimiser of its one parameter.

    One step of it belongs to one step of the student. The original trains both with one optimiser; here the
    student's AdamW would move theta by its learning rate however small its gradient is, so theta has plain descent
    with the original's momentum.
    """

    def __init__(self, options: Mapping[str, Any], *, total_steps: int) -> None:
        from workbench.losses.curriculum import CurriculumTemperature

        known = [*inspect.signature(CurriculumTemperature).parameters, "lr"]
        for option in options:
            check_choice("option of curriculum_temperature", option, known)
        chosen = {"ramp": max(1, total_steps // RAMP), **options}
        lr = chosen.pop("lr", THETA_LR)
        self.curriculum = CurriculumTemperature(**chosen)
        self.optimizer = torch.optim.SGD(self.curriculum.parameters(), lr=lr, momentum=0.9)

    def __call__(self, student: Tensor, teacher: Tensor, _labels: Tensor, mask: Tensor | None) -> Tensor:
        return self.curriculum.to(student.device)(student, teacher, mask)

    @property
    def temperature(self) -> float:
        """What the student's next loss is softened by."""
        return self.curriculum.temperature

    def advance(self) -> None:
        """End of an optimiser step: theta moves against the student."""
        gradient = self.curriculum.theta.grad
        if gradient is not None and bool(gradient.isfinite()):  # one NaN would stay in it for ever
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.curriculum.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"curriculum": self.curriculum.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.curriculum.load_state_dict(state["curriculum"])
        self.optimizer.load_state_dict(state["optimizer"])


RAMP = 24  # of a run is over when the curriculum is at its full strength: 10 of about 240 epochs
THETA_LR = 0.05  # as the original trains its networks
