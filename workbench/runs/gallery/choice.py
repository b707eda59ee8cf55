"""Which runs a gallery shows: per notebook and profile the latest, of the profiles the largest that finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from workbench.profiles import PROFILES
from workbench.runs.gallery.bench import of_one_bench
from workbench.runs.papers import Paper
from workbench.runs.store import BENCH, FINISHED, RUNNING, Run

# Largest first; a run without a profile (a notebook that has none) comes after full and before smoke.
PREFERENCE = ("paper", "full", "quick", "", "smoke")


@dataclass
class Shown:
    """One notebook in the gallery: its best run first, then the other profiles' latest."""

    stem: str
    paper: Paper | None  # None for a notebook that has no experiment
    runs: list[Run] = field(default_factory=list)  # one a profile, the one to show first
    others: int = 0  # runs with parameters of their own, which belong to a sweep
    bench: list[Run] = field(default_factory=list)  # of a widget's bench: the runs that stand on one page

    @property
    def best(self) -> Run | None:
        """The run that stands for the notebook, or None before any."""
        return self.runs[0] if self.runs else None


def choose(runs: Iterable[Run], papers: Iterable[Paper]) -> list[Shown]:
    """What to show of ``runs``: every paper, run or not, then the other notebooks that were run."""
    by_stem: dict[str, list[Run]] = {}
    for run in runs:
        if run.status != RUNNING:
            by_stem.setdefault(run.stem, []).append(run)
    known = {paper.stem: paper for paper in papers}
    stems = [*known, *sorted(stem for stem in by_stem if stem not in known)]
    return [_shown(stem, known.get(stem), by_stem.get(stem, [])) for stem in stems]


def _shown(stem: str, paper: Paper | None, runs: list[Run]) -> Shown:
    by_bench = sorted((run for run in runs if run.profile == BENCH), key=_finished_then_newest, reverse=True)
    newest = sorted((run for run in runs if run.profile != BENCH), key=lambda run: run.started, reverse=True)
    # A sweep's forty settings are not the paper's protocol: the profile as it stands is.
    plain = [run for run in newest if not own_parameters(run)]
    latest = {run.profile: run for run in reversed(plain or newest)}
    best_first = sorted(latest.values(), key=lambda run: (run.status != FINISHED, rank(run.profile)))
    if any(run.profile != "smoke" for run in best_first):
        best_first = [run for run in best_first if run.profile != "smoke"]  # the tests' size, of no interest here
    best_first += by_bench[:1]  # after the notebook's own: one of many runs, which stand together on its page
    bench = of_one_bench(by_bench[0], by_bench) if by_bench else []
    return Shown(stem, paper, best_first, len(newest) - len(plain) if plain else 0, bench)


def _finished_then_newest(run: Run) -> tuple[bool, str]:
    return run.status == FINISHED, run.started


def own_parameters(run: Run) -> dict[str, object]:
    """The parameters that a run was given beyond its profile."""
    return {name: value for name, value in run.parameters.items() if name != "profile" and value is not None}


def rank(profile: str) -> int:
    """How early a profile is preferred; 0 is the largest."""
    return PREFERENCE.index(profile) if profile in PREFERENCE else len(PROFILES)


def page_name(run: Run) -> str:
    """The file name of a run's page."""
    return f"{run.stem}-{run.profile}.html" if run.profile else f"{run.stem}.html"
