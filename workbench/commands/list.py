"""List papers and notebooks with what has been run and how the claims came out.

With a name: its claim, its parameters (name, type, default, meaning) and its last runs.
"""

from __future__ import annotations

import argparse

EXAMPLES = (
    "python -m workbench list            # every paper, the runs there are, their verdicts",
    "python -m workbench list taid       # what can be asked of one, and its last runs",
)
RUNS_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="STEM", help="a paper or another notebook")


def run(arguments: argparse.Namespace) -> int:
    if arguments.name:
        _tell_of_one(arguments.name)
    else:
        _tell_of_all()
    return 0


def _tell_of_all() -> None:
    from workbench.runs.notebooks import notebooks, notebooks_folder
    from workbench.runs.papers import papers
    from workbench.runs.text_table import print_table

    there = papers()
    others = [notebook for notebook in notebooks() if notebook.stem not in {paper.stem for paper in there}]
    if not there and not others:
        print(f"There are no notebooks in {notebooks_folder()}; python -m workbench new STEM makes one.")
    if there:
        print_table(("paper", "runs", "verdicts", "title"), [(p.stem, *_history(p.stem), p.title) for p in there])
    if others:
        print("" if not there else "\nother notebooks")
        print_table(("notebook", "runs", "title"), [(n.stem, _history(n.stem)[0], n.title) for n in others])


def _history(stem: str) -> tuple[str, str]:
    from workbench.profiles import PROFILES
    from workbench.runs.store import FINISHED, runs

    newest = {}
    for one in runs(stem):
        newest.setdefault(one.profile, one)
    done = [
        (profile or "done") + ("" if one.status == FINISHED else f" ({one.status})")
        for profile, one in sorted(newest.items(), key=lambda item: (*PROFILES, item[0]).index(item[0]))
    ]
    judged = next((newest[profile] for profile in ("paper", "full", "quick") if profile in newest), None)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in judged.verdicts.items()) if judged else ""
    return ", ".join(done) or "-", verdicts or "-"


def _tell_of_one(name: str) -> None:
    from workbench.runs.bar import line_of
    from workbench.runs.notebooks import find_notebook
    from workbench.runs.papers import papers
    from workbench.runs.parameters import parameters
    from workbench.runs.store import runs
    from workbench.runs.text_table import print_table

    notebook = find_notebook(name)
    print(f"{notebook.stem}: {notebook.title}\n{notebook.path}")
    for paper in papers(notebook.path.parent):
        if paper.stem == notebook.stem:
            print(f"\n{paper.claim}\n{paper.citation}")
    known = parameters(notebook)
    print("\nparameters (-p name=value)" if known else "\nno parameters")
    if known:
        rows = [(p.name, p.type, "from the profile" if p.default is None else p.default, p.comment) for p in known]
        print_table(("name", "type", "default", "meaning"), rows)
    recent = runs(notebook.stem)
    print("\nlast runs" if recent else "\nno runs yet")
    for one in recent[:RUNS_SHOWN]:
        print(f"  {one.started}  {line_of(one)}\n    {one.folder}")
