"""Progress over runs and their cells: a bar for the eye, a line per notebook for a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from workbench.progress import SECONDS_BETWEEN_LINES
from workbench.runs.forecast import in_words
from workbench.runs.plan import Job
from workbench.runs.store import FINISHED, Run


class RunsBar:
    """Shows the events of :func:`workbench.runs.pool.run_jobs`; use it as a context manager."""

    def __init__(self, jobs: Sequence[Job]):
        self._cells = {job.folder: job.code_cells + 1 for job in jobs}  # papermill adds one with the parameters
        self._done = dict.fromkeys(self._cells, 0)
        self._labels: dict[Any, str] = {}
        self._ended = 0
        self._start = self._shown = time.monotonic()
        self._bar = None

    def __enter__(self) -> RunsBar:
        if sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE"):
            from tqdm import tqdm

            self._bar = tqdm(total=sum(self._cells.values()), unit="cell", dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_event(self, job: Job, event: str, value: Any) -> None:
        """Take note of a job's start, of a cell, of its end, or of time that goes by."""
        if event == "start":
            self._labels[job.folder] = job.label
        elif event == "cell":
            self._done[job.folder] = min(value, self._cells[job.folder])
        elif event == "end":
            self._done[job.folder] = self._cells[job.folder]
            self._labels.pop(job.folder, None)
            self._ended += 1
            self._tell(f"[{self._ended}/{len(self._cells)}] {line_of(value)}")
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.n = sum(self._done.values())
            self._bar.set_description_str(", ".join(self._labels.values())[:60], refresh=False)
            self._bar.refresh()
        elif now - self._shown >= SECONDS_BETWEEN_LINES and self._labels:
            running = ", ".join(
                f"{label} (cell {self._done[folder]}/{self._cells[folder]})" for folder, label in self._labels.items()
            )
            self._tell(f"after {in_words(now - self._start)}: {running}")

    def _tell(self, line: str) -> None:
        self._shown = time.monotonic()
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def line_of(run: Run) -> str:
    """One line on how a run ended."""
    told = " ".join(f"{name}={value}" for name, value in run.parameters.items() if name != "profile")
    name = " ".join(part for part in (run.stem, run.profile, told) if part)
    took = f" in {in_words(run.duration)}" if run.duration else ""
    verdicts = "".join(f", {count} {verdict}" for verdict, count in run.verdicts.items())
    return f"{name}: {run.status}{took}{verdicts}" + ("" if run.status == FINISHED else f": {run.error}")
