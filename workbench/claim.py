"""Claim: a paper's sentence, the number that decides it, its interval, and the verdict they give."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.metrics.uncertainty import Effect

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_JUDGED = "not judged"  # profile smoke: the sizes are too small to mean anything
SEEDS_TO_GATE = 5


@dataclass(frozen=True)
class Claim:
    """A statement in the paper's sense with the threshold its effect is held against.

    Args:
        statement: what the paper says, as one sentence that can be wrong.
        effect: the statistic and its interval.
        above: the statement holds if the effect lies above this.
        below: the statement holds if the effect lies below this; with ``above``, between the two.
        source: the paper's table or section.
        published: the paper's own number for this statistic, where it printed one.
        published_status: how sure we are of it, one of ``published.STATUSES``.
        gating: a run fails unless this is supported. It only counts with an exact effect or
            with at least five seeds (``gates``).

    Raises:
        ValueError: neither ``above`` nor ``below``, or an empty range between them.
    """

    statement: str
    effect: Effect
    above: float | None = None
    below: float | None = None
    source: str = ""
    gating: bool = False
    published: float | None = None
    published_status: str = ""

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise ValueError(f"the claim {self.statement!r} needs above=, below= or both: a threshold to hold against.")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"above={self.above} must be smaller than below={self.below}.")

    @property
    def gates(self) -> bool:
        """Whether the run stands or falls with this claim."""
        return self.gating and (self.effect.is_exact or self.effect.n >= SEEDS_TO_GATE)

    @property
    def verdict(self) -> str:
        """``supported`` if the interval lies wholly beyond the threshold, ``contradicted`` if wholly
        on the other side, else ``inconclusive`` (as where seeds are too few for an interval)."""
        low, high = self.effect.low, self.effect.high
        if math.isnan(low) or math.isnan(high):
            return INCONCLUSIVE
        floor = -math.inf if self.above is None else self.above
        ceiling = math.inf if self.below is None else self.below
        if low > floor and high < ceiling:
            return SUPPORTED
        if high <= floor or low >= ceiling:
            return CONTRADICTED
        return INCONCLUSIVE

    @property
    def threshold(self) -> str:
        """The range in words, such as ``> 0``."""
        if self.below is None:
            return f"> {self.above:g}"
        if self.above is None:
            return f"< {self.below:g}"
        return f"{self.above:g} to {self.below:g}"

    def as_dict(self) -> dict[str, Any]:
        """What is stored of a claim, JSON-ready."""
        effect = self.effect
        return {
            "statement": self.statement,
            "verdict": self.verdict,
            "estimate": effect.estimate,
            "low": effect.low,
            "high": effect.high,
            "n": effect.n,
            "threshold": self.threshold,
            "above": self.above,
            "below": self.below,
            "published": self.published,
            "published_status": self.published_status,
            "source": self.source,
            "gating": self.gating,
            "gates": self.gates,
        }


def claims_table(claims: Iterable[Claim], *, judged: bool = True) -> pd.DataFrame:
    """One row per claim as a reader wants it: statement, estimate with interval, threshold, verdict."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "claim": claim.statement,
                "estimate": str(claim.effect),
                "holds if": claim.threshold,
                "verdict": claim.verdict if judged else NOT_JUDGED,
                "gating": "yes" if claim.gates else "",
                "source": claim.source,
            }
            for claim in claims
        ],
        columns=["claim", "estimate", "holds if", "verdict", "gating", "source"],
    )
