"""Execute one job: papermill in this process, its kernel in another, the record beside it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from workbench.files import PROJECT, locked, take_place, write_json
from workbench.runs.kernel import KernelWatch, death_in_words, kernel_manager_class
from workbench.runs.plan import Job
from workbench.runs.provenance import provenance
from workbench.runs.store import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    UNFINISHED_NOTEBOOK,
    Run,
    clear_folder,
    keep_unfinished_notebook,
    load_run,
    redo_folder,
    this_process,
    working_folder,
)

SECONDS_TO_START = 180  # a loaded machine takes half a minute to import what a kernel needs
THREAD_VARIABLES = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON"))


class AlreadyRunning(RuntimeError):
    """Another process runs exactly this job at this moment."""


def execute(
    job: Job,
    *,
    cores: int = 1,
    cell_timeout: float | None = None,
    on_cell: Callable[[int], None] = lambda done: None,
    on_kernel: Callable[[int], None] = lambda pid: None,
    watch: KernelWatch | None = None,
) -> Run:
    """Run a job's notebook in a kernel of its own and record it in ``job.folder``.

    What is finished there stays until the redo has finished or failed; a redo that is killed leaves it.

    Changes the environment of this process, which the kernel inherits: call it in a worker.

    Args:
        job: what to run.
        cores: the run's share of the machine (``$WORKBENCH_CORES`` and the thread counts in the kernel).
        cell_timeout: seconds a single cell may take; None for ever.
        on_cell: called after each code cell with how many are done, the injected parameters among them.
        on_kernel: called with the kernel's pid.
        watch: lets another thread kill the kernel.

    Raises:
        AlreadyRunning: by another process that lives.
        AssetError: the folder cannot be written.
    """
    import papermill  # noqa: F401  (2 s, which are not the notebook's)

    watch = watch or KernelWatch()
    run = begin(job, cores)
    set_environment(run, cores)
    clock = time.monotonic()
    try:
        run.status, run.error = _papermill(job, run.folder, watch, cell_timeout, on_cell, on_kernel)
    finally:
        watch.end()
        if run.status == RUNNING:
            run.status, run.error = KILLED, "The run was interrupted."
        run.duration = round(time.monotonic() - clock, 2)
        run.cpu_seconds, run.peak_memory_mib = round(watch.cpu_seconds, 2), round(watch.peak_memory_mib, 1)
        close(run)
        if run.folder != job.folder and run.status != KILLED:
            take_place(run.folder, job.folder)
            run.folder = job.folder
    return run


def begin(job: Job, cores: int) -> Run:
    """Claim an empty folder for a job and write that it is running: its own, or one beside what is finished."""
    with locked(job.folder):
        last = load_run(working_folder(job.folder))
        if last and last.status == RUNNING:
            raise AlreadyRunning(f"{job.label} is being run by process {last.process['pid']} at this moment.")
        shutil.rmtree(redo_folder(job.folder), ignore_errors=True)
        earlier = load_run(job.folder)
        folder = redo_folder(job.folder) if earlier and earlier.status == FINISHED else job.folder
        clear_folder(folder)
        run = Run(
            stem=job.stem,
            identity=job.identity,
            folder=folder,
            profile=job.profile,
            parameters=job.parameters,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            cores=cores,
            provenance=provenance(),
            process=this_process(),
        )
        run.save()
    return run


def close(run: Run) -> None:
    """Take in what the notebook saved, tidy its output, and write the final record."""
    keep_unfinished_notebook(run.folder)
    if run.notebook.is_file():
        tidy_notebook(run)
    result = run.folder / "result.json"
    if result.is_file():
        told = json.loads(result.read_text(encoding="utf-8"))
        run.claims, run.config = told["claims"], told["config"]
    run.save()


def set_environment(run: Run, cores: int) -> None:
    """Tell the kernel to come which run it is, where to save and how many cores are its own."""
    os.environ["WORKBENCH_RUN"] = str(run.folder)
    os.environ["WORKBENCH_CORES"] = str(cores)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(cores)))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the debugger's warning in every log
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if (PROJECT / "pyproject.toml").is_file() and str(PROJECT) not in paths:
        # A kernel starts in the notebook's folder; a checkout that is not installed lies one above.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), *paths]))


def _papermill(
    job: Job,
    folder: Path,
    watch: KernelWatch,
    cell_timeout: float | None,
    on_cell: Callable[[int], None],
    on_kernel: Callable[[int], None],
    retry: bool = True,
) -> tuple[str, str | None]:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    done = count()
    began = []

    def on_start(notebook: Any) -> None:
        began.append(True)
        on_kernel(watch.pid or 0)
        on_cell(next(done))

    try:
        execute_notebook(
            job.notebook.path,
            folder / UNFINISHED_NOTEBOOK,
            parameters=job.parameters,
            cwd=job.notebook.path.parent,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=SECONDS_TO_START,
            execution_timeout=cell_timeout,
            kernel_manager_class=kernel_manager_class(watch),
            on_notebook_start=on_start,
            on_cell_executed=lambda cell, cell_index, execute_reply: on_cell(next(done)),
        )
    except PapermillExecutionError as error:
        return FAILED, f"{error.ename} in cell {error.exec_count}: {_first_line(error.evalue)}".removesuffix(": ")
    except CellTimeoutError:
        return FAILED, f"A cell took longer than the {cell_timeout:g} s it may take (--cell-timeout)."
    except DeadKernelError:
        return KILLED, death_in_words(watch.exit_code)
    except Exception as error:
        # A kernel that does not come up fails in many ways (sockets, time, death): one more try, then record it.
        if not began and retry:
            watch.kill()
            return _papermill(job, folder, watch, cell_timeout, on_cell, on_kernel, retry=False)
        return FAILED, f"{'' if began else 'The kernel did not start: '}{type(error).__name__}: {_first_line(error)}"
    return FINISHED, None


def _first_line(told: object) -> str:
    return next(iter(str(told).strip().splitlines()), "")


def tidy_notebook(run: Run) -> None:
    """Drop the state of widgets (a FigureWidget's is 5 MB of plotly.js) and this machine's paths."""
    content: dict[str, Any] = json.loads(run.notebook.read_text(encoding="utf-8"))
    content["metadata"].pop("widgets", None)
    told = content["metadata"].get("papermill", {})
    told.update(input_path=f"{run.stem}.ipynb", output_path="run.ipynb")
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            # Without the state such a view shows as an error.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    write_json(run.notebook, content)
