"""Run one notebook over a grid of parameters; the same command takes up what was interrupted.

In -p, a comma separates one value from the next; a value that is a list is bracketed. A run that fails or
is killed is recorded, the others go on, and the next call runs only what is not finished.
"""

from __future__ import annotations

import argparse

EXAMPLES = (
    "python -m workbench sweep taid -p student_steps=100,200,400 -p t_start=0.2,0.4   # a grid of six runs",
    "python -m workbench sweep taid -p seeds=[0,1],[2,3] --profile smoke   # two runs, two seeds each",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from workbench.commands.run import add_run_arguments

    parser.add_argument("name", metavar="STEM", help="a paper, another notebook, or the path of an .ipynb")
    add_run_arguments(parser)
    parser.add_argument(
        "-p", action="append", default=[], metavar="NAME=V1,V2", dest="values", help="an axis of the grid"
    )


def run(arguments: argparse.Namespace) -> int:
    from workbench.runs.notebooks import find_notebook
    from workbench.runs.parameters import read_grid
    from workbench.runs.session import print_claims, run_session
    from workbench.runs.sweep import plan_sweep, write_index

    notebook = find_notebook(arguments.name)
    grid = read_grid(notebook, arguments.values, profile=arguments.profile)
    if not arguments.values:
        raise ValueError("a sweep needs at least one axis: -p name=v1,v2.")
    jobs = plan_sweep(notebook, grid)
    index = write_index(notebook, grid, jobs)
    done = run_session(jobs, workers=arguments.jobs, force=arguments.force, cell_timeout=arguments.cell_timeout)
    _print_runs(done, [name for name, values in grid.items() if len(values) > 1])
    print_claims([one for one in done if not one.well])
    print(f"index of the sweep: {index}")
    return 0 if all(one.well for one in done) else 1


def _print_runs(runs: list, axes: list[str]) -> None:
    from workbench.runs.forecast import in_words
    from workbench.runs.text_table import print_table

    rows = [
        (
            *(one.parameters.get(name, "from the profile") for name in axes),
            one.status,
            in_words(one.duration) if one.duration else "-",
            ", ".join(f"{count} {verdict}" for verdict, count in one.verdicts.items()) or "-",
        )
        for one in runs
    ]
    print_table((*axes, "status", "time", "verdicts"), rows)
