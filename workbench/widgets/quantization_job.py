"""Long work beside the notebook: its own thread, a sentence of progress, and Stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from workbench.telemetry import Stopped, Watcher, watched

SECONDS_BETWEEN_SENTENCES = 0.3


class BackgroundJob:
    """One piece of work at a time; whoever asks while it runs is not heard.

    Args:
        say: told what the work is at, from time to time.
        changed: told whether something runs.
    """

    def __init__(self, say: Callable[[str], None], changed: Callable[[bool], None]):
        self._say, self._changed = say, changed
        self._watcher = Watcher()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.running = False

    def start(self, name: str, work: Callable[[], Any], then: Callable[[Any], None]) -> bool:
        """Run ``work`` in a thread, hand what it gives to ``then``; False if something runs already."""
        with self._lock:
            if self.running:
                return False
            self.running, self._watcher = True, Watcher()
        self._changed(True)
        self._say(name)
        self._thread = threading.Thread(target=self._accompany, args=(name, work, then, self._watcher), daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Ask the work to end after the item it is at."""
        self._watcher.stop()

    def wait(self) -> None:
        """Block until the work has ended and was handed on."""
        if self._thread is not None:
            self._thread.join()

    def _accompany(self, name: str, work: Callable[[], Any], then: Callable[[Any], None], watcher: Watcher) -> None:
        outcome: dict[str, Any] = {}
        worker = threading.Thread(target=_run, args=(work, watcher, outcome), daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_SENTENCES)
                self._say(f"{name}: {watcher.doing}" if watcher.doing else name)
            if "error" not in outcome:
                then(outcome["result"])
                self._say("")
            elif isinstance(outcome["error"], Stopped):
                self._say(f"{name}: stopped")
            else:
                self._say(f"{name} failed: {outcome['error']}")
        finally:
            self.running = False
            self._changed(False)


def _run(work: Callable[[], Any], watcher: Watcher, outcome: dict[str, Any]) -> None:
    try:
        with watched(watcher):
            outcome["result"] = work()
    except Exception as error:  # whatever it is, it is told in the widget and not lost in a thread
        outcome["error"] = error
