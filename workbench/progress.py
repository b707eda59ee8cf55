"""One progress bar: a widget in JupyterLab, a line now and then when headless, silent in tests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from workbench.telemetry import check_stop, is_watched, publish_progress

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 30.0


def progress(items: Iterable[Item], *, total: int | None = None, label: str = "") -> Iterator[Item]:
    """Pass ``items`` on while showing how many of ``total`` are through.

    Raises:
        Stopped: whoever watches (:mod:`workbench.telemetry`) asked for the end, after the item being worked on.
    """
    total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)
    if is_watched():
        yield from _reported(items, total, label)
    elif os.environ.get("TQDM_DISABLE"):
        yield from items
    elif _headless():
        yield from _with_lines(items, total, label)
    else:
        from tqdm.auto import tqdm

        yield from tqdm(items, total=total, desc=label)


def _reported(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    publish_progress(label, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        publish_progress(label, done, total)
        check_stop()  # after the item, so that nothing finished is lost


def _headless() -> bool:
    # Under papermill tqdm's bar becomes a widget that stays at 0 in logs, or a line per update.
    return bool(os.environ.get("WORKBENCH_RUN")) or not ("ipykernel" in sys.modules or sys.stderr.isatty())


def _with_lines(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    start = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            of = f"/{total}" if total else ""
            print(f"{label or 'progress'}: {count}{of} after {now - start:.0f} s", file=sys.stderr, flush=True)
