"""How much memory a piece of work needs, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from workbench.runtime import peak_memory_mib

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB of a process that did one piece of work."""

    before: float  # after all imports, when the work began
    peak: float  # highest while it was done, beyond ``before``
    held: float  # when it was done and its result still there, beyond ``before``


def peak_memory(function: Callable[..., Any], *arguments: Any, before: Callable[[], Any] | None = None) -> Memory:
    """What ``function(*arguments)`` needs, in a fresh process that does nothing else.

    A process that already measured or loaded something cannot tell: its highest mark stays, and freed memory is
    used again. Weights that are mapped from a file count only once they are read: let ``function`` run the model that
    it loads.

    Args:
        function: a function of a module (it is sent by name); import what it needs where its module is imported, or
            in ``before``, so that imports do not count.
        arguments: small ones; they are pickled and sent.
        before: called first and forgotten.

    Raises:
        RuntimeError: the process died, for instance because memory ran out.
        Exception: what ``function`` raised.
    """
    context = multiprocessing.get_context("spawn")  # a fork would begin with this process's memory
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, function, arguments, before))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"the process that measured {function.__name__} ended with exit code {process.exitcode} and no result: "
            "it probably ran out of memory."
        ) from None
    finally:
        here.close()
    process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _work(
    report: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], before: Callable[[], Any] | None
) -> None:
    try:
        import psutil

        if before is not None:
            before()
        process = psutil.Process(os.getpid())
        start = process.memory_info().rss / 1024**2
        _forget_peak()
        result = function(*arguments)
        peak, end = _peak(), process.memory_info().rss / 1024**2
        del result
        report.send(Memory(start, max(peak, end, start) - start, end - start))
    except Exception as error:
        try:
            report.send(error)
        except Exception:  # an error that cannot be pickled, whatever it says to that
            report.send(RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        report.close()


def _forget_peak() -> None:
    """Let Linux count the highest mark anew; elsewhere it counts from the beginning of the process."""
    if CLEAR.exists():
        try:
            CLEAR.write_text("5")
        except OSError:  # forbidden in some containers: the mark of the imports then stays
            return


def _peak() -> float:
    # Not getrusage: a new process inherits that mark from the one that started it.
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return peak_memory_mib()
