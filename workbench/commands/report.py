"""Write the gallery of the runs on record: pages with live figures that open from the file system, offline.

Per notebook it shows the latest run of the largest profile that finished, and links the other profiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = (
    "python -m workbench report             # writes data/gallery/index.html and prints its path",
    "python -m workbench report --record    # also keeps what finished runs found, for README's table of papers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where to write (default: gallery/ of the data folder)"
    )
    parser.add_argument(
        "--record", action="store_true", help="write workbench/records/STEM.json of finished runs and README's table"
    )
    parser.add_argument("--readme-table", action="store_true", help="only print the table that the records make")


def run(arguments: argparse.Namespace) -> int:
    from workbench.runs.records import load_records, readme_table

    if arguments.readme_table:
        print(readme_table(load_records()))
        return 0
    from workbench.runs.gallery.write import write_gallery

    print(write_gallery(arguments.to))
    if arguments.record:
        _record()
    return 0


def _record() -> None:
    from workbench.runs.records import README, update_readme, write_records

    written = write_records()
    names = ", ".join(path.stem for path in written)
    print(f"recorded: {names}" if written else "recorded: nothing, no run of a paper finished at a profile above smoke")
    if README.is_file():
        print("README.md: table of papers " + ("renewed" if update_readme() else "unchanged"))
