"""What a stretch of this process's life cost, though the process lives on: a process's own peak never falls."""

from __future__ import annotations

import threading
import time

import psutil

SECONDS_BETWEEN_LOOKS = 0.05


class MemoryWatch:
    """Seconds, processor seconds and highest resident memory from now to :meth:`end`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start, self._cpu = time.monotonic(), time.process_time()
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def end(self) -> tuple[float, float, float]:
        """Seconds by the clock, processor seconds, and MiB."""
        self._over.set()
        self._thread.join()
        self._look()
        return time.monotonic() - self._start, time.process_time() - self._cpu, self._peak / 1024**2

    def _look_on(self) -> None:
        self._look()
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
