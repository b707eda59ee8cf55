"""One Gaussian fitted to a mixture of two by a distillation loss: what a loss wants, with nothing in its way.

The student has two parameters and the teacher is known exactly, so where a fit ends is the loss's doing
alone: forward KL matches the moments, reverse KL falls into a mode, others depend on where they start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.errors import check_positive
from workbench.runtime import threads

GRID = (-12.0, 12.0)
GridLoss = Callable[[Tensor, Tensor, float], Tensor]  # student, teacher logits [starts, grid], share of steps done


@dataclass(frozen=True)
class Mixture:
    """The teacher: two Gaussians of one width on a grid."""

    weight: float = 0.6  # of the left one
    left: float = -3.0
    right: float = 3.0
    sd: float = 0.8  # of each

    @property
    def mean(self) -> float:
        """Mean of the mixture, where moment matching ends."""
        return self.weight * self.left + (1 - self.weight) * self.right

    @property
    def spread(self) -> float:
        """Standard deviation of the mixture, where moment matching ends."""
        second = self.weight * self.left**2 + (1 - self.weight) * self.right**2 + self.sd**2
        return float(np.sqrt(second - self.mean**2))

    def log_density(self, grid: Tensor) -> Tensor:
        """Log density at ``grid``, up to a constant that softmax takes out."""
        left = np.log(self.weight) - (grid - self.left) ** 2 / (2 * self.sd**2)
        right = np.log(1 - self.weight) - (grid - self.right) ** 2 / (2 * self.sd**2)
        return torch.logaddexp(left, right)

    def density(self, points: int = 401) -> pd.DataFrame:
        """The columns ``x`` and ``density`` over the grid."""
        grid = torch.linspace(*GRID, points, dtype=torch.float64)
        density = self.log_density(grid).exp() / (self.sd * np.sqrt(2 * np.pi))
        return pd.DataFrame({"x": grid.numpy(), "density": density.numpy()})


def fit_gaussian(
    loss: GridLoss,
    starts: Sequence[tuple[float, float]],
    mixture: Mixture = Mixture(),
    *,
    steps: int = 1500,
    lr: float = 0.05,
    points: int = 2401,
    record_every: int = 25,
) -> pd.DataFrame:
    """Fit from every (mean, sd) of ``starts`` at once with Adam; deterministic, float64.

    Args:
        loss: gives one value per start, ``[starts]``, from student and teacher logits
            ``[starts, grid]`` and the share of steps done, from 0 to 1.

    Returns:
        The columns ``start`` (as text), ``step``, ``mean``, ``sd`` and ``value``, the last step included.

    Raises:
        ValueError: a start whose standard deviation is not above 0.
    """
    for _, sd in starts:
        check_positive(sd=sd)
    with threads(1):  # tensors this small only wait for each other's threads
        records = _fit(loss, starts, mixture, steps, lr, points, record_every)
    return pd.DataFrame(records, columns=["start", "step", "mean", "sd", "value"])


def _fit(
    loss: GridLoss,
    starts: Sequence[tuple[float, float]],
    mixture: Mixture,
    steps: int,
    lr: float,
    points: int,
    record_every: int,
) -> list[tuple]:
    grid = torch.linspace(*GRID, points, dtype=torch.float64)
    teacher = mixture.log_density(grid).expand(len(starts), -1)
    means, sds = torch.tensor(starts, dtype=torch.float64).T
    mean, log_sd = means.clone().requires_grad_(), sds.log().requires_grad_()
    optimiser = torch.optim.Adam([mean, log_sd], lr=lr)
    # Cosine to zero: a constant rate would leave every fit trembling around its end point.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    names = [f"mean {mu:g}, sd {sd:g}" for mu, sd in starts]
    records = []
    for step in range(steps + 1):
        student = -((grid - mean[:, None]) ** 2) / (2 * log_sd.exp()[:, None] ** 2)
        values = loss(student, teacher, step / steps)
        if step % record_every == 0 or step == steps:
            seen = (mean.tolist(), log_sd.exp().tolist(), values.tolist())
            records += [(name, step, *row) for name, *row in zip(names, *seen, strict=True)]
        if step < steps:
            optimiser.zero_grad()
            values.sum().backward()
            optimiser.step()
            schedule.step()
    return records
