"""Independent tasks over the cores: one torch thread each, the same numbers whatever the count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from workbench.errors import check_positive
from workbench.progress import progress
from workbench.runtime import available_cores, threads

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_tasks(
    function: Callable[[Task], Outcome],
    tasks: Sequence[Task],
    *,
    cores: int | None = None,
    stop: Callable[[], bool] | None = None,
    on_done: Callable[[int, Outcome], None] | None = None,
    label: str = "tasks",
) -> list[Outcome | None]:
    """``[function(task) for task in tasks]`` on ``cores`` processes (never more than are available).

    Every task computes with one torch thread, in this process too, so that results are equal bit for bit.
    The processes stay for the next call, which saves the import of torch. ``on_done(index, outcome)`` is
    called here as tasks finish, in any order; ``stop`` is asked then: no task is begun after it, and what is
    left undone is ``None``.
    Whoever watches (:mod:`workbench.telemetry`) can end it then, too, with :class:`~workbench.telemetry.Stopped`.

    Raises:
        RuntimeError: a process died (most often: not enough memory). An error of a task is raised as it is.
    """
    cores = available_cores() if cores is None else cores
    check_positive(cores=cores)
    outcomes: list[Outcome | None] = [None] * len(tasks)
    if not tasks:
        return outcomes
    workers = min(int(cores), available_cores(), len(tasks))
    ended = threading.Event()
    finished = (_here if workers == 1 else partial(_in_processes, workers))(_until(ended, function, tasks))
    for index, outcome in progress(finished, total=len(tasks), label=label):
        outcomes[index] = outcome
        if on_done is not None:
            on_done(index, outcome)
        if stop is not None and not ended.is_set() and stop():
            ended.set()  # tasks under way come to their end and are kept: only new ones are not begun
    return outcomes


Call = tuple[Callable[[Task], Outcome], int, Task]


def _until(ended: threading.Event, function: Callable[[Task], Outcome], tasks: Sequence[Task]) -> Iterator[Call]:
    for index, task in enumerate(tasks):
        if ended.is_set():
            return
        yield function, index, task


def _one(function: Callable[[Task], Outcome], index: int, task: Task) -> tuple[int, Outcome]:
    with threads(1):
        return index, function(task)


def _here(calls: Iterator[Call]) -> Iterator[tuple[int, Outcome]]:
    for call in calls:
        yield _one(*call)


def _in_processes(workers: int, calls: Iterator[Call]) -> Iterator[tuple[int, Outcome]]:
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with joblib.parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
            pool = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=workers)
            yield from pool(joblib.delayed(_one)(*call) for call in calls)
    except TerminatedWorkerError as error:
        raise RuntimeError(
            f"a process that worked on a task died, most often for want of memory: "
            f"use fewer cores than {workers} or smaller models."
        ) from error
