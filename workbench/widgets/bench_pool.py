"""The workers of the bench for teachers: what is due is given out, what they tell is kept, and all can be stopped.

Nothing heavy happens here: the notebook's kernel drives it from one thread and goes on answering.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from workbench.files import PROJECT, data_folder
from workbench.runs.store import FAILED, FINISHED, KILLED, RUNNING, STOPPED
from workbench.runtime import available_cores
from workbench.training.bench_run import StudentRun
from workbench.training.objective import NO_TEACHER
from workbench.widgets.bench_job import BenchJob, as_order

WAITING, STARTING, TEACHER = "waiting", "starting", "teacher"
OVER = (FINISHED, FAILED, KILLED, STOPPED)
SECONDS_TO_GO = 10.0
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")}


@dataclass
class Line:
    """One run as the bench shows it; ``points`` are (step, nats per byte, seconds, tokens per second)."""

    job: BenchJob
    state: str = WAITING  # waiting | teacher | starting | running | finished | stopped | killed | failed
    step: int = 0
    points: list[tuple[int, float, float, float]] = field(default_factory=list)
    error: str | None = None
    changed: bool = True  # since it was drawn last
    began: float | None = None  # monotonic, of the training in this sitting
    began_at: int = 0  # the step it began at

    @property
    def run(self) -> StudentRun:
        """What is trained."""
        return self.job.run

    @property
    def nats(self) -> float | None:
        """The latest held-out loss."""
        return self.points[-1][1] if self.points else None

    @property
    def speed(self) -> float | None:
        """Tokens per second lately."""
        return self.points[-1][3] if self.points else None

    @property
    def seconds_left(self) -> float | None:
        """Until this run ends at its pace in this sitting, evaluations included; None where it is not known."""
        if self.state != RUNNING or self.began is None or self.step <= self.began_at:
            return None
        pace = (time.monotonic() - self.began) / (self.step - self.began_at)
        return pace * (self.run.steps - self.step)


@dataclass
class _TeacherTask:
    """A teacher that is trained or fetched, and measured, before its students begin."""

    run: StudentRun


class WorkerProcess:
    """One process and what it is at."""

    def __init__(self, messages: queue.Queue[tuple[WorkerProcess, dict[str, Any] | None]]) -> None:
        environment = {**os.environ, **ONE_THREAD, "WORKBENCH_CORES": "1", "TQDM_DISABLE": "1"}
        environment |= {"WORKBENCH_DATA": str(data_folder()), "TOKENIZERS_PARALLELISM": "false"}
        environment.pop("WORKBENCH_RUN", None)  # a run's folder is the notebook's, not the students'
        if (PROJECT / "pyproject.toml").is_file():
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")]))
        # Of its own group: the kernel's interrupt button must not reach it, Stop does. Not of its own session: Linux
        # gives each session its share of the processor, whatever the niceness of what runs in it.
        apart: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"process_group": 0}
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.widgets.bench_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment, **apart,
        )  # fmt: skip
        self.task: Line | _TeacherTask | None = None
        self.last_teacher: tuple[Any, ...] | None = None
        self._messages = messages
        self._writing = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, line: str) -> None:
        """A line of its input; a process that died says so by the end of its output."""
        with self._writing, suppress(OSError, ValueError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """Let it go: at once where it has nothing to do, after the step it is in otherwise."""
        with self._writing, suppress(OSError):
            self.process.stdin.close()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self._messages.put((self, json.loads(line)))
        self._messages.put((self, None))


class BenchPool:
    """Gives lines to worker processes, one torch thread each, and keeps the lines up to date.

    Args:
        lines: the runs; those that are finished are left alone.
        workers: processes at a time; None = as many as there are cores, at most one a line.
    """

    def __init__(self, lines: Sequence[Line], *, workers: int | None = None) -> None:
        self.lines = list(lines)
        self._due = [line for line in self.lines if line.state != FINISHED]
        # Runs of one teacher side by side: a worker then keeps it loaded.
        order = list(dict.fromkeys(line.run.teacher_key for line in self._due))
        self._due.sort(key=lambda line: order.index(line.run.teacher_key))
        for line in self._due:
            line.state, line.error, line.changed = WAITING, None, True
        self._workers: list[WorkerProcess] = []
        self._most = max(1, min(workers or available_cores(), len(self._due) or 1))
        self._messages: queue.Queue[tuple[WorkerProcess, dict[str, Any] | None]] = queue.Queue()
        self._facts: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._preparing: set[tuple[Any, ...]] = set()
        self.stopping = False

    @property
    def over(self) -> bool:
        """Whether nothing is due and nobody works."""
        return not self._due and all(worker.task is None for worker in self._workers)

    def stop(self) -> None:
        """Ask every worker to end at its next step and give out nothing more; any thread may call it."""
        self.stopping = True
        for worker in list(self._workers):
            worker.send("stop")

    def drive(self, seconds: float) -> None:
        """Give out what is due and take in what is told, for about so long."""
        end = time.monotonic() + seconds
        self._give_out()
        while (left := end - time.monotonic()) > 0 and not self.over:
            with suppress(queue.Empty):
                self._take_in(*self._messages.get(timeout=left))
            self._give_out()

    def close(self) -> None:
        """Let all workers go and wait until they are gone."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            try:
                worker.process.wait(SECONDS_TO_GO)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.process.stdout.close()

    def _give_out(self) -> None:
        if self.stopping:
            for line in self._due:
                line.state, line.error, line.changed = STOPPED, "Stopped before it began.", True
            self._due = []
            return
        while (free := self._free()) is not None and (task := self._next(free)) is not None:
            self._give(free, task)

    def _free(self) -> WorkerProcess | None:
        for worker in self._workers:
            if worker.task is None and worker.process.poll() is None:
                return worker
        if len(self._workers) < self._most and self._due:
            self._workers.append(WorkerProcess(self._messages))
            return self._workers[-1]
        return None

    def _next(self, worker: WorkerProcess) -> Line | _TeacherTask | None:
        """A run of the teacher that the worker holds, else of a teacher that is ready, else a teacher to make ready."""
        ready = [line for line in self._due if line.run.teacher == NO_TEACHER or line.run.teacher_key in self._facts]
        same = [line for line in ready if line.run.teacher_key == worker.last_teacher]
        if same or ready:
            return (same or ready)[0]
        for line in self._due:
            if line.run.teacher_key not in self._preparing:
                return _TeacherTask(line.run)
        return None  # others are making ready what the rest needs

    def _give(self, worker: WorkerProcess, task: Line | _TeacherTask) -> None:
        worker.task, worker.last_teacher = task, task.run.teacher_key
        if isinstance(task, _TeacherTask):
            self._preparing.add(task.run.teacher_key)
            self._mark_students(task, TEACHER, None)
            worker.send(json.dumps({"kind": "teacher", "run": task.run.parameters()}))
            if self.stopping:
                worker.send("stop")
            return
        self._due.remove(task)
        task.state, task.changed = STARTING, True
        task.step, task.points, task.began = 0, [], None  # what a checkpoint holds is told again
        facts = self._facts.get(task.run.teacher_key)
        worker.send(json.dumps({"kind": "student", **as_order(task.job), "facts": facts}))
        if self.stopping:  # it came between the check and the order
            worker.send("stop")

    def _take_in(self, worker: WorkerProcess, message: dict[str, Any] | None) -> None:
        task = worker.task
        if message is None:
            self._workers.remove(worker)
            worker.process.wait()
            if task is not None:
                self._end(worker, KILLED, f"Its process died (exit code {worker.process.returncode}).", None)
        elif message["event"] == "ended":
            self._end(worker, message["status"], message["error"], message.get("facts"))
        elif isinstance(task, Line):
            task.changed = True
            if message["event"] == "at" and message["what"] == "training":
                task.state, task.began = RUNNING, time.monotonic()
            elif message["event"] == "point":
                task.points.append(tuple(message["point"]))
                self._reached(task, message["point"][0])
            elif message["event"] == "step":
                self._reached(task, message["step"])

    @staticmethod
    def _reached(line: Line, step: int) -> None:
        if line.step == 0:
            line.began_at = step  # the first word after a resume: what was done before is not this sitting's
            line.began = time.monotonic()
        elif line.points and step < line.step:
            return
        line.step = step

    def _end(self, worker: WorkerProcess, status: str, error: str | None, facts: dict[str, Any] | None) -> None:
        task, worker.task = worker.task, None
        if isinstance(task, _TeacherTask):
            key = task.run.teacher_key
            self._preparing.discard(key)
            if status == FINISHED:
                self._facts[key] = facts
                self._mark_students(task, WAITING, None)
            else:
                told = f"Its teacher: {error}"
                self._mark_students(task, status, told)
                self._due = [line for line in self._due if line.run.teacher_key != key]
            return
        if status == "taken":
            # Another process has it: what that one found is what is on record.
            record = task.job.recorded()
            status = FINISHED if record and record.status == FINISHED else FAILED
            error = None if status == FINISHED else error
        task.state, task.error, task.changed = status, error, True
        if status == FINISHED:
            task.step = task.run.steps

    def _mark_students(self, task: _TeacherTask, state: str, error: str | None) -> None:
        for line in self._due:
            if line.run.teacher_key == task.run.teacher_key:
                line.state, line.error, line.changed = state, error, True
