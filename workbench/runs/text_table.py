"""A table for a terminal, without importing pandas for it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their heads; the last column is wrapped to the width of the terminal."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(30, shutil.get_terminal_size((120, 24)).columns - before)
    widths[-1] = min(widths[-1], room)
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    print("  ".join("-" * width for width in widths))
    for row in cells:
        fixed = "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True))
        lines = textwrap.wrap(row[-1], room) or [""]
        print(f"{fixed}  {lines[0]}".rstrip())
        for line in lines[1:]:
            print(" " * before + line)
