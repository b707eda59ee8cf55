"""Effects with intervals: the mean and its standard error, the bootstrap, the paired t over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.errors import check_between, check_choice


@dataclass(frozen=True)
class Effect:
    """An estimate and the interval it lies in; ``n`` observations stand behind it."""

    estimate: float
    low: float
    high: float
    n: int

    @classmethod
    def exact(cls, value: float) -> Effect:
        """A number that no seed moves: its interval is itself."""
        return cls(float(value), float(value), float(value), 1)

    @property
    def is_exact(self) -> bool:
        """Whether the interval has no width because nothing random stands behind the estimate."""
        return self.n == 1 and self.low == self.estimate == self.high

    def __str__(self) -> str:
        if self.is_exact:
            return f"{self.estimate:.4g}"
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}"


def mean_and_error(values: Sequence[float]) -> Effect:
    """The mean, plus and minus one standard error (``ddof=1``); the interval is NaN for one value.

    Raises:
        ValueError: no values.
    """
    sample = _sample(values)
    mean = float(sample.mean())
    error = float(sample.std(ddof=1) / np.sqrt(sample.size)) if sample.size > 1 else float("nan")
    return Effect(mean, mean - error, mean + error, sample.size)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., float] = np.mean,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Effect:
    """Bias-corrected bootstrap interval (BCa, Efron 1987) of ``statistic`` over ``values``.

    Where BCa is undefined (all resamples equal, or a statistic that jumps) the percentile interval
    stands in. One value, or equal values, give an interval of no width only if the data have none.

    Raises:
        ValueError: no values, or a ``level`` outside (0, 1).
    """
    from scipy.stats import bootstrap

    check_between(0, 1, open_ends=True, level=level)
    sample = _sample(values)
    estimate = float(statistic(sample))
    if sample.size == 1:
        return Effect(estimate, float("nan"), float("nan"), 1)
    if np.all(sample == sample[0]):
        return Effect(estimate, estimate, estimate, sample.size)
    for method in ("BCa", "percentile"):
        with np.errstate(all="ignore"):
            found = bootstrap(
                (sample,), lambda data, axis=-1: np.apply_along_axis(statistic, axis, data),
                confidence_level=level, method=method, n_resamples=2000, rng=np.random.default_rng(seed),
            )  # fmt: skip
        low, high = map(float, found.confidence_interval)
        if np.isfinite([low, high]).all():
            break
    return Effect(estimate, low, high, sample.size)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Effect:
    """Student's t interval of the mean; right for few seeds, where the bootstrap is too narrow.

    Raises:
        ValueError: no values, or a ``level`` outside (0, 1).
    """
    from scipy.stats import t

    check_between(0, 1, open_ends=True, level=level)
    sample = _sample(values)
    mean = float(sample.mean())
    if sample.size == 1:
        return Effect(mean, float("nan"), float("nan"), 1)
    half = float(t.ppf((1 + level) / 2, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size))
    return Effect(mean, mean - half, mean + half, sample.size)


def paired_difference(
    table: pd.DataFrame,
    first: str,
    second: str,
    *,
    value: str,
    by: str,
    on: str | list[str] = "seed",
    level: float = 0.95,
) -> Effect:
    """Mean of ``value`` where ``by == first`` minus where ``by == second``, paired over ``on``, with a t interval.

    Args:
        table: tidy rows, one observation per (``by``, ``on``).

    Raises:
        ValueError: a side is missing ("did you mean"), is observed twice for one ``on``, or shares none with the other.
    """
    for side in (first, second):
        check_choice(by, side, table[by].unique())
    keys = [on] if isinstance(on, str) else list(on)
    if table[table[by].isin([first, second])].duplicated([by, *keys]).any():
        raise ValueError(f"{by} and {keys} do not single out one row each: select the other columns first.")
    wide = table.pivot(index=keys, columns=by, values=value)
    difference = (wide[first] - wide[second]).dropna()
    if difference.empty:
        raise ValueError(f"{first!r} and {second!r} share no {keys}: there is nothing to pair.")
    return t_interval(difference.to_numpy(), level=level)


def summarise(table: pd.DataFrame, *, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Mean, standard error and n of each measure per group, one row per (group, measure)."""
    long = table.melt(id_vars=list(by), value_vars=list(measures), var_name="measure")
    groups = long.dropna(subset="value").groupby([*by, "measure"], sort=False, dropna=False, observed=True)["value"]
    return groups.agg(mean="mean", error="sem", n="count").reset_index()


def _sample(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("values is empty: there is nothing to estimate.")
    return sample
