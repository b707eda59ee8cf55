"""Records: what finished runs found, small enough to be committed; README's table is made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.files import PROJECT, write_json, write_text
from workbench.runs.gallery.choice import Shown, choose, own_parameters, rank
from workbench.runs.gallery.interval import estimate_words
from workbench.runs.gallery.words import SIGNS, count_verdicts, duration_words
from workbench.runs.papers import Paper, papers
from workbench.runs.store import FINISHED, Run, runs

FOLDER = Path(__file__).resolve().parent.parent / "records"
README = PROJECT / "README.md"
BEGIN, END = "<!-- papers:begin -->", "<!-- papers:end -->"
NO_RECORDS = "No paper has been run and recorded yet."


def record_of(paper: Paper, run: Run) -> dict[str, Any]:
    """What is kept of a finished run: the paper, each claim as it came out, time, machine in general words.

    Raises:
        ValueError: the run did not finish.
    """
    if run.status != FINISHED:
        raise ValueError(f"the run of {run.stem} {run.status}: only finished runs are recorded; run it again first.")
    kept = ("statement", "verdict", "estimate", "low", "high", "n", "threshold", "source", "gates")
    return {
        "stem": paper.stem,
        "title": paper.title,
        "claim": paper.claim,
        "citation": paper.citation,
        "profile": run.profile,
        "date": run.started[:10],
        "duration": None if run.duration is None else round(run.duration),
        "machine": machine_words(run),
        "version": __version__,
        "claims": [{name: _finite(claim.get(name)) for name in kept} for claim in run.claims],
    }


def machine_words(run: Run) -> str:
    """The machine in words that hold for many: cores given to the run, graphics cards, system, architecture."""
    told = run.provenance
    system, architecture = _system(str(told.get("platform", "")))
    cores = run.cores or told.get("cpu_cores")
    parts = [
        f"{cores} CPU core{'' if cores == 1 else 's'}" if cores else "",
        ", ".join(told.get("gpu") or []) or "no GPU",
        f"{system} {architecture}".strip(),
    ]
    return ", ".join(part for part in parts if part)


def _system(platform: str) -> tuple[str, str]:
    names = {"Linux": "Linux", "macOS": "macOS", "Darwin": "macOS", "Windows": "Windows"}
    system = next((name for start, name in names.items() if platform.startswith(start)), "")
    architecture = next((one for one in ("x86_64", "arm64", "aarch64", "AMD64") if one in platform), "")
    return system, architecture


def _finite(value: Any) -> Any:
    """JSON knows no NaN: an interval that does not exist is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_records(
    folder: Path = FOLDER, *, of_runs: Iterable[Run] | None = None, of_papers: Iterable[Paper] | None = None
) -> list[Path]:
    """Write ``<stem>.json`` for every paper whose best run finished; return what was written.

    The others keep the record they have, and so does a paper that was recorded at a larger profile: delete
    that record to put the smaller run in its place.
    """
    shown = choose(runs() if of_runs is None else of_runs, papers() if of_papers is None else of_papers)
    written = []
    for one in shown:
        target = folder / f"{one.stem}.json"
        if one.paper and recordable(one) and not _larger_on_file(target, one.best):
            write_json(target, record_of(one.paper, one.best))
            written.append(target)
    return written


def recordable(one: Shown) -> bool:
    """Whether the run that stands for a notebook finished, at a size that means something, as the profile stands."""
    run = one.best
    return run is not None and run.status == FINISHED and run.profile != "smoke" and not own_parameters(run)


def _larger_on_file(target: Path, run: Run) -> bool:
    if not target.is_file():
        return False
    return rank(json.loads(target.read_text(encoding="utf-8"))["profile"]) < rank(run.profile)


def load_records(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All records on file, by stem."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def readme_table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row per paper with its verdicts counted, then every claim with its number, folded paper by paper."""
    if not records:
        return NO_RECORDS
    lines = [_row(("Paper", "Notebook", "What it says", "Verdicts")), "|---|---|---|---|"]
    for record in records:
        stem = record["stem"]
        told = (record["profile"], duration_words(record["duration"]) if record["duration"] else "")
        notebook = f"[`{stem}`](notebooks/{stem}.ipynb) ({', '.join(part for part in told if part)})"
        counted = count_verdicts(record["claims"])
        verdicts = ", ".join(f"{count} {SIGNS[verdict]} {verdict}" for verdict, count in counted.items())
        title, claim = _cell(record["title"]), _cell(record["claim"])
        lines.append(_row((f"**{title}**", notebook, claim, verdicts or "no claims checked")))
    return "\n".join([*lines, "", *("\n".join(_folded(record)) for record in records if record["claims"])])


def _folded(record: dict[str, Any]) -> Iterator[str]:
    """The claims of one paper as a table that opens at a click."""
    yield f"<details><summary>Claims of <code>{record['stem']}</code>: {_cell(record['title'])}</summary>"
    yield ""
    yield _row(("Claim", "Verdict", "Estimate, 95% interval", "Holds if"))
    yield "|---|---|---|---|"
    for claim in record["claims"]:
        verdict = f"{SIGNS[claim['verdict']]} {claim['verdict']}"
        yield _row((_cell(claim["statement"]), verdict, _cell(estimate_words(claim)), _cell(claim["threshold"])))
    yield ""
    yield "</details>"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor begin an HTML tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def update_readme(readme: Path = README, *, records: Sequence[dict[str, Any]] | None = None) -> bool:
    """Put the table between the two markers of ``readme``; return whether anything changed.

    Raises:
        ValueError: the markers are missing or the wrong way round.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme.name} needs the lines {BEGIN} and {END}, in this order, for the table of papers.")
    table = readme_table(load_records() if records is None else records)
    new = f"{before}{BEGIN}\n{table}\n{END}{after}"
    if new != text:
        write_text(readme, new)
    return new != text
