"""How long a job will take, from what the same notebook took before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from workbench.runs.plan import Job
from workbench.runs.store import latest

RECORDS = Path(__file__).resolve().parent.parent / "records"


def expected_seconds(job: Job) -> float | None:
    """Duration of the newest finished run of this notebook at this profile, here or on record; None if unknown."""
    earlier = latest(job.stem, job.profile)
    if earlier and earlier.duration:
        return earlier.duration
    return recorded_seconds(job.stem, job.profile)


def recorded_seconds(stem: str, profile: str) -> float | None:
    """The duration in ``workbench/records/<stem>.json``, measured on the machine that wrote it."""
    try:
        record = json.loads((RECORDS / f"{stem}.json").read_text(encoding="utf-8"))
        return float(record["duration"]) if record["profile"] == profile else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record yet


def expected_together(seconds: Sequence[float | None], workers: int) -> float | None:
    """Wall time of jobs over ``workers``, as far as they are known; None if none is."""
    known = [value for value in seconds if value is not None]
    return max(sum(known) / workers, *known, 0.0) if known else None


def in_words(seconds: float) -> str:
    """``about 40 s``, ``about 3 min``, ``about 2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
