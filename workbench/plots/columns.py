"""Checks of a table's columns, and means over the rows that share a cell."""

from __future__ import annotations

import pandas as pd

from workbench.errors import check_choice


def check_columns(table: pd.DataFrame, *, argument: str = "table", **columns: str | None) -> None:
    """Raise ``ValueError`` unless ``table`` has rows and every column that is named ("did you mean")."""
    if table.empty:
        raise ValueError(f"{argument} has no rows: there is nothing to draw.")
    for name, column in columns.items():
        if column is not None:
            check_choice(name, column, table.columns)


def spread(table: pd.DataFrame, *, x: str, y: str) -> pd.DataFrame:
    """Mean, standard error (NaN for one observation) and n of ``y`` at every ``x``, numbers in rising order."""
    numeric = pd.api.types.is_numeric_dtype(table[x])
    cells = table.dropna(subset=[y]).groupby(x, sort=numeric, observed=True)[y]
    return cells.agg(mean="mean", error="sem", n="count").reset_index()
