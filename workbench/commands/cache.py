"""Show what lies in the data folder and how large it is, and clear it.

Clearing without a name clears cache: trained teachers, vocabularies and prepared texts, which are made
again when needed. Assets and peers are fetched again, the gallery is written again; runs are gone for good.
Archives were put there by you: they are cleared only by their name, not by all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = (
    "python -m workbench cache                             # sizes",
    "python -m workbench cache --clear cache/models runs   # what was trained, and every run",
)
MEANING = {
    "archives": "packages that you put here to be used instead of the network",
    "assets": "fetched models and texts",
    "cache": "trained teachers, vocabularies, prepared texts",
    "runs": "executed notebooks, rows, provenance",
    "gallery": "the pages of the last report",
    "peers": "other libraries that bench compares with",
}
PARTS = {
    "models": "trained teachers and students",
    "text": "prepared texts",
    "vocabularies": "vocabularies trained on a corpus",
}
OWN = "archives"  # what nothing here can make or fetch again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear",
        nargs="*",
        metavar="WHAT",
        help=f"{', '.join(MEANING)}, a part such as cache/models, or all but archives (default: cache); asks nothing",
    )


def run(arguments: argparse.Namespace) -> int:
    import shutil

    from workbench.errors import check_choice
    from workbench.files import data_folder, folder_size
    from workbench.runs.text_table import print_table

    root = data_folder()
    known = MEANING | {f"cache/{part.name}": PARTS.get(part.name, "") for part in _entries(root / "cache")}
    if arguments.clear is None:
        rows = [
            (name, in_mib(folder_size(root / name)), len(_entries(root / name)), meaning)
            for name, meaning in sorted(known.items())
        ]
        print(root)
        print_table(("what", "size", "entries", "holds"), rows)
        return 0
    chosen = [check_choice("clear", name.rstrip("/"), [*known, "all"]) for name in arguments.clear or ["cache"]]
    if "all" in chosen:
        chosen += [name for name in MEANING if name != OWN]
    if "runs" in chosen:
        _refuse_while_running()
    for name in dict.fromkeys(chosen):
        if name == "all":
            continue
        size = folder_size(root / name)
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        elif (root / name).is_file():
            (root / name).unlink()
        print(f"cleared {name}: {in_mib(size)}")
    return 0


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, hidden files (locks) aside; nothing where there is none."""
    return sorted(folder.glob("[!.]*"))


def _refuse_while_running() -> None:
    from workbench.runs.store import RUNNING, runs

    if busy := runs(status=RUNNING):
        told = f"{busy[0].stem} is running in process {busy[0].process['pid']}"
        raise ValueError(f"{told}: its folder cannot be cleared.")


def in_mib(size: int) -> str:
    """Bytes for reading."""
    return f"{size / 1024**2:,.1f} MiB"
