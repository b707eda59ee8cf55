"""A worker process: imports papermill once, then executes the jobs that come in as lines of JSON.

Started by :mod:`workbench.runs.pool`. When its input ends, as it does when whoever started it dies,
the kernel is killed and the worker goes: nothing is left behind.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from workbench.errors import AssetError
from workbench.runs.execute import AlreadyRunning, execute
from workbench.runs.kernel import KernelWatch
from workbench.runs.notebooks import Notebook
from workbench.runs.plan import Job
from workbench.runs.store import keep_log, log_beside


def main() -> None:
    """Execute jobs until the input ends."""
    # Whatever anybody prints must not come between the lines that the parent reads.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sockets = Path(sys.argv[1])
    orders: queue.Queue[str] = queue.Queue()
    watches: list[KernelWatch] = []
    threading.Thread(target=_listen, args=(orders, watches, sockets), daemon=True).start()
    while True:
        order = json.loads(orders.get())
        watches[:] = [KernelWatch(sockets)]
        _answer(answers, _work(order, answers, watches[0]))


def _listen(orders: queue.Queue[str], watches: list[KernelWatch], sockets: Path) -> None:
    for line in sys.stdin:
        orders.put(line)
    for watch in watches:
        watch.kill()
    shutil.rmtree(sockets, ignore_errors=True)
    os._exit(0)


def _work(order: dict[str, Any], answers: TextIO, watch: KernelWatch) -> dict[str, Any]:
    notebook = Notebook(order["stem"], Path(order["notebook"]))
    job = Job(notebook, order["parameters"], order["identity"], Path(order["folder"]))
    try:
        with _errors_sent_to(job.folder):
            execute(
                job,
                cores=order["cores"],
                cell_timeout=order["cell_timeout"],
                on_cell=lambda done: _answer(answers, {"event": "cell", "done": done}),
                on_kernel=lambda pid: _answer(answers, {"event": "kernel", "pid": pid}),
                watch=watch,
            )
    except (AlreadyRunning, AssetError, OSError) as error:
        return {"event": "refused", "error": str(error)}
    return {"event": "ended"}


@contextmanager
def _errors_sent_to(folder: Path) -> Iterator[None]:
    """What the kernel writes past its notebook (a crash, a warning of the system) goes to ``run.log``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    descriptor = os.open(log_beside(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.dup2(before, 2)
        os.close(before)
        keep_log(folder)


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
