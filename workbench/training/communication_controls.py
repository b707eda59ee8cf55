"""What talking is held against: hints, and the same extra modules without any talk.

Every module here answers ``forward(inputs, lower, upper)`` as
:class:`~workbench.training.interactive.InteractiveDistiller` does: ``logits`` and errors by row.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from workbench.models.splits import SplitModel
from workbench.training.interactive import plain_error, relative_error, scaled_error, talk_modules


class Alone(nn.Module):
    """The student by itself: labels only, or soft labels that the loss brings along."""

    def __init__(self, student: SplitModel):
        super().__init__()
        self.student, self.added_parameters = student, 0

    def calibrate(self, lower: Tensor, upper: Tensor) -> Self:
        """Nothing to measure."""
        return self

    def forward(self, inputs: Tensor, lower: Tensor, upper: Tensor) -> dict[str, Tensor]:
        """``logits [batch, classes]``."""
        return {"logits": self.student(inputs)}


class Hint(nn.Module):
    """FitNets' hints (Romero et al. 2015): a linear regressor from each of the student's states to the teacher's.

    Regressors see the teacher's states divided by their spread, so that no layer counts more than the other.
    """

    def __init__(self, student: SplitModel, teacher: SplitModel):
        super().__init__()
        self.student = student
        self.lower, self.upper = (nn.Linear(student.hidden_dim, teacher.hidden_dim) for _ in range(2))
        for name in ("lower_centre", "upper_centre"):
            self.register_buffer(name, torch.zeros(1, teacher.hidden_dim))
        for name in ("lower_scale", "upper_scale"):
            self.register_buffer(name, torch.ones(1, 1))
        self.added_parameters = sum(part.numel() for layer in (self.lower, self.upper) for part in layer.parameters())

    @torch.no_grad()
    def calibrate(self, lower: Tensor, upper: Tensor) -> Self:
        """Take centre and spread of the teacher's states ``[examples, hidden]``."""
        for name, states in (("lower", lower), ("upper", upper)):
            centre = states.mean(0, keepdim=True)
            getattr(self, f"{name}_centre").copy_(centre)
            getattr(self, f"{name}_scale").fill_(float((states - centre).square().mean().sqrt()))
        return self

    def forward(self, inputs: Tensor, lower: Tensor, upper: Tensor) -> dict[str, Tensor]:
        """``logits [batch, classes]`` and the error ``hint [batch]``."""
        mine_lower, mine_upper = self.student.states(inputs)
        wanted_lower = (lower - self.lower_centre) / self.lower_scale
        wanted_upper = (upper - self.upper_centre) / self.upper_scale
        errors = [
            (self.lower(mine_lower) - wanted_lower).square().mean(-1),
            (self.upper(mine_upper) - wanted_upper).square().mean(-1),
        ]
        return {"logits": self.student.head(mine_upper), "hint": torch.stack(errors).mean(0)}


class SameModules(nn.Module):
    """The four networks of a talk, used without one: its gain may come from the parameters alone.

    Args:
        hints: True lets them carry hints both ways (student's state -> message -> teacher's state, and back);
            False lets the student talk to itself through all four, with no layer of the teacher between.
    """

    def __init__(self, student: SplitModel, teacher: SplitModel, *, message_dim: int, hints: bool):
        super().__init__()
        self.student, self.hints = student, hints
        self.student_talk, self.teacher_talk = talk_modules(student, teacher, message_dim)
        self.added_parameters = self.student_talk.parameter_count + self.teacher_talk.parameter_count

    def calibrate(self, lower: Tensor, upper: Tensor) -> Self:
        """Take the scale of the teacher's states ``[examples, hidden]``, as a talk does."""
        self.teacher_talk.calibrate(torch.cat([lower, upper]))
        return self

    def forward(self, inputs: Tensor, lower: Tensor, upper: Tensor) -> dict[str, Tensor]:
        """``logits [batch, classes]`` and ``hint [batch]``, or the self-talk's ``proposals`` and ``agreement``."""
        mine_lower, mine_upper = self.student.states(inputs)
        found = {"logits": self.student.head(mine_upper)}
        ours, theirs = self.student_talk, self.teacher_talk
        if not self.hints:
            proposed = ours.decode(theirs.encode(theirs.decode(ours.encode(mine_lower))))
            proposals = self.student.head(proposed).unsqueeze(1)
            return found | {"proposals": proposals, "agreement": plain_error(mine_upper, proposed)}
        errors = []
        for mine, wanted in ((mine_lower, lower), (mine_upper, upper)):
            errors.append(scaled_error(theirs, theirs.decode(ours.encode(mine)), wanted))
            errors.append(relative_error(ours.decode(theirs.encode(wanted)), mine.detach()))
        return found | {"hint": torch.stack(errors).mean(0)}
