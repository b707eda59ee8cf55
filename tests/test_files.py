"""A file is written whole or not at all."""

import errno
import os

import pytest

from workbench.errors import AssetError
from workbench.files import atomic_path, data_folder, folder_size, write_json, write_text


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_in_mid_write_keeps_the_old_file_and_leaves_no_half_one(tmp_path):
    target = tmp_path / "rows.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="died"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("died")
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["rows.txt"]


def test_a_folder_takes_the_place_of_a_full_one(tmp_path):
    target = tmp_path / "model"
    for content in ("first", "second"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text(content)
    assert (target / "weights").read_text() == "second"
    assert leftovers(tmp_path) == ["model"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(AssetError, match="disk is full"), atomic_path(tmp_path / "big") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence_that_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="WORKBENCH_DATA"):
        write_json(tmp_path / "file" / "below" / "x.json", {})


def test_workbench_data_moves_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert data_folder() == tmp_path.resolve()


def test_folder_size_counts_bytes_below(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert folder_size(tmp_path) == 5
    assert folder_size(tmp_path / "absent") == 0
