"""Result: an experiment's tidy rows, curves and claims, beside the numbers the paper printed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.claim import NOT_JUDGED, Claim, claims_table
from workbench.errors import ClaimNotSupported
from workbench.files import atomic_path, data_folder, write_json
from workbench.metrics.uncertainty import Effect, summarise

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Claim", "Effect", "Result"]


class Result:
    """What an experiment found.

    Args:
        stem: the paper's stem.
        config: the experiment's ``Config``.
        rows: one observation a row; the factors, ``seed``, and the measured columns.
        curves: what was recorded along the way (steps, trajectories), or None.
        claims: the paper's claims, judged by these rows.
        by: the factor columns that a mean is taken within; default: every column that is
            neither ``seed`` nor a float.
        measures: the measured columns; default: every float column.
        published: the paper's numbers for the same cells: the columns ``by``, ``measure``,
            ``published``, ``source`` and ``status``.
    """

    def __init__(
        self,
        stem: str,
        config: Any,
        rows: pd.DataFrame,
        curves: pd.DataFrame | None = None,
        claims: Sequence[Claim] = (),
        *,
        by: Sequence[str] | None = None,
        measures: Sequence[str] | None = None,
        published: pd.DataFrame | None = None,
    ):
        self.stem, self.config, self.rows, self.curves = stem, config, rows, curves
        self.claims = tuple(claims)
        self.measures = list(measures) if measures is not None else list(rows.select_dtypes("float").columns)
        factors = [name for name in rows.columns if name != "seed" and name not in self.measures]
        self.by = list(by) if by is not None else factors
        self.published = published

    @property
    def judged(self) -> bool:
        """False at profile ``smoke``, whose sizes mean nothing."""
        return getattr(self.config, "profile", "quick") != "smoke"

    def table(self) -> pd.DataFrame:
        """Mean ± standard error over seeds of every measure per cell, the paper's number beside it.

        Returns:
            The columns ``by``, ``measure``, ``mean``, ``error`` (standard error, NaN for one
            seed), ``n``, ``ours`` (as text) and, where the paper printed one, ``published``,
            ``status`` and ``source``.
        """
        table = summarise(self.rows, by=self.by, measures=self.measures)
        table["ours"] = [
            f"{row['mean']:.4g}" + (f" ± {row['error']:.2g}" if row["n"] > 1 else "") for _, row in table.iterrows()
        ]
        if self.published is None:
            return table
        keys = [key for key in [*self.by, "measure"] if key in self.published.columns]
        return table.merge(self.published, on=keys, how="left")

    def check(self) -> pd.DataFrame:
        """The claims with estimate, interval, threshold and verdict.

        Raises:
            ClaimNotSupported: a gating claim is not supported (never at profile ``smoke``).
        """
        failed = [claim for claim in self.claims if claim.gates and claim.verdict != "supported"]
        if self.judged and failed:
            told = "; ".join(f"{c.statement}: {c.effect}, holds if {c.threshold}: {c.verdict}" for c in failed)
            raise ClaimNotSupported(f"{self.stem}: {told}.")
        return claims_table(self.claims, judged=self.judged)

    @property
    def judgements(self) -> pd.DataFrame:
        """One row per claim with all that is stored of it (``Claim.as_dict``), raising nothing."""
        import pandas as pd

        return pd.DataFrame(self.as_dict()["claims"])

    def save(self, folder: Path | str | None = None) -> Path:
        """Write ``rows.parquet``, ``curves.parquet`` and ``result.json`` (config and claims); return the folder.

        The folder is the run's own when a run executes the notebook, else ``data/runs/<stem>/by-hand``.
        """
        if folder is None:
            folder = os.environ.get("WORKBENCH_RUN") or data_folder() / "runs" / self.stem / "by-hand"
        folder = Path(folder)
        for name, table in (("rows", self.rows), ("curves", self.curves)):
            if table is not None:
                with atomic_path(folder / f"{name}.parquet") as temporary:
                    table.to_parquet(temporary)
        write_json(folder / "result.json", self.as_dict())
        return folder

    def as_dict(self) -> dict[str, Any]:
        """The config and the claims, JSON-ready."""
        claims = [claim.as_dict() for claim in self.claims]
        if not self.judged:
            claims = [{**claim, "verdict": NOT_JUDGED} for claim in claims]
        config = dataclasses.asdict(self.config) if dataclasses.is_dataclass(self.config) else dict(self.config)
        return {"stem": self.stem, "config": config, "claims": claims}

    def _repr_html_(self) -> str:
        return claims_table(self.claims, judged=self.judged).to_html(index=False)
