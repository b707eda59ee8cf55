"""Measure the parts that claim to be fast, each beside what one would use without them."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

EXAMPLES = (
    "python -m workbench bench training --quick   # one, in its shortest form",
    "python -m workbench bench all                # every one of them",
)
FOLDER = Path(__file__).resolve().parent.parent / "bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure, or all; without, they are listed")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, wider error bars")


def bench_names() -> list[str]:
    """The modules of ``workbench/bench``; each has ``run(quick=False) -> DataFrame``."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def run(arguments: argparse.Namespace) -> int:
    import importlib

    from workbench.errors import check_choice

    known = bench_names()
    if not arguments.names:
        print("\n".join(known) or "There are no benchmarks yet.")
        return 0
    chosen = known if "all" in arguments.names else [check_choice("bench", name, known) for name in arguments.names]
    failed = 0
    for name in chosen:
        try:
            module = importlib.import_module(f"workbench.bench.{name}")
            print(f"{name}: {(module.__doc__ or '').partition(chr(10))[0]}", flush=True)
            table = module.run(quick=arguments.quick)
            print(table.to_string(index=False), end="\n\n")
        except Exception:
            # One that breaks must not keep the others from being measured.
            traceback.print_exc(file=sys.stderr)
            failed += 1
    return 1 if failed else 0
