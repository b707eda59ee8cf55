"""Make the four files of a new paper from the house's pattern; they run as they are.

Experiment, notebook, test and a folder for the paper's own numbers share one name, the stem. Nothing that
exists is overwritten.
"""

from __future__ import annotations

import argparse
import keyword
import re
from pathlib import Path

EXAMPLES = (
    "python -m workbench new sharpness_aware                                  # the four files",
    'python -m workbench new lottery_ticket --title "The lottery ticket"      # with the heading you want',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stem", metavar="STEM", help="name of the paper: small letters, digits, underscores")
    parser.add_argument("--title", help="heading of the notebook (default: the stem in words)")


def run(arguments: argparse.Namespace) -> int:
    from workbench.files import PROJECT

    created = create_paper(arguments.stem, arguments.title or in_words(arguments.stem), PROJECT)
    for path in created:
        print(f"created {path.relative_to(PROJECT)}")
    print(
        f"\nNow:\n  python -m workbench run {arguments.stem} --profile smoke\n"
        f"  python -m pytest {created[2].relative_to(PROJECT)}\n"
        "Then replace claim, steps and parameters, and put the numbers you read in the paper into the CSV,\n"
        "each with its source and a status: read, secondary, digitised, derived or recalled."
    )
    return 0


def create_paper(stem: str, title: str, project: Path) -> list[Path]:
    """Write experiment, notebook, test and published table of ``stem``; return their paths in this order.

    Raises:
        ValueError: a stem that cannot be a module's name or is taken, or no checkout to write into.
    """
    from workbench.commands import _new_paper
    from workbench.files import write_text

    check_stem(stem)
    if not (project / "pyproject.toml").is_file():
        raise ValueError(f"{project} is not a checkout of the workbench: clone the repository to add a paper.")
    texts = {
        project / "workbench" / "experiments" / f"{stem}.py": _new_paper.EXPERIMENT.format(stem=stem),
        project / "notebooks" / f"{stem}.ipynb": _new_paper.notebook_text(stem, title),
        project / "tests" / "experiments" / f"test_{stem}.py": _new_paper.TEST.format(stem=stem),
        project / "workbench" / "published" / stem / "table_1.csv": _new_paper.PUBLISHED,
    }
    for path in [*texts, project / "workbench" / "published" / stem]:
        if path.exists():
            raise ValueError(f"{path.relative_to(project)} exists already and is not overwritten: choose another stem.")
    for path, text in texts.items():
        write_text(path, text)
    package = project / "workbench" / "experiments" / "__init__.py"
    if not package.exists():
        write_text(package, '"""Each module is one paper: its claim, its Config, its steps."""\n')
    return list(texts)


def check_stem(stem: str) -> None:
    """Refuse what cannot be the name of a module, a file and a folder on every system."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", stem) or len(stem) > 40:
        near = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_0123456789")[:40].strip("_")
        hint = f" Did you mean {near!r}?" if near and near != stem else ""
        raise ValueError(f"stem={stem!r} must be small letters, digits and single underscores, 40 at most.{hint}")
    if keyword.iskeyword(stem) or stem in ("all", "con", "nul", "aux", "prn"):
        raise ValueError(f"stem={stem!r} is a word that Python, the command line or Windows keeps for itself.")


def in_words(stem: str) -> str:
    """``sharpness_aware`` -> ``Sharpness aware``."""
    return stem.replace("_", " ").capitalize()
