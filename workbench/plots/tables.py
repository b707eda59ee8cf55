"""Tables as a reader wants them: mean ± standard error, n, the paper's number with how sure we are of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from workbench.plots.columns import check_columns
from workbench.plots.verdicts import SIGNS

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

# A number that was read in the paper needs no mark.
MARKS = {"read": "", "secondary": "§", "digitised": "‡", "derived": "≈", "recalled": "†"}
MEANINGS = {
    "secondary": "from somebody's note of the paper",
    "digitised": "read off a figure by eye",
    "derived": "computed from the paper's numbers",
    "recalled": "from memory, not checked against the paper",
}
# Inside the frame of a formatted number; the rest of what Result.table gives is shown or dropped as a whole.
NUMBERS = ("mean", "error", "ours", "published", "status", "source", "n", "difference")


def beside_published(table: pd.DataFrame, *, digits: int = 4, caption: str | None = None) -> Styler:
    """The table of ``Result.table()`` as text: factors, measure, ours, n, published; recalled numbers greyed.

    Args:
        table: the columns ``mean``, ``error`` and ``n``, the factors, and where the paper printed
            something ``published`` and ``status``.
        digits: significant digits of a mean; its error has two.

    Raises:
        ValueError: an empty table, or a column that is not there ("did you mean").
    """
    check_columns(table, mean="mean", error="error", n="n")
    shown = table[[name for name in table.columns if name not in NUMBERS]].copy()
    shown.columns = [str(name).replace("_", " ") for name in shown.columns]
    for name in shown.columns[shown.dtypes == "float64"]:  # a size with six decimals says nothing more
        shown[name] = ["" if pd.isna(value) else f"{value:,.10g}" for value in shown[name]]
    shown["mean ± s.e."] = [
        mean_and_error(mean, error, digits=digits) for mean, error in zip(table["mean"], table["error"], strict=True)
    ]
    shown["n"] = table["n"].to_numpy()
    statuses = pd.Series("read", index=shown.index)
    if "published" in table.columns:
        if "status" in table.columns:
            statuses = table["status"].set_axis(shown.index)
        shown["published"] = [
            marked(value, status, digits=digits) for value, status in zip(table["published"], statuses, strict=True)
        ]
    present = [status for status in MEANINGS if (statuses == status).any()]
    notes = "; ".join(f"{MARKS[status]} {MEANINGS[status]}" for status in present)
    styled = shown.style.hide(axis="index")
    if "published" in shown.columns:
        styled = styled.apply(lambda column: [_grey(statuses[place]) for place in column.index], subset=["published"])
    said = " ".join(text for text in (caption, f"Published numbers: {notes}." if notes else "") if text)
    return styled.set_caption(said) if said else styled


def claims(table: pd.DataFrame) -> Styler:
    """The table of ``Result.check()`` with whole sentences (pandas cuts them at 50 letters) and signs before verdicts.

    Raises:
        ValueError: an empty table, or no column ``verdict``.
    """
    check_columns(table, verdict="verdict")
    shown = table.assign(verdict=[f"{SIGNS[verdict]} {verdict}" for verdict in table["verdict"]])
    return shown.style.hide(axis="index")


def mean_and_error(mean: float, error: float, *, digits: int = 4) -> str:
    """``0.1234 ± 0.0056``, both to the error's second digit; ``digits`` significant ones where there is no error."""
    if pd.isna(mean):
        return ""
    if pd.isna(error) or error <= 0:
        return f"{mean:.{digits}g}"
    decimals = 1 - math.floor(math.log10(error))
    if decimals > 8:
        return f"{mean:.{digits}g} ± {error:.1e}"
    return f"{mean:.{max(decimals, 0)}f} ± {error:.{max(decimals, 0)}f}"


def marked(value: float, status: str, *, digits: int = 4) -> str:
    """A published number with the mark of its status; empty where the paper printed none."""
    if pd.isna(value):
        return ""
    text = f"{value:.{digits}g}" if isinstance(value, int | float) else str(value)
    return f"{text} {MARKS.get(status, '')}".rstrip()


def _grey(status: str) -> str:
    return "opacity: 0.65; font-style: italic" if status == "recalled" else ""
