"""The kernel of a run: this interpreter, reached without network ports, watched and never left behind."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import psutil

SECONDS_BETWEEN_LOOKS = 0.5
LONGEST_SOCKET_PATH = 80  # the system allows about 100 bytes, the name of the socket included


class KernelWatch:
    """Peak memory, processor time and end of a kernel process and its children, from a thread beside it."""

    def __init__(self, sockets: Path | None = None):
        self.sockets = sockets  # folder for the kernel's sockets; None = a temporary one
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.peak_memory_mib = 0.0
        self._seconds: dict[psutil.Process, float] = {}  # every process ever seen, and the time it used
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the kernel and all its children so far."""
        return sum(self._seconds.values())

    def begin(self, pid: int) -> None:
        """Watch the kernel of this pid from now on."""
        self.pid = pid
        self._thread = threading.Thread(target=self._look_on, args=(pid,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop watching, and kill whatever of the kernel's family still lives."""
        self._over.set()
        if self._thread:
            self._thread.join()
        self.kill()

    def look(self) -> None:
        """Take one measurement."""
        if self.pid is not None:
            self._measure(self.pid)

    def kill(self) -> None:
        """Kill the kernel and every child it was ever seen with."""
        self.look()  # children born since the last look
        for process in list(self._seconds):
            try:
                process.kill()  # psutil knows by its birth whether the pid is another's by now
            except psutil.NoSuchProcess:
                continue

    def _look_on(self, pid: int) -> None:
        while self._measure(pid) and not self._over.wait(SECONDS_BETWEEN_LOOKS):
            pass

    def _measure(self, pid: int) -> bool:
        try:
            kernel = psutil.Process(pid)
            family = [kernel, *kernel.children(recursive=True)]
        except psutil.NoSuchProcess:
            return False
        memory = 0
        for process in family:
            try:
                with process.oneshot():
                    memory += process.memory_info().rss
                    used = process.cpu_times()
                    self._seconds[process] = used.user + used.system
            except psutil.NoSuchProcess:
                continue
        self.peak_memory_mib = max(self.peak_memory_mib, memory / 1024**2)
        return True


def kernel_manager_class(watch: KernelWatch) -> type:
    """A kernel manager for nbclient that starts this very interpreter over sockets and reports to ``watch``."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class RunKernelManager(AsyncKernelManager):
        folder: Path | None = None

        @property
        def kernel_spec(self) -> KernelSpec:
            # Not the spec that the notebook names: on the user's path it may be another environment's.
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

        @default("connection_file")
        def _short_connection_file(self) -> str:
            self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=watch.sockets))
            return str(self.folder / "kernel.json")

        @default("transport")
        def _sockets_where_there_are(self) -> str:
            # Ports of parallel kernels race: "Address already in use" in about one of twenty runs.
            short = len(self.connection_file) < LONGEST_SOCKET_PATH
            return "ipc" if sys.platform != "win32" and short else "tcp"

        async def start_kernel(self, **options):
            await super().start_kernel(**options)
            watch.begin(self.provisioner.pid)

        async def is_alive(self) -> bool:
            alive = await super().is_alive()
            process = getattr(self.provisioner, "process", None)
            if not alive and process is not None:
                watch.exit_code = process.returncode
            return alive

        async def shutdown_kernel(self, now: bool = False, restart: bool = False):
            watch.look()
            await super().shutdown_kernel(now=now, restart=restart)

        async def cleanup_resources(self, restart: bool = False):
            await super().cleanup_resources(restart=restart)
            if self.folder and not restart:
                shutil.rmtree(self.folder, ignore_errors=True)

    return RunKernelManager


def death_in_words(exit_code: int | None) -> str:
    """Why the kernel died, as far as its exit code tells."""
    if exit_code is None or exit_code >= 0:
        return f"The kernel died (exit code {exit_code})."
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    hint = ", which the system does when memory runs out" if name == "SIGKILL" else ""
    return f"The kernel was killed by {name}{hint}."
