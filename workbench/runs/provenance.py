"""Where a run's numbers come from: commit, versions, machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench.files import PROJECT
from workbench.runs.identity import code_hash

PACKAGES = (
    *("workbench", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pyarrow", "plotly", "papermill", "nbclient", "ipykernel"),
)


@cache
def provenance() -> dict[str, Any]:
    """Git commit and dirty flag, code hash, versions, processor, graphics card and memory, JSON-ready."""
    import psutil

    return {
        "git": git_state(),
        "code": code_hash(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(PACKAGES),
        "cpu": cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=True),
        "gpu": gpu_names(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None where it is missing."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state(folder: Path = PROJECT) -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of the checkout; None where there is no git, no checkout or no commit yet."""
    if not (folder / ".git").exists():
        return None  # else git would answer for whatever lies around an installed package
    commit = _told_by(["git", "-C", str(folder), "rev-parse", "HEAD"])
    changes = _told_by(["git", "-C", str(folder), "status", "--porcelain"])
    return None if commit is None else {"commit": commit, "dirty": changes != ""}


def gpu_names() -> list[str]:
    """The graphics cards that NVIDIA's driver reports; asked without importing torch."""
    if not shutil.which("nvidia-smi"):
        return []
    return (_told_by(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines()


def cpu_name() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    if sys.platform == "darwin":
        return _told_by(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _told_by(command: list[str]) -> str | None:
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
