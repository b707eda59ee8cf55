"""A run of the bench for teachers in the store of runs: where it lies, what is recorded of it and when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files import atomic_path, locked, write_text
from workbench.runs.identity import code_hash
from workbench.runs.provenance import provenance
from workbench.runs.store import BENCH, FAILED, FINISHED, RUNNING, STOPPED, Run, load_run, runs_folder, this_process
from workbench.training.bench_run import StudentRun

if TYPE_CHECKING:
    from workbench.training.bench_student import TrainedStudent
    from workbench.training.bench_teacher import BenchText

STEM = "compare_teachers"
CHECKPOINT, MODEL = "checkpoint.pt", "model"


@dataclass(frozen=True)
class BenchJob:
    """A run with its place in the store: named by its parameters, the files behind them, and the code."""

    run: StudentRun
    identity: str
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """What a stop leaves."""
        return self.folder / CHECKPOINT

    @property
    def model(self) -> Path:
        """The trained student, as transformers reads it."""
        return self.folder / MODEL

    def recorded(self) -> Run | None:
        """What is on record of it, or None."""
        return load_run(self.folder)


def bench_jobs(runs: Sequence[StudentRun]) -> list[BenchJob]:
    """The jobs of ``runs``; reads the corpus, which takes a moment.

    Raises:
        ValueError, AssetError: the corpus cannot be had.
    """
    read: dict[tuple[str, str, str], str] = {}
    jobs = []
    for run in runs:
        names = (run.teacher, run.vocabulary, run.corpus)
        if names not in read:
            read[names] = run.files()
        told = json.dumps([STEM, run.parameters(), read[names], code_hash()], sort_keys=True, ensure_ascii=False)
        identity = hashlib.sha256(told.encode()).hexdigest()[:16]
        jobs.append(BenchJob(run, identity, runs_folder() / STEM / identity))
    return jobs


class Taken(RuntimeError):
    """Another process has finished or runs exactly this job."""


@contextmanager
def recorded(job: BenchJob) -> Iterator[Run]:
    """Claim the folder of a job, write that it runs, and write how it ended; the block sets status and error.

    What a stopped or killed run left stays: its checkpoint is gone on from, its time is added to.

    Raises:
        Taken: another process has it.
        AssetError: the folder cannot be written.
    """
    with locked(job.folder):
        last = load_run(job.folder)
        if last and last.status == RUNNING:
            raise Taken(f"Process {last.process['pid']} trains it at this moment.")
        if last and last.status == FINISHED:
            raise Taken("It has been finished meanwhile.")
        if last is None or not job.checkpoint.is_file():
            last = None  # it begins anew
        run = Run(
            stem=STEM, identity=job.identity, folder=job.folder, profile=BENCH, parameters=job.run.parameters(),
            config=job.run.parameters(), started=last.started if last else _now(), cores=1, provenance=provenance(),
            process=this_process(),
            duration=last.duration if last else None, cpu_seconds=last.cpu_seconds if last else None,
            peak_memory_mib=last.peak_memory_mib if last else None,
        )  # fmt: skip
        job.folder.mkdir(parents=True, exist_ok=True)
        run.save()
    cost = Cost(run)
    try:
        yield run
    finally:
        if run.status == RUNNING:
            run.status, run.error = FAILED, run.error or "It ended without a word."
        cost.add()
        run.save()


class Cost:
    """Adds what one sitting took to what is on record of a run."""

    def __init__(self, run: Run) -> None:
        from workbench.widgets.bench_memory import MemoryWatch

        self.run, self.memory = run, MemoryWatch()

    def add(self) -> None:
        """The sitting has ended."""
        seconds, cpu_seconds, peak = self.memory.end()
        run = self.run
        run.duration = round((run.duration or 0.0) + seconds, 2)
        run.cpu_seconds = round((run.cpu_seconds or 0.0) + cpu_seconds, 2)
        run.peak_memory_mib = round(max(run.peak_memory_mib or 0.0, peak), 1)


def keep(job: BenchJob, found: TrainedStudent, text: BenchText) -> None:
    """Write rows, curves and the student itself; the record that says finished comes after."""
    import pandas as pd

    from workbench.training.bench_student import save_student

    for name, table in (("rows", pd.DataFrame([found.row])), ("curves", found.curve)):
        with atomic_path(job.folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary)
    with atomic_path(job.model) as temporary:
        save_student(found, job.run, text, temporary)


def keep_traceback(job: BenchJob, text: str) -> None:
    """What went wrong, in full, for whoever wants to mend it."""
    write_text(job.folder / "run.log", text)


def stopped_words(run: Run, step: int, steps: int) -> None:
    """Say in ``run`` that somebody stopped it."""
    run.status = STOPPED
    run.error = f"Stopped after step {step} of {steps}; Run goes on from there."


def as_order(job: BenchJob) -> dict[str, Any]:
    """JSON-ready."""
    return {"run": job.run.parameters(), "identity": job.identity, "folder": str(job.folder)}


def from_order(order: dict[str, Any]) -> BenchJob:
    """The way back from :func:`as_order`."""
    return BenchJob(StudentRun(**order["run"]), order["identity"], Path(order["folder"]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
