"""A worker process of the bench for teachers: trains the runs that come in as lines of JSON, tells as it goes.

Started by :mod:`workbench.widgets.bench_pool`. The line ``stop`` ends what it is at within a step and leaves a
checkpoint. So does the end of its input, which comes when whoever started it dies: the run is then on record as
killed, and nothing is left behind.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any, TextIO

from workbench.errors import AssetError
from workbench.runs.store import FAILED, FINISHED, KILLED, Run
from workbench.telemetry import Stopped, Watcher, watched
from workbench.training.bench_run import StudentRun
from workbench.widgets.bench_job import BenchJob, Taken, from_order, keep, keep_traceback, recorded, stopped_words

SECONDS_TO_GO = 120.0  # after its parent died: a step of a large teacher takes a while
SECONDS_BETWEEN_STEPS_TOLD = 0.2
PARENT_GONE = "The process that started it is gone; Run goes on from its checkpoint."


class Worker:
    """Takes orders, and holds the teacher it used last: the next run most often wants the same."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers
        self.orders: queue.Queue[tuple[dict[str, Any], Watcher] | None] = queue.Queue()
        self.watchers: list[Watcher] = []  # one an order: stop means all orders that came before it
        self.alone = threading.Event()  # the parent is gone
        self._held: tuple[tuple[Any, ...], Any] | None = None
        self._texts: dict[tuple[Any, ...], Any] = {}

    def listen(self) -> None:
        """Pass orders on, in a thread of its own."""
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stop()
            else:
                self.watchers.append(Watcher())
                self.orders.put((json.loads(line), self.watchers[-1]))
        self.alone.set()
        self.stop()
        self.orders.put(None)
        time.sleep(SECONDS_TO_GO)
        os._exit(1)

    def stop(self) -> None:
        """End what was ordered so far."""
        for watcher in self.watchers:
            watcher.stop()

    def tell(self, event: str, **values: Any) -> None:
        """One line to the parent, who may be gone."""
        try:
            self.answers.write(json.dumps({"event": event, **values}) + "\n")
            self.answers.flush()
        except OSError:
            self.alone.set()
            self.stop()

    def work(self) -> None:
        """Execute orders until the input ends."""
        _prepare_torch()
        self.tell("ready")
        while (given := self.orders.get()) is not None and not self.alone.is_set():
            order, watcher = given
            with watched(watcher):
                if order["kind"] == "teacher":
                    self._teacher(StudentRun(**order["run"]))
                else:
                    self._student(from_order(order), order.get("facts"))

    def _teacher(self, run: StudentRun) -> None:
        """Train, fetch and measure a teacher, so that no two workers do it."""
        from workbench.training.bench_teacher import measure_teacher

        try:
            teacher, text = self._load(run)
            facts = measure_teacher(run, teacher, text)
        except Stopped:
            self.tell("ended", status="stopped", error="Stopped; a teacher is trained from its beginning.")
        except Exception as error:  # whatever a model does when it is loaded belongs in its line, not in a log
            self.tell("ended", status=FAILED, error=in_words(error))
        else:
            self.tell("ended", status=FINISHED, error=None, facts=asdict(facts))

    def _student(self, job: BenchJob, facts: dict[str, Any] | None) -> None:
        try:
            with recorded(job) as run:
                self._train(job, run, facts)
            self.tell("ended", status=run.status, error=run.error)
        except Taken as error:
            self.tell("ended", status="taken", error=str(error))
        except (AssetError, OSError) as error:
            self.tell("ended", status=FAILED, error=in_words(error))

    def _train(self, job: BenchJob, run: Run, facts: dict[str, Any] | None) -> None:
        from workbench.training.bench_student import LivePoint, train_student
        from workbench.training.bench_teacher import TeacherFacts

        told, now = [0.0], [0]

        def on_point(point: LivePoint) -> None:
            self.tell("point", point=list(point))

        def on_step(step: int) -> None:
            now[0] = step
            if time.monotonic() - told[0] > SECONDS_BETWEEN_STEPS_TOLD:
                told[0] = time.monotonic()
                self.tell("step", step=step)

        try:
            self.tell("at", what="loading")
            teacher, text = self._load(job.run)
            self.tell("at", what="training")
            known = None if facts is None else TeacherFacts(**facts)
            found = train_student(
                job.run, teacher, known, text, on_point=on_point, on_step=on_step, checkpoint=job.checkpoint
            )
            keep(job, found, text)
        except Stopped:
            stopped_words(run, now[0], job.run.steps)
            if self.alone.is_set():
                run.status, run.error = KILLED, PARENT_GONE
        except Exception as error:
            # Whatever it is, it is told in the run's line and in its record, and the next run goes on.
            run.status, run.error = FAILED, in_words(error)
            keep_traceback(job, traceback.format_exc())
        else:
            run.status = FINISHED

    def _load(self, run: StudentRun) -> tuple[Any, Any]:
        from workbench.training.bench_teacher import bench_text, load_teacher

        place = (run.vocabulary, run.corpus, run.context)
        if place not in self._texts:
            self._texts = {place: bench_text(run)}
        if self._held is None or self._held[0] != run.teacher_key:
            self._held = None  # before the next one comes: two large teachers may not fit side by side
            self._held = (run.teacher_key, load_teacher(run))
        return self._held[1], self._texts[place]


def in_words(error: BaseException) -> str:
    """One line on what went wrong; the type where the message alone would not tell."""
    line = next(iter(str(error).strip().splitlines()), "")
    told = isinstance(error, ValueError | TypeError | AssetError) or type(error).__name__ == "TrainingDiverged"
    return line if told and line else f"{type(error).__name__}: {line}".removesuffix(": ")


def _prepare_torch() -> None:
    import torch

    torch.set_num_threads(1)
    # The first optimiser of a process takes a second; it must not count as the first run's training.
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight], fused=True).step()


def main() -> None:
    """Work until the input ends."""
    import psutil

    # Whatever anybody prints must not come between the lines that the parent reads.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The notebook's own kernel comes first: a slider must answer at once while all cores train.
    psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 10)
    worker = Worker(answers)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.work()
    sys.stderr.flush()
    os._exit(0)  # all is written; torch would take a second to say goodbye


if __name__ == "__main__":
    main()
