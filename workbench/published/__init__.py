"""The numbers papers printed, as CSV: each with its ``source`` and ``status``.

Status says how sure we are: ``read`` in the paper or its official repository, ``secondary`` from
somebody's note, ``digitised`` by eye from a figure, ``derived`` by formula, ``recalled`` from memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import check_choice

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("read", "secondary", "digitised", "derived", "recalled")
FOLDER = Path(__file__).parent


def tables(stem: str) -> list[str]:
    """Names of the tables there are for a paper; none where no number could be read."""
    return sorted(path.stem for path in (FOLDER / stem).glob("*.csv"))


def load(stem: str, table: str) -> pd.DataFrame:
    """One published table, with the columns ``source`` and ``status`` in every row.

    Raises:
        UnknownName: no such table ("did you mean").
    """
    import pandas as pd

    check_choice("table", table, tables(stem))
    return pd.read_csv(FOLDER / stem / f"{table}.csv")
