"""Two models that talk: a student asks, a teacher of another task answers with its own layers (a reconstruction).

The paper ("Talking Models", arXiv 2310.03188) published no code. What is fixed by it: each model has an encoder of
messages and a decoder, and the loss is task + interaction + message consistency + state consistency. How the terms
are computed here is our reading, each can be switched off, and nothing here is claimed to be the authors' recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_choice, check_positive
from workbench.models.communication import CommunicationModule
from workbench.models.splits import SplitModel

TERMS = ("interact", "message", "state")
UNLABELLED = -1
_SMALL = 1e-6


class InteractiveDistiller(nn.Module):
    """A student, a teacher, and what they need to talk; only ``student`` is deployed.

    One round: the student's lower state becomes a message, the teacher decodes it into a lower state of its own, runs
    its own layers on it, and its answer, decoded, proposes an upper state to the student. A further round begins with
    the state that was proposed; terms are means over the rounds, so that more rounds do not weigh more. The terms:

    - ``interact``: the student's upper state is close to the proposed one, and its head finds the label from that;
    - ``message``: what the student would say of its upper state is what the teacher says of its own. Messages are
      compared by direction and the teacher's takes no gradient, so that silence does not fulfil it;
    - ``state``: what a model encodes it can decode again; it trains the modules, never the states.

    A frozen teacher stays in evaluation mode, is shared by copies of this module's parameters (it is not among
    them, nor in ``state_dict``), and gradients pass through it to the student while its weights get none.

    Args:
        student_split: with a head.
        teacher_split: its states may have another width; its head is not used.
        message_dim: width of a message.
        rounds: questions per input.
        weights: of ``interact``, ``message``, ``state``; those left out are 0, None is 1 for all.
        depth: linear layers of each encoder and decoder.
        freeze_teacher: False trains the teacher, too, through its answers; it then is a part of this module.

    Raises:
        ValueError: a student without head, an unknown term ("did you mean"), a negative weight, or no round.
    """

    def __init__(
        self,
        student_split: SplitModel,
        teacher_split: SplitModel,
        *,
        message_dim: int = 32,
        rounds: int = 1,
        weights: Mapping[str, float] | None = None,
        depth: int = 1,
        freeze_teacher: bool = True,
    ):
        super().__init__()
        check_positive(rounds=rounds)
        if student_split.head is None:
            raise ValueError("student_split has no head: the student must be able to answer its own task.")
        self.rounds, self.freeze_teacher = rounds, freeze_teacher
        self.weights = checked_weights(weights)
        self.student = student_split
        if freeze_teacher:
            # In a list it is no submodule: neither trained, nor saved, nor copied for every replica.
            self._frozen = [teacher_split.requires_grad_(False).eval()]
        else:
            self.trained_teacher = teacher_split
        self.student_talk, self.teacher_talk = talk_modules(student_split, teacher_split, message_dim, depth=depth)

    @property
    def teacher(self) -> SplitModel:
        """The teacher, frozen or not."""
        return self._frozen[0] if self.freeze_teacher else self.trained_teacher

    @property
    def added_parameters(self) -> int:
        """Weights that exist in training only."""
        return self.student_talk.parameter_count + self.teacher_talk.parameter_count

    def calibrate(self, lower: Tensor, upper: Tensor) -> Self:
        """Take the scale of the teacher's states from examples ``[examples, hidden]`` of both layers."""
        self.teacher_talk.calibrate(torch.cat([lower, upper]))
        return self

    def answer(self, state: Tensor) -> Tensor:
        """The upper state ``[batch, hidden]`` that the teacher proposes for a student's state ``[batch, hidden]``."""
        heard = self.teacher_talk.decode(self.student_talk.encode(state))
        return self.student_talk.decode(self.teacher_talk.encode(self.teacher.upper(heard)))

    def forward(self, inputs: Tensor, lower: Tensor | None = None, upper: Tensor | None = None) -> dict[str, Tensor]:
        """What both say of ``inputs``, for :func:`term_values`.

        Args:
            inputs: of the student, ``[batch, ...]``.
            lower, upper: the teacher's states ``[batch, hidden]`` where they are known already; else the teacher reads
                ``inputs`` itself.

        Returns:
            ``logits [batch, classes]``, ``proposals [batch, rounds, classes]`` and the errors ``agreement``,
            ``message`` and ``state`` ``[batch]``; terms of weight 0 are not computed.
        """
        student_lower, student_upper = self.student.states(inputs)
        found = {"logits": self.student.head(student_upper)}
        if lower is None or upper is None:
            lower, upper = self.read(inputs)
        if self.weights["interact"]:
            state, logits, apart = student_lower, [], []
            for _ in range(self.rounds):
                state = self.answer(state)
                logits.append(self.student.head(state))
                apart.append(plain_error(student_upper, state))
            found |= {"proposals": torch.stack(logits, 1), "agreement": torch.stack(apart, 1).mean(1)}
        if self.weights["message"]:
            said, meant = self.student_talk.encode(student_upper), self.teacher_talk.encode(upper).detach()
            found["message"] = 1 - F.cosine_similarity(said, meant, dim=-1, eps=_SMALL)
        if self.weights["state"]:
            student = [relative_error(echo(self.student_talk, state), state.detach())
                       for state in (student_lower.detach(), student_upper.detach())]  # fmt: skip
            teacher = [scaled_error(self.teacher_talk, echo(self.teacher_talk, state), state)
                       for state in (lower.detach(), upper.detach())]  # fmt: skip
            found["state"] = torch.stack([*student, *teacher]).mean(0)
        return found

    def read(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's states of ``inputs``, without a graph: it learns by answering, not by reading."""
        with torch.no_grad():
            return self.teacher.states(inputs)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen teacher stays in evaluation mode (batch norm, dropout)."""
        super().train(mode)
        if self.freeze_teacher:
            self.teacher.eval()
        return self

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(change, recurse)
        if self.freeze_teacher:  # goes where this module goes
            self.teacher._apply(change, recurse)
        return self


def talk_modules(
    student: SplitModel, teacher: SplitModel, message_dim: int, *, depth: int = 1
) -> tuple[CommunicationModule, CommunicationModule]:
    """The communication modules of both, each with its model's width and range."""
    return tuple(
        CommunicationModule(model.hidden_dim, message_dim, depth, nonnegative=model.nonnegative)
        for model in (student, teacher)
    )


def checked_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Weights of all of :data:`TERMS`.

    Raises:
        ValueError: an unknown term ("did you mean") or a negative weight.
    """
    given = dict.fromkeys(TERMS, 1.0) if weights is None else dict(weights)
    for name, weight in given.items():
        check_choice("weights", name, TERMS)
        if not weight >= 0:
            raise ValueError(f"weights[{name!r}]={weight!r} must be 0 (switched off) or above.")
    return {name: float(given.get(name, 0.0)) for name in TERMS}


def echo(module: CommunicationModule, state: Tensor) -> Tensor:
    """A state ``[batch, hidden]`` said to oneself: encoded and decoded."""
    return module.decode(module.encode(state))


def plain_error(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared distance in the student's own scale, ``[batch, hidden] -> [batch]``; both sides may move."""
    # Not relative: divided by its size, a small state is pulled so hard that all states become one.
    return (one - other).square().mean(-1)


def relative_error(one: Tensor, other: Tensor) -> Tensor:
    """Squared distance over the squared size of ``other``, ``[batch, hidden] -> [batch]``: the same at any scale."""
    size = other.detach().square().sum(-1)
    return (one - other).square().sum(-1) / (size + _SMALL)


def scaled_error(module: CommunicationModule, one: Tensor, other: Tensor) -> Tensor:
    """Mean squared distance in the scale that ``module`` was calibrated to, ``[batch, hidden] -> [batch]``."""
    return ((one - other) / module.scale).square().mean(-1)


def term_values(found: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """The terms of the loss, ``task`` among them, of what a distiller's forward found; means over the batch.

    Args:
        found: tensors ``[..., batch, ...]`` as :meth:`InteractiveDistiller.forward` gives them.
        labels: ``[..., batch]`` of classes, :data:`UNLABELLED` where there is none.

    Returns:
        ``name -> [...]``: one number for each leading index (a replica).
    """
    values = {"task": labelled_cross_entropy(found["logits"], labels)}
    if "proposals" in found:
        rounds = found["proposals"].shape[-2]
        repeated = labels.unsqueeze(-1).expand(*labels.shape, rounds)
        guesses = labelled_cross_entropy(found["proposals"].flatten(-3, -2), repeated.flatten(-2))
        agreement = found["agreement"].mean(-1) if "agreement" in found else 0.0
        values["interact"] = guesses + agreement
    rest = {name: tensor.mean(-1) for name, tensor in found.items() if name not in ("logits", "proposals", "agreement")}
    return values | rest


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled rows, ``[..., batch, classes] -> [...]``; 0 where none is labelled."""
    counts = labels != UNLABELLED
    losses = F.cross_entropy(logits.flatten(0, -2), labels.clamp(min=0).flatten(), reduction="none").view(labels.shape)
    return (losses * counts).sum(-1) / counts.sum(-1).clamp(min=1)


def total(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the terms; the task has weight 1."""
    return values["task"] + sum(weights[name] * value for name, value in values.items() if name != "task")


def interactive_loss(distiller: InteractiveDistiller, batch: Any) -> Tensor:
    """The loss of a batch ``(inputs, labels)`` or ``(inputs, labels, lower, upper)``, for :func:`fit`."""
    inputs, labels, *states = batch
    return total(term_values(distiller(inputs, *states), labels), distiller.weights)
