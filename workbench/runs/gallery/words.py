"""Numbers, dates and verdicts as a page says them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

# The sign comes first: a verdict must not hang on its colour.
SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "~", "not judged": "–"}
MARKS = {"secondary": "§", "digitised": "‡", "derived": "≈", "recalled": "†"}


def duration_words(seconds: float | None) -> str:
    """``48 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds is None:
        return "unknown time"
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def date_words(started: str) -> str:
    """``24 November 2026`` of an ISO time; the text itself where it is none."""
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{moment.day} {moment:%B %Y}"


def count_verdicts(claims: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Verdict -> number of claims, in the order of ``SIGNS``, those that occur."""
    found = [claim["verdict"] for claim in claims]
    return {verdict: found.count(verdict) for verdict in SIGNS if verdict in found}


def published_words(claim: Mapping[str, Any]) -> str:
    """The paper's own number with the mark of how sure we are of it; empty where there is none."""
    value = claim.get("published")
    return "" if value is None else f"{number_words(value)} {MARKS.get(claim.get('published_status', ''), '')}".strip()


def number_words(value: float) -> str:
    """Three significant digits, large numbers whole: ``0.0583``, ``12,346``."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def value_words(value: Any) -> str:
    """A parameter or a fact of the machine in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(value_words(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_words(item)}" for name, item in value.items())
    return "none" if value is None else str(value)
