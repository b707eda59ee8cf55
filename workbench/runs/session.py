"""What ``run`` and ``sweep`` share: skip what is finished, run the rest, tell how it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from workbench.files import write_text
from workbench.runs.forecast import expected_seconds, expected_together, in_words
from workbench.runs.plan import Job
from workbench.runs.store import FINISHED, RUNNING, Run, runs_folder
from workbench.runtime import available_cores

CELL_TIMEOUTS = {"smoke": 300.0, "quick": 900.0, "full": 7200.0, "paper": None}  # seconds; a guard, not a budget


def run_session(
    jobs: Sequence[Job], *, workers: int | None = None, force: bool = False, cell_timeout: float | None = None
) -> list[Run]:
    """Run the jobs that are not finished on record (all of them with ``force``); return all records in order.

    Tells on standard error what is skipped, taken up again and expected, then the progress.

    Args:
        jobs: what to run; twice the same counts once.
        workers: runs at a time; None = as many as there are cores, at most one a job.
        force: run what is finished again too.
        cell_timeout: seconds a cell may take; None = by profile.
    """
    jobs = list({job.folder: job for job in jobs}.values())
    records = {job.folder: job.recorded() for job in jobs}
    due = [job for job in jobs if force or not (records[job.folder] and records[job.folder].status == FINISHED)]
    for job in jobs:
        record = records[job.folder]
        if job not in due:
            _tell(f"{job.label}: up to date, finished {record.started}")
        elif record and record.status != RUNNING:
            _tell(f"{job.label}: {record.status} before, run again")
    if due:
        write_text(runs_folder() / ".written", "")  # a folder that cannot be written is told before anything starts
        records |= _run(due, workers, cell_timeout)
    return [records[job.folder] for job in jobs]


def _run(jobs: list[Job], workers: int | None, cell_timeout: float | None) -> dict[Path, Run]:
    """The record of each job by the job's folder; a redo that was killed lies in another."""
    from workbench.runs.bar import RunsBar
    from workbench.runs.pool import run_jobs

    cores = available_cores()
    workers = min(workers or cores, len(jobs))
    expected = {job.folder: expected_seconds(job) for job in jobs}
    together = expected_together(list(expected.values()), workers)
    unknown = sum(value is None for value in expected.values())
    told = "not known yet" if together is None else f"about {in_words(together)}"
    more = f", {unknown} of them never run before" if together is not None and unknown else ""
    _tell(f"{len(jobs)} {'run' if len(jobs) == 1 else 'runs'}, {workers} at a time; expected time: {told}{more}")
    # The longest first, so that no long one is left alone at the end.
    ordered = sorted(jobs, key=lambda job: -(expected[job.folder] or float("inf")))

    def limit(job: Job) -> float | None:
        return cell_timeout or CELL_TIMEOUTS.get(job.profile, CELL_TIMEOUTS["quick"])

    start = time.monotonic()
    with RunsBar(ordered) as bar:
        done = run_jobs(ordered, workers=workers, cores=cores, cell_timeout=limit, on_event=bar.on_event)
    _tell(f"real time: {in_words(time.monotonic() - start)}")
    return {job.folder: run for job, run in zip(ordered, done, strict=True)}


def print_claims(runs: Sequence[Run]) -> None:
    """The claims of all runs with their verdicts, as a table on standard output."""
    from workbench.runs.gallery.interval import estimate_words
    from workbench.runs.text_table import print_table

    rows = [
        (run.stem, claim["verdict"], "yes" if claim["gates"] else "", estimate_words(claim), claim["statement"])
        for run in runs
        for claim in run.claims
    ]
    if rows:
        print_table(("paper", "verdict", "gating", "estimate", "claim"), rows)
    for run in runs:
        if not run.well:
            why = run.error or "gating claim not supported: " + "; ".join(run.failed_gates)
            print(f"{run.stem}: {run.status}: {why}\n  see {run.notebook}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
