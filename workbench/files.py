"""Where things are kept, and writing that leaves either the whole file or none of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import AssetError

PROJECT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """``$WORKBENCH_DATA``; else ``data/`` of the checkout; else the user's cache folder."""
    if chosen := os.environ.get("WORKBENCH_DATA"):
        return Path(chosen).expanduser().resolve()
    if (PROJECT / "pyproject.toml").is_file():
        return PROJECT / "data"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` (file or folder) that takes its name when the block ends well.

    Raises:
        AssetError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        take_place(temporary, target)
    except OSError as error:
        _raise_in_one_sentence(error, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def take_place(new: Path, target: Path) -> None:
    """Give a finished file or folder the name ``target``, whatever bore it before."""
    if not (new.is_dir() and target.is_dir()):
        os.replace(new, target)
        return
    # A folder cannot be renamed over a full one: move the old one aside first.
    aside = new.with_name(f"{new.name}.old")
    target.rename(aside)
    new.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _raise_in_one_sentence(error: OSError, target: Path) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise AssetError(f"The disk is full: {target} was not written; free some space and run again.") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        raise AssetError(
            f"The folder {target.parent} cannot be written: make it writable or set WORKBENCH_DATA to one that is."
        ) from error
    raise error


def write_text(target: Path, text: str) -> None:
    """Write ``text`` whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Only one process at a time makes ``target``; the others wait until it is there."""
    from filelock import FileLock

    lock = target.with_name(f".{target.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield
    except OSError as error:
        _raise_in_one_sentence(error, target)


def remove_leavings(target: Path) -> None:
    """Remove what a killed process left of ``target`` in :func:`atomic_path`; only for the holder of its lock."""
    for leaving in target.parent.glob(f".{target.name}.*.part"):
        if leaving.is_dir():
            shutil.rmtree(leaving, ignore_errors=True)
        else:
            leaving.unlink(missing_ok=True)


def folder_size(folder: Path) -> int:
    """Bytes of all files below ``folder``, or of a file itself; 0 where there is none."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
