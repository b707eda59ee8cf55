"""Jobs over worker processes: papermill is imported once in each, and no death stops the others."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from workbench.files import PROJECT, data_folder
from workbench.runs.notebooks import notebooks_folder
from workbench.runs.plan import Job
from workbench.runs.store import (
    FAILED,
    KILLED,
    RUNNING,
    Run,
    keep_log,
    keep_unfinished_notebook,
    load_run,
    working_folder,
)

SECONDS_TO_GO = 10.0
Message = tuple["Worker", dict[str, Any] | None]


class Worker:
    """One worker process and the job it has."""

    def __init__(self, messages: queue.Queue[Message]):
        # A kernel starts in the notebook's folder, where a relative path would mean another place.
        environment = {**os.environ, "WORKBENCH_DATA": str(data_folder())}
        environment["WORKBENCH_NOTEBOOKS"] = str(notebooks_folder())
        if (PROJECT / "pyproject.toml").is_file():
            paths = [str(PROJECT), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        # Of its own session, so that Ctrl-C reaches only the parent, which then ends its workers in order.
        apart = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._sockets = tempfile.mkdtemp(prefix="runs-")  # short: a socket's path has no room for a deep folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.runs.worker", self._sockets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
            **apart,
        )
        self.job: Job | None = None
        self.kernel: int | None = None
        self._messages = messages
        threading.Thread(target=self._listen, daemon=True).start()

    def give(self, job: Job, *, cores: int, cell_timeout: float | None) -> None:
        """Send a job; the answer comes as messages."""
        self.job, self.kernel = job, None
        order = {
            "stem": job.stem,
            "notebook": str(job.notebook.path),
            "parameters": job.parameters,
            "identity": job.identity,
            "folder": str(job.folder),
            "cores": cores,
            "cell_timeout": cell_timeout,
        }
        with suppress(OSError):  # dead already: the end of its output says so too
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """Let the worker kill its kernel and go."""
        with suppress(OSError):
            self.process.stdin.close()

    def wait(self) -> None:
        """Wait until the worker is gone, by force if it takes too long, and its kernel too."""
        try:
            self.process.wait(SECONDS_TO_GO)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        kill_family(self.kernel)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _listen(self) -> None:
        for line in self.process.stdout:
            self._messages.put((self, json.loads(line)))
        self._messages.put((self, None))


def kill_family(kernel: int | None) -> None:
    """Kill a kernel and its children after its worker died; it would go by itself a second later."""
    import psutil

    if kernel is None:
        return
    try:
        process = psutil.Process(kernel)
        if "ipykernel_launcher" not in process.cmdline():
            return  # gone, and the pid is somebody else's
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    cores: int,
    cell_timeout: Callable[[Job], float | None] = lambda job: None,
    on_event: Callable[[Job, str, Any], None] = lambda job, event, value: None,
) -> list[Run]:
    """Run every job, ``workers`` at a time, each with its share of ``cores``; return their records in order.

    Args:
        jobs: what to run; the first is started first.
        workers: how many at a time.
        cores: of the machine; each run gets ``cores // workers``, at least one.
        cell_timeout: seconds a single cell of a job may take, None for ever.
        on_event: called with a job and ``"start"``, ``"cell"`` (with the number of cells done), ``"end"``
            (with the :class:`Run`), or ``"wait"`` every second in which nothing happens.

    Raises:
        KeyboardInterrupt: after kernels and workers are gone and unfinished runs are marked as killed.
    """
    pending, ended = deque(jobs), {}
    messages: queue.Queue[Message] = queue.Queue()
    busy: list[Worker] = []
    hired: list[Worker] = []
    share = max(1, cores // workers)

    def start(worker: Worker | None) -> None:
        if not pending:
            if worker:
                worker.end()
            return
        if worker is None:
            worker = Worker(messages)
            hired.append(worker)
        job = pending.popleft()
        worker.give(job, cores=share, cell_timeout=cell_timeout(job))
        busy.append(worker)
        on_event(job, "start", None)

    def finish(worker: Worker, refusal: str | None) -> None:
        job = worker.job
        busy.remove(worker)
        ended[job.folder] = _record_of(job, refusal)
        on_event(job, "end", ended[job.folder])

    with _terminated_like_interrupted():
        try:
            for _ in range(min(workers, len(jobs))):
                start(None)
            while busy:
                try:
                    worker, message = messages.get(timeout=1.0)  # a wait without end hears no Ctrl-C on Windows
                except queue.Empty:
                    on_event(busy[0].job, "wait", None)
                    continue
                if message is None:
                    worker.wait()
                    if worker in busy:
                        told = f"Its worker process died (exit code {worker.process.returncode})."
                        finish(worker, told)
                        start(None)
                elif message["event"] == "kernel":
                    worker.kernel = message["pid"]
                elif message["event"] == "cell":
                    on_event(worker.job, "cell", message["done"])
                else:
                    finish(worker, message.get("error"))
                    start(worker)
        finally:
            for worker in hired:
                worker.end()
            for worker in hired:
                worker.wait()
            for worker in busy:  # only after Ctrl-C, SIGTERM or a fault of ours
                mark_killed(worker.job, "Interrupted; the same command takes it up again.")
    return [ended[job.folder] for job in jobs]


def _record_of(job: Job, refusal: str | None) -> Run:
    """What the worker left on disk, or what can be said where it could not write."""
    if refusal and not refusal.startswith("Its worker process died"):
        return Run(job.stem, job.identity, job.folder, FAILED, job.profile, job.parameters, error=refusal)
    return (
        mark_killed(job, refusal)
        if refusal
        else load_run(working_folder(job.folder)) or mark_killed(job, "Its record is gone.")
    )


def mark_killed(job: Job, reason: str) -> Run:
    """Write that a run ended without its worker being able to say so; a run that had ended stays as it is."""
    folder = working_folder(job.folder)
    run = load_run(folder) or Run(job.stem, job.identity, job.folder, RUNNING, job.profile, job.parameters)
    if run.status in (RUNNING, KILLED):
        run.status, run.error = KILLED, reason
        keep_unfinished_notebook(folder)
        run.save()
        keep_log(job.folder)
    return run


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which schedulers and ``timeout`` send, ends the runs as cleanly as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
