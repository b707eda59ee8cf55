"""Show what lies in the data folder and how large it is, and clear it.

Clearing without a name clears cache: trained teachers, vocabularies and prepared texts, which are made
again when needed. Assets are fetched again, the gallery is written again; runs are gone for good.
"""

from __future__ import annotations

import argparse

EXAMPLES = (
    "python -m workbench cache                      # sizes",
    "python -m workbench cache --clear cache runs   # what was trained, and every run",
)
MEANING = {
    "assets": "fetched models and texts",
    "cache": "trained teachers, vocabularies, prepared texts",
    "runs": "executed notebooks, rows, provenance",
    "gallery": "the pages of the last report",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear", nargs="*", metavar="WHAT", help=f"{', '.join(MEANING)} or all (default: cache); asks nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    import shutil

    from workbench.errors import check_choice
    from workbench.files import data_folder, folder_size
    from workbench.runs.text_table import print_table

    root = data_folder()
    if arguments.clear is None:
        rows = []
        for name, meaning in MEANING.items():
            parts = list((root / name).glob("[!.]*")) if (root / name).is_dir() else []
            rows.append((name, in_mib(folder_size(root / name)), len(parts), meaning))
        print(root)
        print_table(("what", "size", "entries", "holds"), rows)
        return 0
    chosen = [check_choice("clear", name, [*MEANING, "all"]) for name in arguments.clear or ["cache"]]
    if "runs" in chosen or "all" in chosen:
        _refuse_while_running()
    for name in MEANING if "all" in chosen else dict.fromkeys(chosen):
        size = folder_size(root / name)
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        print(f"cleared {name}: {in_mib(size)}")
    return 0


def _refuse_while_running() -> None:
    from workbench.runs.store import RUNNING, runs

    if busy := runs(status=RUNNING):
        told = f"{busy[0].stem} is running in process {busy[0].process['pid']}"
        raise ValueError(f"{told}: its folder cannot be cleared.")


def in_mib(size: int) -> str:
    """Bytes for reading."""
    return f"{size / 1024**2:,.1f} MiB"
