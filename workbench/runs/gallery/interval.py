"""A claim's interval against its threshold as a small picture that follows the page's colours."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from workbench.runs.gallery.words import number_words

WIDTH, HEIGHT, MIDDLE = 200, 30, 15
MARKS = {
    "supported": '<circle cx="{x:.1f}" cy="15" r="5" class="mark"/>',
    "contradicted": '<path d="M{a:.1f} 10l10 10m0 -10l-10 10" class="mark line"/>',
    "inconclusive": '<path d="M{x:.1f} 9l6 6-6 6-6-6z" class="mark open"/>',
    "not judged": '<circle cx="{x:.1f}" cy="15" r="5" class="mark open"/>',
}


def interval_svg(claim: dict[str, Any]) -> str:
    """The shaded range in which the claim holds, the interval, and the estimate's mark (round, cross, diamond)."""
    shown = [claim.get(key) for key in ("estimate", "low", "high", "above", "below", "published")]
    finite = [float(value) for value in shown if is_number(value)]
    if not finite or not is_number(claim.get("estimate")):
        return ""
    least, most = min(finite), max(finite)
    air = 0.2 * (most - least) or abs(least) * 0.5 or 1.0

    def place(value: float) -> float:
        return WIDTH * (value - least + air) / (most - least + 2 * air)

    above, below = claim.get("above"), claim.get("below")
    left = place(above) if is_number(above) else 0.0
    right = place(below) if is_number(below) else float(WIDTH)
    parts = []
    if is_number(above) or is_number(below):
        parts.append(f'<rect x="{left:.1f}" y="1" width="{max(right - left, 0):.1f}" height="28" class="holds"/>')
    parts += [f'<path d="M{place(edge):.1f} 1v28" class="threshold"/>' for edge in (above, below) if is_number(edge)]
    ends = [claim.get("low"), claim.get("high")]
    if any(map(is_number, ends)):
        # An end beyond which nothing is known runs to the picture's edge and has no bar.
        low, high = (place(end) if is_number(end) else edge for end, edge in zip(ends, (0.0, WIDTH), strict=True))
        bars = "".join(f"M{place(end):.1f} 11v8" for end in ends if is_number(end))
        parts.append(f'<path d="M{low:.1f} 15H{high:.1f}{bars}" class="interval"/>')
    x = place(claim["estimate"])
    parts.append(MARKS.get(claim["verdict"], MARKS["not judged"]).format(x=x, a=x - 5))
    if is_number(claim.get("published")):
        parts.append(f'<text x="{place(claim["published"]):.1f}" y="20" class="star">★</text>')
    words = escape(f"estimate {estimate_words(claim)}; holds if {claim.get('threshold', '')}")
    kind = claim["verdict"].replace(" ", "-")
    return (
        f'<svg class="strip {kind}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{words}">{"".join(parts)}</svg>'
    )


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def estimate_words(claim: dict[str, Any]) -> str:
    """``0.12 [0.03, 0.21]``, ``12 [7, ∞)`` where one end is open; the estimate alone without an interval."""
    if not is_number(claim.get("estimate")):
        return "–"
    estimate, low, high = number_words(claim["estimate"]), claim.get("low"), claim.get("high")
    if low == high or not (is_number(low) or is_number(high)):
        return estimate
    left = f"[{number_words(low)}" if is_number(low) else "(−∞"
    right = f"{number_words(high)}]" if is_number(high) else "∞)"
    return f"{estimate} {left}, {right}"
