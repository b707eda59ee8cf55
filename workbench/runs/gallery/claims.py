"""Claims as rows of a page: statement, estimate with interval, threshold, the paper's number, verdict."""

from __future__ import annotations

from typing import Any

from workbench.runs.gallery.interval import estimate_words, interval_svg
from workbench.runs.gallery.words import SIGNS, published_words
from workbench.runs.store import Run


def claim_rows(run: Run) -> list[dict[str, Any]]:
    """What a page shows of each claim of a run."""
    return [
        {
            "statement": claim["statement"],
            "estimate": estimate_words(claim),
            "n": claim.get("n", ""),
            "strip": interval_svg(claim),
            "threshold": claim["threshold"],
            "published": published_words(claim),
            "recalled": claim.get("published_status") == "recalled",
            "source": claim.get("source", ""),
            "verdict": claim["verdict"],
            "sign": SIGNS.get(claim["verdict"], "–"),
            "gates": claim.get("gates", False),
        }
        for claim in run.claims
    ]
