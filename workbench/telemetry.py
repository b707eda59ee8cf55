"""How a long computation tells whoever watches it: live points, finished rows, and the wish to stop.

Code that trains calls :func:`publish`, :func:`publish_row` and :func:`check_stop` and need not know
whether anybody watches: without a watcher all three do nothing. A loop over
:func:`workbench.progress.progress` says how far it is, and can be stopped, without calling any.

The watcher belongs to the context (thread) that opened it, so two runs in one process never see each
other's points. Processes started inside inherit none: there the parent publishes as their results come back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple


class Stopped(RuntimeError):
    """Whoever watches asked for an end; what was finished until then has been published."""


class Point(NamedTuple):
    """One point of a live curve."""

    series: str
    step: float
    value: float


class Watcher:
    """Collects what a computation publishes; any thread may read it or ask for the end."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque()  # appending and popping are atomic: no lock is needed
        self._rows: deque[dict[str, Any]] = deque()
        self._stop = threading.Event()
        self.doing = ""  # what the computation is at, such as "teachers 1 of 4"

    def take_points(self) -> list[Point]:
        """The points published since the last call."""
        return _drain(self._points)

    def take_rows(self) -> list[dict[str, Any]]:
        """The finished observations published since the last call."""
        return _drain(self._rows)

    def stop(self) -> None:
        """Ask the computation to end at its next :func:`check_stop`."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for."""
        return self._stop.is_set()


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[Watcher]:
    """Everything published inside the block, by this thread, goes to ``watcher``."""
    token = _watcher.set(watcher)
    try:
        yield watcher
    finally:
        _watcher.reset(token)


def is_watched() -> bool:
    """Whether anybody watches: work done only for live curves can be spared otherwise."""
    return _watcher.get() is not None


def publish(series: str, step: float, value: float) -> None:
    """Add a point to the live curve called ``series``."""
    if (watcher := _watcher.get()) is not None:
        watcher._points.append(Point(str(series), float(step), float(value)))


def publish_row(row: Mapping[str, Any]) -> None:
    """Hand over one finished observation, in the columns that the result's rows will have."""
    if (watcher := _watcher.get()) is not None:
        watcher._rows.append(dict(row))


def publish_progress(label: str, done: int, total: int | None) -> None:
    """Tell how many items of a loop are through."""
    if (watcher := _watcher.get()) is not None:
        watcher.doing = f"{label or 'step'} {done}" + (f" of {total}" if total else "")


def check_stop() -> None:
    """Raise :class:`Stopped` if the watcher asked for the end; loops call it at every step."""
    if (watcher := _watcher.get()) is not None and watcher.stopping:
        raise Stopped("Stopped on request; what was finished until then is kept.")


def _drain(queue: deque) -> list:
    taken = []
    while queue:
        taken.append(queue.popleft())
    return taken
