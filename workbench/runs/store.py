"""The store of runs: ``data/runs/<stem>/<identity>/`` with ``run.json``, the executed notebook and its rows."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files import data_folder, write_json

if TYPE_CHECKING:
    import pandas as pd

FINISHED, FAILED, KILLED, STOPPED, RUNNING = "finished", "failed", "killed", "stopped", "running"
STATUSES = (FINISHED, FAILED, KILLED, STOPPED, RUNNING)
BENCH = "bench"  # the profile of runs that a widget's bench trained: they have no notebook of their own
UNFINISHED_NOTEBOOK = ".run.part.ipynb"


@dataclass
class Run:
    """One run as ``run.json`` tells it; ``folder`` holds the rest."""

    stem: str
    identity: str  # hash of notebook, parameters and code
    folder: Path
    status: str = RUNNING  # finished | failed | killed | stopped (it can be taken up again) | running
    profile: str = ""  # empty where the notebook has none; bench for a run of a widget's bench
    parameters: dict[str, Any] = field(default_factory=dict)  # those that were given, the profile among them
    started: str = ""  # ISO 8601, UTC
    duration: float | None = None  # seconds, kernel start included
    cpu_seconds: float | None = None  # of the kernel and its children
    peak_memory_mib: float | None = None  # resident, the kernel and its children together
    cores: int | None = None
    error: str | None = None  # one sentence
    claims: list[dict[str, Any]] = field(default_factory=list)  # as ``Claim.as_dict`` stores them
    config: dict[str, Any] = field(default_factory=dict)  # every parameter as the profile resolved it, seeds included
    provenance: dict[str, Any] = field(default_factory=dict)  # git, versions, machine
    process: dict[str, Any] = field(default_factory=dict)  # who runs it: pid and when that process was born

    @property
    def verdicts(self) -> dict[str, int]:
        """How many claims came out with each verdict."""
        return dict(Counter(claim["verdict"] for claim in self.claims))

    @property
    def failed_gates(self) -> list[str]:
        """The statements of gating claims that were judged and are not supported."""
        bad = ("contradicted", "inconclusive")
        return [claim["statement"] for claim in self.claims if claim["gates"] and claim["verdict"] in bad]

    @property
    def well(self) -> bool:
        """Finished, with every gating claim supported."""
        return self.status == FINISHED and not self.failed_gates

    @property
    def notebook(self) -> Path:
        """The executed notebook; there even after a failure, up to the failing cell."""
        return self.folder / "run.ipynb"

    def rows(self) -> pd.DataFrame | None:
        """The tidy rows that the notebook saved, or None."""
        return _read_table(self.folder / "rows.parquet")

    def curves(self) -> pd.DataFrame | None:
        """The curves that the notebook saved, or None."""
        return _read_table(self.folder / "curves.parquet")

    def save(self) -> None:
        """Write ``run.json``, whole or not at all."""
        record = asdict(self)
        del record["folder"]
        write_json(self.folder / "run.json", record)


def _read_table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    import pandas as pd

    return pd.read_parquet(path)


def runs_folder() -> Path:
    """Where runs are kept."""
    return data_folder() / "runs"


def load_run(folder: Path) -> Run | None:
    """The run of a folder; None where ``run.json`` is missing or unreadable.

    A run whose process is gone reads as killed: nothing that died can say so itself.
    """
    try:
        run = Run(folder=folder, **json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if run.status == RUNNING and not process_lives(run.process):
        run.status, run.error = KILLED, "The process that ran it is gone."
    return run


def runs(
    stem: str | None = None, *, profile: str | None = None, status: str | None = None, folder: Path | None = None
) -> list[Run]:
    """The runs on record, newest first, those of one stem, profile or status if asked."""
    pattern = f"{stem or '*'}/*/run.json"
    found = (load_run(path.parent) for path in (folder or runs_folder()).glob(pattern))
    kept = [
        run
        for run in found
        if run
        # A hidden folder is a redo's; once that is killed, the run before it stands.
        and (run.status == RUNNING or not run.folder.name.startswith("."))
        and (profile is None or run.profile == profile)
        and (status is None or run.status == status)
    ]
    return sorted(kept, key=lambda run: run.started, reverse=True)


def latest(stem: str, profile: str | None = None, *, status: str | None = FINISHED) -> Run | None:
    """The newest finished run of a notebook (at a profile), or None."""
    return next(iter(runs(stem, profile=profile, status=status)), None)


def redo_folder(folder: Path) -> Path:
    """Where a finished run is run again: beside its folder, which stays until the redo has ended by itself."""
    return folder.with_name(f".{folder.name}.redo")


def working_folder(folder: Path) -> Path:
    """The folder of the run that was begun last: of the redo, if one has not taken its place."""
    redo = redo_folder(folder)
    return redo if (redo / "run.json").is_file() else folder


def clear_folder(folder: Path) -> None:
    """Empty the folder of a run before it is run again, so that nothing old passes for new."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def keep_unfinished_notebook(folder: Path) -> None:
    """Make what a killed run left of its notebook readable as ``run.ipynb``, or remove it."""
    part = folder / UNFINISHED_NOTEBOOK
    if part.is_file():
        try:
            json.loads(part.read_text(encoding="utf-8"))
        except ValueError:
            part.unlink()  # killed in mid-write
        else:
            os.replace(part, folder / "run.ipynb")


def log_beside(folder: Path) -> Path:
    """Where a run's log is written while it runs: beside its folder, which is emptied when it begins."""
    return folder.with_name(f".{folder.name}.log")


def keep_log(folder: Path) -> None:
    """Move the log into the run's folder as ``run.log``, or remove it if nothing was written."""
    log, folder = log_beside(folder), working_folder(folder)
    if log.is_file():
        if log.stat().st_size and folder.is_dir():
            os.replace(log, folder / "run.log")
        else:
            log.unlink()


def this_process() -> dict[str, Any]:
    """Pid and birth of this process; a pid alone is given to another process one day."""
    import psutil

    return {"pid": os.getpid(), "born": psutil.Process().create_time()}


def process_lives(process: dict[str, Any]) -> bool:
    """Whether the process described by :func:`this_process` still runs."""
    import psutil

    try:
        there = psutil.Process(process["pid"])
        return abs(there.create_time() - process["born"]) < 2 and there.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError):
        return False
