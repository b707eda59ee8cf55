"""Tell whether this machine has what the workbench needs, and how to get what is missing."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

EXAMPLES = (
    "python -m workbench doctor             # everything, with what to do about what is missing",
    "python -m workbench doctor | grep '!'  # only what wants attention",
)
WELL, NOTE, MISSING = "ok", "!", "!!"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FREE_GIB = 5  # assets, caches and runs of all papers with room to spare
Finding = tuple[str, str, str]  # mark, what was looked at, what was found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 if something is missing that runs need."""
    missing = 0
    for title, look in SECTIONS.items():
        print(title)
        for mark, what, found in look():
            print(f"  {mark:<2}  {what:<14} {found}")
            missing += mark == MISSING
    print(f"{missing} needed things are missing." if missing else "Nothing that runs need is missing.")
    return 1 if missing else 0


def look_at_versions() -> Iterator[Finding]:
    """Python and every pinned package against ``constraints.txt``."""
    enough = sys.version_info >= (3, 11)
    yield WELL if enough else MISSING, "python", f"{platform.python_version()}, {sys.executable}"
    required = required_packages()
    pinned = pinned_versions()
    if not pinned:
        yield NOTE, "constraints", "constraints.txt is not here: the tested versions are those of the repository"
    differing = 0
    for name in sorted(required | set(pinned)):
        wanted = pinned.get(name)
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in required:
                yield MISSING, name, f"not installed: pip install '{name}=={wanted}'" if wanted else "not installed"
            continue
        if wanted and installed.partition("+")[0] != wanted.partition("+")[0]:
            differing += 1
            yield NOTE, name, f"{installed}, tested with {wanted}: pip install -c constraints.txt {name}"
    if pinned and not differing:
        yield WELL, "packages", f"as tested, {len(pinned)} pinned"


def required_packages() -> set[str]:
    """Names of the packages that the workbench cannot do without, as its own metadata lists them."""
    import re

    try:
        listed = metadata.requires("workbench") or []
    except metadata.PackageNotFoundError:
        return {"torch", "transformers", "papermill", "ipykernel", "pandas", "plotly"}
    return {_plain(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in listed if "extra ==" not in line}


def pinned_versions() -> dict[str, str]:
    """``constraints.txt`` of the checkout as name -> version; empty where there is none."""
    from workbench.files import PROJECT

    file = PROJECT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pairs = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {_plain(name): version.partition(";")[0].strip() for name, equals, version in pairs if equals}


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def look_at_machine() -> Iterator[Finding]:
    """Processor, memory, threads, number formats, graphics card, disk."""
    import psutil

    from workbench.files import data_folder
    from workbench.runs.provenance import cpu_name
    from workbench.runtime import available_cores

    memory = psutil.virtual_memory()
    gib = 1024**3
    yield WELL, "processor", f"{cpu_name()}, {available_cores()} cores for us"
    enough = memory.available > 2 * gib
    yield WELL if enough else NOTE, "memory", f"{memory.available / gib:.1f} of {memory.total / gib:.1f} GiB free"
    yield from look_at_torch()
    folder = data_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / gib
    advice = "" if free > FREE_GIB else "; set WORKBENCH_DATA to a folder on a larger disk"
    yield WELL if free > FREE_GIB else NOTE, "disk", f"{free:.1f} GiB free for {folder}{advice}"
    writable = _can_write(there)
    told = "writable" if writable else "not writable: set WORKBENCH_DATA to a folder that is"
    yield WELL if writable else MISSING, "data folder", f"{folder}, {told}"


def look_at_torch() -> Iterator[Finding]:
    """Threads, devices, and which number formats multiply matrices here."""
    try:
        import torch
    except ImportError:
        yield MISSING, "torch", "not installed: README says which build to take"
        return
    yield WELL, "threads", f"torch {torch.__version__} uses {torch.get_num_threads()}"
    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none, the papers run on the processor"
    yield WELL, "graphics card", card
    for name in ("float32", "bfloat16", "float16"):
        yield from _look_at_dtype(torch, name)


def _look_at_dtype(torch, name: str) -> Iterator[Finding]:
    matrix = torch.ones(8, 8, dtype=getattr(torch, name))
    try:
        correct = (matrix @ matrix).float().sum().item() == 512
    except RuntimeError as error:
        yield NOTE, name, f"cannot be multiplied here: {error}"
        return
    native = {"bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "float16": ("avx512_fp16", "amx_fp16", "fphp")}
    flags = processor_flags()
    if name == "float32" or any(flag in flags for flag in native[name]):
        speed = "native"
    else:
        speed = "works, emulated by this processor (slower)" if flags else "works"
    yield (WELL, name, speed) if correct else (NOTE, name, "gives wrong products on this machine")


def processor_flags() -> set[str]:
    """What the processor can do, where the system lists it (Linux)."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8", errors="replace") if information.is_file() else ""
    lines = (line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return set(next(lines, "").split())


def _can_write(folder: Path) -> bool:
    import os

    return os.access(folder, os.W_OK)


def look_at_assets() -> Iterator[Finding]:
    """Every asset: on the disk, or how to get it."""
    from workbench.datasets.fetch import ASSETS, state

    for name in ASSETS:
        found = state(name)
        size = f"{found.bytes / 1e6:.0f} MB"
        if found.status == "fetched":
            yield WELL, name, f"fetched, {size}"
        else:
            yield NOTE, name, f"not here yet, fetched on first need ({size}): python -m workbench fetch {name}"


def look_at_tools() -> Iterator[Finding]:
    """The kernel, the browser of the widget test, and what else comes from outside of Python."""
    from importlib.util import find_spec

    for module, package in (("ipykernel", "ipykernel"), ("papermill", "papermill"), ("jupyterlab", "jupyterlab")):
        there = find_spec(module) is not None
        yield WELL if there else MISSING, package, "here" if there else f"pip install {package}"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    hint = "none; only the browser test needs it: apt-get install chromium fonts-dejavu-core"
    yield WELL if browser else NOTE, "chromium", browser or hint
    apt = shutil.which("apt-get")
    yield WELL if apt else NOTE, "apt-get", apt or "none; assets that are Debian packages need a folder of yours"
    git = shutil.which("git")
    yield WELL if git else NOTE, "git", git or "none; runs are then recorded without a commit"


SECTIONS = {
    "versions": look_at_versions,
    "machine": look_at_machine,
    "assets": look_at_assets,
    "tools": look_at_tools,
}
