"""An archive is found in every kind of place that pip knows."""

import certifi
import pytest

from tests.datasets.local_index import KEY_PAIR, free_port, publish
from workbench.datasets.package_index import open_archive
from workbench.errors import AssetError

NAME = "leaflet-1.0.tar.gz"


def download(package="leaflet", filename=NAME):
    with open_archive(package, filename) as pieces:
        return b"".join(pieces)


def test_an_index_on_the_network_gives_the_archive_byte_for_byte(index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    assert download() == leaflet[1].read_bytes()
    assert index.requested == ["/simple/leaflet/", f"/files/{NAME}"]


def test_an_index_in_a_folder_gives_the_archive(tmp_path, no_pip_files, monkeypatch, leaflet):
    (tmp_path / "local" / "files").mkdir(parents=True)
    publish(tmp_path / "local", "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "local" / "simple").as_uri())
    assert download() == leaflet[1].read_bytes()


def test_a_folder_of_archives_is_asked_before_the_index(tmp_path, index, monkeypatch, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_FIND_LINKS", str(leaflet[1].parent))
    assert download() == leaflet[1].read_bytes()
    assert index.requested == []


def test_a_page_of_links_gives_the_archive(index, monkeypatch, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", index.address + "/leaflet/")
    assert download() == leaflet[1].read_bytes()


def test_the_second_index_serves_when_the_first_is_down(index, monkeypatch, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.address)
    assert download() == leaflet[1].read_bytes()


def test_names_of_packages_are_normalised_as_the_index_writes_them(index, leaflet):
    publish(index.root, "my-leaf-let", leaflet[1])
    assert download(package="My_Leaf.let") == leaflet[1].read_bytes()


def test_every_place_that_was_asked_is_named_without_its_password(index, monkeypatch, leaflet):
    port = free_port()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://me:secret@127.0.0.1:{port}/simple")
    with pytest.raises(AssetError) as caught:
        download()
    message = str(caught.value)
    assert f"{index.address}: not there" in message
    assert f"http://127.0.0.1:{port}/simple: cannot be reached" in message
    assert "secret" not in message


def test_a_link_to_a_file_that_is_gone_is_one_sentence(index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    (index.root / "files" / NAME).unlink()
    with pytest.raises(AssetError, match="answers 404"):
        download()


def test_a_certificate_that_nobody_signed_is_refused_and_said(encrypted_index, leaflet):
    publish(encrypted_index.root, "leaflet", leaflet[1])
    with pytest.raises(AssetError, match="certificate is not trusted; set pip's cert"):
        download()
    assert encrypted_index.requested == []


def test_the_certificate_that_pip_is_given_is_trusted_whatever_else_is_set(encrypted_index, leaflet, monkeypatch):
    publish(encrypted_index.root, "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_CERT", str(KEY_PAIR))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    assert download() == leaflet[1].read_bytes()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_host_that_pip_is_told_to_trust_needs_no_certificate(encrypted_index, leaflet, monkeypatch):
    publish(encrypted_index.root, "leaflet", leaflet[1])
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    assert download() == leaflet[1].read_bytes()
