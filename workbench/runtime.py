"""Device, dtype, threads, seeds and the cost of a block of work."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import AssetError, check_choice

if TYPE_CHECKING:
    import torch

HUB_SECONDS = 5.0  # how long the hub may stay silent before it counts as unreachable
PAPER_PACKAGES = ("datasets", "accelerate")  # of the extra "paper"
PAPER_EXTRA = "pip install -e '.[paper]' in the project's folder"


def available_cores() -> int:
    """Cores this process may use: ``$WORKBENCH_CORES`` (a run's share) or what the system grants."""
    if share := os.environ.get("WORKBENCH_CORES"):
        return max(1, int(share))
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block; one thread makes results repeatable bit for bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(name: str = "auto") -> torch.device:
    """The device called ``auto | cpu | cuda | mps``; ``auto`` is the fastest there is.

    Raises:
        ValueError: this machine has no such device.
    """
    import torch

    check_choice("device", name, ("auto", "cpu", "cuda", "mps"))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in there.items() if present)
    if not there[name]:
        raise ValueError(f"device={name!r} was asked for, but torch {torch.__version__} sees none on this machine.")
    return torch.device(name)


def dtype(name: str = "auto") -> torch.dtype:
    """``float32 | bfloat16 | float16 | float64``; ``auto`` is float32, which every claim is checked in."""
    import torch

    check_choice("dtype", name, ("auto", "float32", "bfloat16", "float16", "float64"))
    return torch.float32 if name == "auto" else getattr(torch, name)


def generator(seed: int) -> torch.Generator:
    """A random stream of its own on the CPU, so that no result depends on what ran before."""
    import torch

    return torch.Generator().manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block that draws from torch's global stream (module initialisers do) from ``seed``, then restore it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Refuse every torch operation that is not repeatable bit for bit inside the block."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def require_paper_setting(
    *, packages: Iterable[str] = PAPER_PACKAGES, hub: bool = True, also: Iterable[str] = ()
) -> None:
    """Raise one sentence that lists all that profile ``paper`` lacks here; nothing is downloaded or computed.

    ``also`` tells what else the caller found missing. With ``HF_HUB_OFFLINE`` set the hub is not asked: what is
    needed is then taken from its cache.

    Raises:
        AssetError: no CUDA GPU, a package that is not installed, a hub that does not answer, or anything in ``also``.
    """
    import torch

    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a GPU (torch {torch.__version__} sees no CUDA device)")
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        missing.append(f"the package{'s' * (len(absent) > 1)} {' and '.join(absent)} ({PAPER_EXTRA})")
    if hub and not hub_is_switched_off() and (silence := _hub_silence()):
        missing.append(f"the Hugging Face hub ({silence}; HF_HUB_OFFLINE=1 uses what its cache holds)")
    missing += also
    if missing:
        raise AssetError(
            f"profile 'paper' is the paper's own setting and lacks here: {'; '.join(missing)}. "
            "Profiles quick and full need none of it."
        )


def hub_is_switched_off() -> bool:
    """Whether an environment variable forbids to ask the Hugging Face hub."""
    switches = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(switch, "").upper() in ("1", "ON", "YES", "TRUE") for switch in switches)


def first_line(error: Exception) -> str:
    """The first line of what ``error`` says, without a full stop; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _hub_silence() -> str | None:
    """Why the hub does not answer; None where it does, whatever it says."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        # Whatever it is: the hub's client changes its network library, and with it these errors, between versions.
        return f"it does not answer: {first_line(error)}"
    return None


@dataclass
class Cost:
    """What a block cost; filled in when the block ends."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process, all threads
    peak_mib: float = 0.0  # highest resident size of this process so far


@contextmanager
def measure() -> Iterator[Cost]:
    """Measure the block: ``with measure() as cost: ...`` then read ``cost``."""
    cost = Cost()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.wall_seconds = time.perf_counter() - wall
        cost.cpu_seconds = time.process_time() - cpu
        cost.peak_mib = peak_memory_mib()


def peak_memory_mib() -> float:
    """Highest resident memory of this process so far, in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1024**2
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the mark of the process that started this one
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"), flags=re.M)
        if found:
            return int(found[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
