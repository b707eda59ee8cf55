"""Getting an asset: its archive downloaded, checked against its SHA-256, its members kept in the data folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.datasets.archives import extract_members
from workbench.datasets.assets import ASSETS, Asset
from workbench.datasets.debian import open_debian_package
from workbench.errors import AssetError, check_choice
from workbench.files import atomic_path, data_folder, locked, remove_leavings
from workbench.progress import progress

RECEIPT = ".asset.json"  # says which archive of the catalogue the files are those of


@dataclass(frozen=True)
class AssetState:
    """What is on the disk of one asset."""

    name: str
    status: str  # missing | fetched
    bytes: int  # on disk when fetched, of the download when missing
    path: Path  # folder of the asset


def fetch(name: str) -> Path:
    """The folder of the asset called ``name``, fetched on first need.

    The archive comes from ``<data>/archives/<filename>`` if the user has put it there, else from the package
    index that pip is configured for, a Debian package through apt. Its SHA-256 (of a Debian package: its files')
    is checked either way, only the wanted members are taken out, and nothing of the package is executed. Several
    processes may ask at once: one fetches, the others wait.

    Raises:
        UnknownName: there is no such asset.
        AssetError: it cannot be had; the sentence says what to do, no half file is left, the next try starts anew.
    """
    check_choice("asset", name, ASSETS)
    asset = ASSETS[name]
    folder = data_folder() / "assets" / name
    if is_whole(folder, asset):
        return folder
    with locked(folder):
        if not is_whole(folder, asset):
            remove_leavings(folder)
            _make(folder, asset)
    return folder


def fetch_all(names: Iterable[str] = tuple(ASSETS)) -> list[Path]:
    """The folders of several assets, all by default."""
    return [fetch(name) for name in names]


def state(name: str) -> AssetState:
    """Whether the asset called ``name`` is on the disk, without fetching it."""
    check_choice("asset", name, ASSETS)
    asset = ASSETS[name]
    folder = data_folder() / "assets" / name
    if not is_whole(folder, asset):
        return AssetState(name, "missing", asset.download_bytes, folder)
    return AssetState(name, "fetched", sum(_receipt(folder)["files"].values()), folder)


def is_whole(folder: Path, asset: Asset) -> bool:
    """True where ``folder`` holds every file of ``asset``, from the archive that the catalogue pins."""
    receipt = _receipt(folder)
    return receipt.get("sha256") == asset.sha256 and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in receipt["files"].items()
    )


def _receipt(folder: Path) -> dict:
    try:
        return json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _make(folder: Path, asset: Asset) -> None:
    own = data_folder() / "archives" / asset.filename
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _check_space(temporary, asset, downloads=not own.is_file())
        archive = own
        if not own.is_file():
            archive = temporary / asset.filename
            with _pieces_of(asset) as pieces:
                digest = _write(pieces, archive, asset)
        else:
            digest = _digest(own)
        if digest != asset.sha256 and not asset.contents:
            raise AssetError(_wrong_hash(asset.filename, digest, asset.sha256, own if archive is own else None))
        extract_members(archive, asset.members, asset.root, temporary)
        for name, expected in asset.contents:
            digest = _digest(temporary / name) if (temporary / name).is_file() else "none"
            if digest != expected:
                said = f"{name} of {asset.filename}"
                raise AssetError(_wrong_hash(said, digest, expected, own if archive is own else None))
        if archive is not own:
            archive.unlink()
        files = {
            path.relative_to(temporary).as_posix(): path.stat().st_size
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        receipt = {"asset": asset.name, "archive": asset.filename, "sha256": asset.sha256, "files": files}
        (temporary / RECEIPT).write_text(json.dumps(receipt, indent=2), encoding="utf-8")


@contextmanager
def _pieces_of(asset: Asset) -> Iterator[Iterator[bytes]]:
    own = data_folder() / "archives"
    if asset.filename.endswith(".deb"):
        opened = open_debian_package(asset.package)
        hint = f"put {asset.filename} into {own}, or name a folder that holds its files where {asset.name} is named"
        advice = f"run apt-get update and check the network, or {hint}" if shutil.which("apt-get") else hint
    else:
        from workbench.datasets.package_index import open_archive  # only a download needs the network libraries

        opened = open_archive(asset.package, asset.filename)
        advice = f"check the network and pip's settings, or put {asset.filename} into {own}"
    try:
        with opened as pieces:
            yield pieces
    except AssetError as error:
        raise AssetError(f"{error}; {advice}.") from error


def _write(pieces: Iterator[bytes], target: Path, asset: Asset) -> str:
    """Write a download and return its SHA-256."""
    digest = hashlib.sha256()
    megabytes = round(asset.download_bytes / 1e6)
    with target.open("wb") as file:
        for piece in progress(pieces, total=megabytes, label=f"fetching {asset.name} (MB)"):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_hash(what: str, digest: str, expected: str, own: Path | None) -> str:
    said = f"{what} has SHA-256 {digest[:12]}… instead of {expected[:12]}…"
    if own is not None:
        return f"{said}: it is damaged or another version; delete or replace {own} and run again."
    return f"{said}: the index or the connection changed it, nothing was kept; run again or use another index."


def _check_space(folder: Path, asset: Asset, *, downloads: bool) -> None:
    needed = asset.unpacked_bytes + (asset.download_bytes if downloads else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise AssetError(
            f"{asset.name} needs {needed / 1e6:.0f} MB and {folder.parent} has {free / 1e6:.0f} MB free: "
            "free some space, or set WORKBENCH_DATA to a folder on a larger disk."
        )
