"""One Debian package through apt: downloaded, never installed; nothing in it is executed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import AssetError

SECONDS = 600  # apt's own time limits are shorter; this one is for an apt that hangs
HEADER, MAGIC = 60, b"!<arch>\n"  # of an ar archive, which a package is


@contextmanager
def open_debian_package(package: str) -> Iterator[Iterator[bytes]]:
    """The bytes, in pieces of 1 MB, of the version of ``package`` that apt would install.

    Raises:
        AssetError: there is no apt here, or it does not get the package.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise AssetError(f"{package} is a Debian package and this machine has no apt-get")
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        try:
            done = subprocess.run(
                [apt, "download", package], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AssetError(f"apt-get did not get {package} ({error})") from error
        found = next(Path(folder).glob("*.deb"), None)
        if done.returncode or found is None:
            said = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E: ")]
            raise AssetError(f"apt-get did not get {package} ({'; '.join(said).rstrip('.') or 'it gave no reason'})")
        with found.open("rb") as file:
            yield iter(lambda: file.read(1 << 20), b"")


@contextmanager
def open_data(archive: Path) -> Iterator[tarfile.TarFile]:
    """What the package at ``archive`` would install, as a tar archive.

    Raises:
        AssetError: the file is no Debian package, or packed in a way that only dpkg-deb reads and there is none.
        tarfile.TarError: it is damaged.
    """
    name, content = _data_member(archive)
    if name.endswith(".zst"):  # Ubuntu's packing, which tarfile does not know
        content = _unpacked_by_dpkg(archive)
    with tarfile.open(fileobj=io.BytesIO(content)) as data:
        yield data


def _data_member(archive: Path) -> tuple[str, bytes]:
    with archive.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise AssetError(f"{archive.name} is no Debian package; fetch it again.")
        while len(header := file.read(HEADER)) == HEADER:
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
            if not size.isdigit():
                break
            if name.startswith("data.tar"):
                content = file.read(int(size))
                if len(content) < int(size):
                    break
                return name, content
            file.seek(int(size) + int(size) % 2, io.SEEK_CUR)  # members begin at even places
    raise AssetError(f"{archive.name} is damaged: it ends before its data do; fetch it again.")


def _unpacked_by_dpkg(archive: Path) -> bytes:
    dpkg = shutil.which("dpkg-deb")
    if dpkg is None:
        raise AssetError(f"{archive.name} is packed with zstd, which needs dpkg-deb, and this machine has none.")
    done = subprocess.run([dpkg, "--fsys-tarfile", str(archive)], capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise AssetError(f"{archive.name} cannot be unpacked by dpkg-deb; fetch it again.")
    return done.stdout
