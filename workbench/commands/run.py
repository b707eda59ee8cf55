"""Run notebooks headless; what is finished with the same notebook, parameters and code is not run again.

Each run is recorded in data/runs/STEM/: the executed notebook, its rows, and where its numbers come from.
"""

from __future__ import annotations

import argparse

EXAMPLES = (
    "python -m workbench run all                               # every notebook at profile quick",
    "python -m workbench run taid --profile full -p seeds=[0,1] # one, with a parameter of its own",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="STEM", help="papers, other notebooks, paths of .ipynb, or all")
    add_run_arguments(parser)
    parser.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", dest="values", help="a parameter; may be repeated"
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ``run`` and ``sweep`` share."""
    parser.add_argument("--profile", help="smoke, quick, full or paper (default: the notebook's, quick)")
    parser.add_argument("--force", action="store_true", help="run what is finished again too")
    parser.add_argument("--jobs", type=positive(int), metavar="N", help="runs at a time (default: one a core)")
    parser.add_argument(
        "--cell-timeout", type=positive(float), metavar="S", help="seconds a cell may take (default: by profile)"
    )


def positive(kind: type):
    """A type for argparse: a number above 0."""

    def number(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = "a number above 0"  # argparse shows it in "invalid ... value"
    return number


def run(arguments: argparse.Namespace) -> int:
    from workbench.runs.notebooks import find_notebook, notebooks, notebooks_folder
    from workbench.runs.parameters import read_values
    from workbench.runs.plan import plan
    from workbench.runs.session import print_claims, run_session

    if "all" in arguments.names:
        chosen = notebooks()
        if not chosen:
            print(f"There are no notebooks in {notebooks_folder()}.")
    else:
        chosen = [find_notebook(name) for name in arguments.names]
    jobs = [plan(one, read_values(one, arguments.values, profile=arguments.profile)) for one in chosen]
    done = run_session(jobs, workers=arguments.jobs, force=arguments.force, cell_timeout=arguments.cell_timeout)
    print_claims(done)
    return 0 if all(one.well for one in done) else 1
