"""The law of capacity gap: where a student's loss is lowest along teacher sizes, and the line through these optima.

Source: Zhang et al., "Towards the Law of Capacity Gap in Distilling Language Models", ACL 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from workbench.errors import check_between, check_positive
from workbench.metrics.uncertainty import Effect, t_interval

NO_WIDTH = Effect(float("nan"), float("nan"), float("nan"), 0)


@dataclass(frozen=True)
class CapacityGapLaw:
    """Best teacher size = ``slope`` × student size + ``intercept``; the defaults are the paper's fit.

    Args:
        slope: teacher parameters per student parameter.
        intercept: in ``unit``.
        unit: what sizes are counted in, ``"M"`` for million parameters.
        student_range: the smallest and largest student that the line was fitted to, if known.
    """

    slope: float = 2.498
    intercept: float = -11.498
    unit: str = "M"
    student_range: tuple[float, float] | None = None
    r_squared: float = field(default=float("nan"), compare=False)
    slope_interval: Effect = field(default=NO_WIDTH, compare=False)

    def optimal_teacher(self, student: float) -> float:
        """The teacher size the line gives for ``student``, in ``unit``.

        Raises:
            ValueError: the line gives no positive teacher: the student lies below where it can be used.
        """
        check_positive(student=student)
        teacher = self.slope * student + self.intercept
        if teacher <= 0:
            raise ValueError(
                f"student={student:g} {self.unit} lies below {-self.intercept / self.slope:.3g} {self.unit}, "
                f"where the line gives no positive teacher ({teacher:.3g}): it was not fitted there."
            )
        return teacher

    def optimal_student(self, teacher: float) -> float:
        """The student size whose best teacher is ``teacher``, in ``unit``."""
        check_positive(teacher=teacher)
        return (teacher - self.intercept) / self.slope

    def extrapolates(self, student: float) -> bool:
        """Whether ``student`` lies outside the sizes the line was fitted to; True where these are unknown."""
        if self.student_range is None:
            return True
        return not self.student_range[0] <= student <= self.student_range[1]

    @classmethod
    def fit(cls, points: Sequence[tuple[float, float]], *, unit: str = "M", level: float = 0.95) -> CapacityGapLaw:
        """Least-squares line through (student size, best teacher size) pairs, with R² and the slope's t interval.

        Raises:
            ValueError: fewer than two different students, or a size that is not finite.
        """
        from scipy.stats import linregress, t

        students, teachers = np.asarray(points, dtype=float).reshape(-1, 2).T
        if np.unique(students).size < 2:
            raise ValueError("points hold fewer than two different student sizes: no line goes through one.")
        if not np.isfinite([students, teachers]).all():
            raise ValueError("points hold a size that is not finite: drop students without an optimum first.")
        line = linregress(students, teachers)
        freedom = students.size - 2
        half = t.ppf((1 + level) / 2, freedom) * line.stderr if freedom > 0 else float("nan")
        return cls(
            float(line.slope),
            float(line.intercept),
            unit,
            (float(students.min()), float(students.max())),
            float(line.rvalue**2),
            Effect(float(line.slope), float(line.slope - half), float(line.slope + half), students.size),
        )


@dataclass(frozen=True)
class UCurve:
    """Where one student's loss is lowest along teacher sizes.

    ``kind`` is ``interior`` if the interval of the optimum lies strictly within the range of sizes
    tried and both ends of the range are worse than the best size tried by a paired t interval (a
    parabola bends for a plateau, too); ``edge of range`` if the estimate is the smallest or largest
    size; else ``undecided``. Only an interior optimum may be called one.
    """

    best_tried: float  # the size with the lowest mean loss
    optimum: Effect  # vertex of the parabola in log size, held inside the range tried; bootstrap over seeds
    curvature: float  # of that parabola; not above 0 means no valley at all
    kind: str
    bracket: tuple[float, float]  # the nearest sizes below and above the best tried that are worse; 0, infinity: none


def fit_u_curve(
    table: pd.DataFrame,
    *,
    size: str = "teacher_parameters",
    value: str = "nats",
    on: str = "seed",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> UCurve:
    """Fit a parabola in log ``size`` to ``value`` and bootstrap its vertex over ``on``.

    Seeds are resampled whole (all sizes of one together), which keeps the pairing. Cells that are
    not finite are dropped, as are seeds that miss a size. One seed gives an optimum without an interval.

    Raises:
        ValueError: fewer than three sizes, or no seed that has them all.
    """
    check_between(0, 1, open_ends=True, level=level)
    clean = table[np.isfinite(table[value])]
    wide = clean.pivot_table(index=on, columns=size, values=value).dropna()
    sizes = wide.columns.to_numpy(dtype=float)  # sorted by pivot_table
    if sizes.size < 3:
        raise ValueError(f"{size} takes {sizes.size} values: a valley needs at least three.")
    if wide.empty:
        raise ValueError(f"no {on} has a finite {value} at every {size}: there is nothing to fit.")
    losses = wide.to_numpy()
    curvature, estimate = _vertices(sizes, losses.mean(0, keepdims=True))
    if len(losses) == 1:
        low = high = float("nan")
    else:
        draws = np.random.default_rng(seed).integers(len(losses), size=(resamples, len(losses)))
        _, vertices = _vertices(sizes, losses[draws].mean(1))
        low, high = np.quantile(vertices, [(1 - level) / 2, (1 + level) / 2])
    optimum = Effect(float(estimate[0]), float(low), float(high), len(losses))
    place = int(losses.mean(0).argmin())
    # Chosen as the best and then compared: the others look a little worse than they are.
    worse = [t_interval(losses[:, one] - losses[:, place], level=level).low > 0 for one in range(sizes.size)]
    below = max((sizes[one] for one in range(place) if worse[one]), default=0.0)
    above = min((sizes[one] for one in range(place + 1, sizes.size) if worse[one]), default=np.inf)
    kind = _kind(optimum, sizes, rises=worse[0] and worse[-1])
    return UCurve(float(sizes[place]), optimum, float(curvature[0]), kind, (float(below), float(above)))


def _vertices(sizes: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curvature and vertex, as a size inside the range, of parabolas through ``losses [curves, sizes]``."""
    logs = np.log(sizes)
    square, slope, _ = np.polyfit(logs, losses.T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -slope / (2 * square)
    # Without a valley the lowest point of the range is one of its ends.
    lower_end = np.where(
        square * logs[0] ** 2 + slope * logs[0] <= square * logs[-1] ** 2 + slope * logs[-1], *logs[[0, -1]]
    )
    held = np.clip(np.where(square > 0, vertex, lower_end), logs[0], logs[-1])
    return square, np.where(held == logs[-1], sizes[-1], np.where(held == logs[0], sizes[0], np.exp(held)))


def _kind(optimum: Effect, sizes: np.ndarray, *, rises: bool) -> str:
    if optimum.estimate in (sizes[0], sizes[-1]):
        return "edge of range"
    return "interior" if rises and sizes[0] < optimum.low and optimum.high < sizes[-1] else "undecided"
