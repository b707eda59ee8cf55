"""A temperature that is learnt against the student (Li et al. 2023, CTKD)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from workbench.errors import check_positive
from workbench.losses.closed_form import closed_form_loss
from workbench.losses.divergence import forward_kl
from workbench.losses.kernels import gap_and_probabilities, sum_possible


class CurriculumTemperature(nn.Module):
    r"""Forward KL at a temperature that makes itself as hard for the student as its curriculum allows.

    .. math:: \tau^2 KL(p_\tau \| q_\tau), \qquad \tau = \tau_{min} + (\tau_{max} - \tau_{min})\, \sigma(\theta)

    The student goes down this loss; theta is given ``strength`` times its gradient, which falls
    from 0 to -1 along a cosine, so that the same optimiser takes theta *up*. Give theta to the
    optimiser (``curriculum.parameters()``) and call :meth:`step` once per epoch, as the original does, or per
    optimiser step with as many in ``ramp``.

    Args:
        ramp: calls of :meth:`step` until ``strength`` is -1 (the original: 10 epochs).
        theta: where the parameter begins; 1 is a temperature of 15.6.
        low, span: the temperature lies between ``low`` and ``low + span`` (the original: 1 and 20).

    Raises:
        ValueError: ``ramp``, ``low`` or ``span`` not above 0, a ``theta`` that is not finite.

    >>> curriculum = CurriculumTemperature()
    >>> round(curriculum.temperature, 2), curriculum.strength
    (15.62, 0.0)
    """

    def __init__(self, *, ramp: int = 10, theta: float = 1.0, low: float = 1.0, span: float = 20.0) -> None:
        super().__init__()
        check_positive(ramp=ramp, low=low, span=span)
        if not math.isfinite(theta):
            raise ValueError(f"theta={theta!r} must be a finite number.")
        self.ramp, self.low, self.span = ramp, low, span
        self.theta = nn.Parameter(torch.tensor(float(theta)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def temperature(self) -> float:
        """The temperature now, a number without a gradient: for a curve, or for other losses."""
        return float(self._temperature().detach())

    @property
    def strength(self) -> float:
        """What theta's gradient is multiplied by: 0 at first, -1 from ``ramp`` steps on."""
        way = min(1.0, int(self.steps) / self.ramp)
        return (math.cos(math.pi * way) - 1) / 2

    def step(self) -> None:
        """One epoch (or optimiser step, as ``ramp`` is counted) is over."""
        self.steps += 1

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        mask: Tensor | None = None,
        *,
        scale_by_t2: bool = True,
        reduction: str = "token_mean",
        num_items: float | Tensor | None = None,
    ) -> Tensor:
        """The loss at the present temperature; arguments, result and errors as in :func:`forward_kl`."""
        temperature = self._temperature()
        now = float(temperature.detach())
        common = {"scale_by_t2": scale_by_t2, "reduction": reduction, "num_items": num_items}
        loss = forward_kl(student_logits, teacher_logits, mask, temperature=now, **common)
        if not (temperature.requires_grad and torch.is_grad_enabled()):
            return loss
        strength, slope = self.strength, torch.zeros_like(loss.detach())
        if strength:
            slope = temperature_slope(student_logits, teacher_logits, mask, temperature=now, **common)
        # Adds 0 to the value, and to theta's gradient what a reversal of gradients would let through.
        return loss + (strength * slope) * (temperature - temperature.detach()).to(loss.dtype)

    def _temperature(self) -> Tensor:
        return self.low + self.span * self.theta.sigmoid()

    def extra_repr(self) -> str:
        return f"ramp={self.ramp}, low={self.low}, span={self.span}"


def temperature_slope(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""The derivative of :func:`forward_kl` with respect to its temperature, which softens both sides.

    .. math:: 2 T\, KL - T \sum_v [(q_v - p_v) z_v / T + p_v (g_v - KL)\, y_v / T], \qquad g = \log p - \log q

    z are the student's logits and y the teacher's; without ``scale_by_t2`` the first term is absent and the
    second divided by T^2. Arguments and errors as in :func:`forward_kl`; the result has no gradient.
    """

    def kernel(student: Tensor, teacher: Tensor, _wants_gradient: bool, *, careful: bool = True) -> tuple[Tensor, None]:
        del careful  # summed with care always
        gap, p, q = gap_and_probabilities(student, teacher)
        kl = sum_possible(p * gap, p, q)
        turn = sum_possible((q - p).mul_(student))
        turn.add_(sum_possible(gap.sub_(kl.unsqueeze(-1)).mul_(p).mul_(teacher)))
        value = kl.mul(2 * temperature).sub_(turn, alpha=temperature) if scale_by_t2 else turn.div(-temperature)
        return value, None

    with torch.no_grad():
        return closed_form_loss(
            kernel, student_logits, teacher_logits, mask,
            temperature=temperature, scale_by_t2=False, reduction=reduction, num_items=num_items,
        )  # fmt: skip
