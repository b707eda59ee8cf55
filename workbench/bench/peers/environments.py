"""Throw-away environments ``data/peers/<name>`` that hold one peer package each and borrow the rest from here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from workbench.files import data_folder

SECONDS = 300.0  # for pip; a peer that takes longer counts as not to be had
DONE = "complete.txt"


@dataclass(frozen=True)
class Peer:
    """A package at one version (and what its import needs), and whether pip shall fetch all that this one lacks."""

    requirement: str
    with_dependencies: bool = False  # Liger's Triton and torchdistill's torchvision are not used on a CPU


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "trl": Peer("trl==1.16.0", with_dependencies=True),
        "liger": Peer("liger-kernel==0.8.5"),
        "torchdistill": Peer("torchdistill==1.1.5"),
    }
)
QUANTIZER_PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "bitsandbytes": Peer("bitsandbytes==0.50.2"),
        "hqq": Peer("hqq==0.2.8.post1 termcolor==3.3.0"),
        "torchao": Peer("torchao==0.18.0"),
    }
)


def peer_python(name: str, *, install: bool) -> Path | None:
    """The interpreter of a peer's environment, made first if ``install``; None, after one printed sentence, without.

    The environment sees all packages of the running one (torch is not downloaded twice); nothing is
    ever installed into the running one.
    """
    peer, folder = (PEERS | QUANTIZER_PEERS)[name], data_folder() / "peers" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = f"{peer.requirement} for {sys.executable} {sys.version}\n"
    done = folder / DONE
    if done.is_file() and done.read_text(encoding="utf-8") == stamp and python.exists():
        return python
    if not install:
        print(f"{peer.requirement} is not measured: data/peers/{name} is made by the bench without --quick.")
        return None
    print(f"{peer.requirement} goes into {folder} ...", flush=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False)
        _borrow_packages(folder)
        _pip(python, peer)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{peer.requirement} is not measured: {_last_line(error)}.")
        return None
    done.write_text(stamp, encoding="utf-8")
    return python


def _borrow_packages(folder: Path) -> None:
    """Let the environment see the running one's packages, also where that is an environment itself."""
    variables = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", variables))
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "borrowed.pth").write_text("".join(f"{place}\n" for place in sorted(places)), encoding="utf-8")


def _pip(python: Path, peer: Peer) -> None:
    options = [] if peer.with_dependencies else ["--no-deps"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *options]
    command += peer.requirement.split()
    subprocess.run(command, check=True, timeout=SECONDS, capture_output=True, text=True)


def _last_line(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    lines = said.decode() if isinstance(said, bytes) else said
    return (lines.strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
