"""Pictures by name and path; a Debian package is read without being installed, and nothing stands in for it."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from workbench.datasets import debian
from workbench.datasets.assets import ASSETS
from workbench.datasets.fetch import fetch, state
from workbench.datasets.images import load_images, read_idx
from workbench.datasets.splits import flip_labels, stratified_parts
from workbench.errors import AssetError, UnknownName
from workbench.files import data_folder

IDX = ("t10k-images-idx3", "t10k-labels-idx1", "train-images-idx3", "train-labels-idx1")


def idx(values):
    header = b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


def idx_files(samples=20, side=4, seed=0):
    """A little MNIST: file name -> bytes."""
    random = np.random.default_rng(seed)
    files = {}
    for part, count in (("t10k", samples // 2), ("train", samples)):
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(
            idx(random.integers(0, 256, (count, side, side))), mtime=0
        )
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count) % 3), mtime=0)
    return files


def debian_package(files, root, packing="xz"):
    """The bytes of a Debian package that would install ``files`` in ``root``."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{packing}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{root}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar.{packing}", data.getvalue())]
    parts = [b"!<arch>\n"]
    for name, content in members:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


@pytest.fixture
def small_package(data, monkeypatch):
    """A small Fashion-MNIST in the catalogue, its package among the user's archives."""
    files = idx_files()
    asset = ASSETS["fashion-mnist"]
    contents = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items()))
    monkeypatch.setitem(ASSETS, "fashion-mnist", dataclasses.replace(asset, contents=contents, unpacked_bytes=1))
    archive = data / "archives" / asset.filename
    archive.parent.mkdir(parents=True)
    archive.write_bytes(debian_package(files, asset.root))
    return archive


@pytest.fixture
def no_apt(monkeypatch):
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *a, **k: None if name == "apt-get" else real(name, *a, **k))


def test_the_digits_are_scikit_learns_with_a_test_set_that_never_moves():
    images = load_images("digits")
    assert images.train_images.shape == (1000, 1, 8, 8)
    assert images.test_images.shape == (797, 1, 8, 8)
    assert (images.train_images.min(), images.train_images.max()) == (0, 1)
    assert np.bincount(images.test_labels).min() >= 77
    np.testing.assert_array_equal(images.test_labels, load_images("digits").test_labels)
    together = {image.tobytes() for image in (*images.train_images, *images.test_images)}
    assert len(together) == 1797  # no picture on both sides


def test_a_debian_package_is_read_and_only_its_pictures_are_kept(small_package):
    images = load_images("fashion-mnist")
    assert images.train_images.shape == (20, 1, 4, 4)
    assert images.classes[9] == "ankle boot"
    folder = fetch("fashion-mnist")
    assert sorted(path.name for path in folder.glob("[!.]*")) == [f"{name}-ubyte.gz" for name in IDX]
    assert state("fashion-mnist").status == "fetched"


def test_another_build_of_the_package_will_do_if_its_files_are_the_same(small_package):
    small_package.write_bytes(debian_package(idx_files(), ASSETS["fashion-mnist"].root, packing="gz"))
    assert load_images("fashion-mnist").shape == (1, 4, 4)


def test_a_package_with_other_pictures_is_refused_and_nothing_is_kept(small_package):
    small_package.write_bytes(debian_package(idx_files(seed=1), ASSETS["fashion-mnist"].root))
    with pytest.raises(AssetError, match="t10k-images-idx3-ubyte.gz of .* has SHA-256"):
        load_images("fashion-mnist")
    assert state("fashion-mnist").status == "missing"


def test_what_is_no_package_or_half_of_one_is_one_sentence(small_package):
    whole = small_package.read_bytes()
    for content, message in ((b"nonsense", "no Debian package"), (whole[:200], "damaged"), (whole[:-99], "damaged")):
        small_package.write_bytes(content)
        with pytest.raises(AssetError, match=message):
            fetch("fashion-mnist")


def test_without_apt_one_sentence_says_what_to_do_and_nothing_stands_in(data, no_apt):
    with pytest.raises(AssetError) as caught:
        load_images("fashion-mnist")
    said = str(caught.value)
    for part in ("has no apt-get", str(data / "archives"), "name a folder that holds its files", "digits"):
        assert part in said
    assert "\n" not in said
    assert not list(data.glob("assets/fashion-mnist"))


def test_what_apt_says_is_passed_on(data, tmp_path, monkeypatch):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' $2 >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setattr(debian.shutil, "which", lambda name: str(apt))
    with pytest.raises(AssetError, match="Unable to locate package dataset-fashion-mnist.*run apt-get update"):
        load_images("fashion-mnist")


def test_what_apt_downloads_is_taken(small_package, tmp_path, monkeypatch):
    package = tmp_path / "other_1.2_all.deb"
    shutil.move(small_package, package)
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\ncp {package} $2_9_all.deb\n")
    apt.chmod(0o755)
    monkeypatch.setattr(debian.shutil, "which", lambda name: str(apt))
    assert load_images("fashion-mnist").shape == (1, 4, 4)


def test_ones_own_arrays_and_folders_are_taken(tmp_path):
    arrays = {
        "train_images": np.zeros((4, 5, 5), np.uint8) + 255, "train_labels": np.array([0, 1, 2, 1]),
        "test_images": np.full((2, 5, 5), 51, np.uint8), "test_labels": np.array([0, 1]),
    }  # fmt: skip
    np.savez(tmp_path / "own.npz", **arrays)
    images = load_images(tmp_path / "own.npz")
    assert (images.name, images.shape, images.classes) == ("own", (1, 5, 5), ("0", "1", "2"))
    assert (images.train_images.max(), images.test_images.max()) == (1.0, np.float32(0.2))
    for name, content in idx_files().items():
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert load_images(str(tmp_path)).train_images.shape == (20, 1, 4, 4)


def write_cifar(folder, data=None):
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        pictures = np.arange(6 * 3072, dtype=np.uint8).reshape(6, 3072) if data is None else data
        content = {b"data": pictures, b"fine_labels": [0, 1, 2, 0, 1, 2]}
        (folder / part).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple", b"bear", b"crab"]}, protocol=2))


def test_cifar_is_read_where_the_user_keeps_it(data, tmp_path):
    with pytest.raises(AssetError, match=r"cifar-100 is in no package: get cifar-100-python\.tar\.gz"):
        load_images("cifar-100")
    write_cifar(tmp_path / "mine")
    assert load_images(tmp_path / "mine").classes == ("apple", "bear", "crab")
    write_cifar(data_folder() / "archives" / "cifar-100-python")
    images = load_images("cifar-100")
    assert images.shape == (3, 32, 32)
    assert images.train_images[0, 1, 0, 5] == pytest.approx((1024 + 5) % 256 / 255)


class Harm:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_that_would_run_something_is_refused(tmp_path, capsys):
    write_cifar(tmp_path / "mine")
    (tmp_path / "mine" / "train").write_bytes(pickle.dumps({b"data": Harm()}, protocol=2))
    with pytest.raises(ValueError, match="it wants .*print"):
        load_images(tmp_path / "mine")
    assert capsys.readouterr().out == ""


def test_what_cannot_be_used_is_refused_with_what_was_found(tmp_path):
    np.savez(tmp_path / "half.npz", train_images=np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="lacks train_labels, test_images, test_labels"):
        load_images(tmp_path / "half.npz")
    labels = np.array([0, 1])
    for images, message in (
        (np.zeros((2, 9)), "must be .samples"),
        (np.zeros((2, 7, 3, 3)), "second axis"),
        (np.full((2, 3, 3), 200.0), "from 0 to 1"),
        (np.zeros((3, 3, 3)), "one a picture"),
    ):
        np.savez(tmp_path / "odd.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
        with pytest.raises(ValueError, match=message):
            load_images(tmp_path / "odd.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ValueError, match="no .npz"):
        load_images(tmp_path / "text.npz")
    with pytest.raises(ValueError, match="neither the four idx files"):
        load_images(tmp_path)
    with pytest.raises(UnknownName, match="Did you mean 'digits'"):
        load_images("digit")
    with pytest.raises(UnknownName, match="does not exist"):
        load_images("no/such/folder")


def test_an_idx_file_that_is_not_whole_is_refused(tmp_path):
    content = idx(np.arange(12).reshape(3, 4))
    (tmp_path / "whole").write_bytes(content)
    assert read_idx(tmp_path / "whole").tolist() == np.arange(12).reshape(3, 4).tolist()
    for name, wrong in (("cut", content[:-1]), ("text", b"no idx file"), ("short", content[:6])):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(ValueError, match="idx file|not whole"):
            read_idx(tmp_path / name)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content)[:-5])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read_idx(tmp_path / "packed.gz")


def test_parts_are_disjoint_and_have_the_classes_in_their_share():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    first, second = stratified_parts(labels, (100, 50), seed=3)
    assert not set(first) & set(second)
    assert np.abs(np.bincount(labels[first]) - [60, 30, 10]).max() <= 1
    assert np.abs(np.bincount(labels[second]) - [30, 15, 5]).max() <= 1
    np.testing.assert_array_equal(first, stratified_parts(labels, (100, 50), seed=3)[0])
    assert not np.array_equal(first, stratified_parts(labels, (100, 50), seed=4)[0])
    assert (np.diff(labels[first]) < 0).any()  # shuffled within
    with pytest.raises(ValueError, match="at most 1000"):
        stratified_parts(labels, (900, 101), seed=0)


def test_exactly_the_share_of_labels_is_wrong_and_every_wrong_class_comes_up():
    labels = np.zeros(2000, int)
    flipped = flip_labels(labels, 0.2, classes=5, seed=0)
    assert (flipped != labels).sum() == 400
    assert np.bincount(flipped)[1:].min() > 70
    np.testing.assert_array_equal(flip_labels(labels, 0.0, classes=5, seed=0), labels)
    assert (flip_labels(labels, 1.0, classes=2, seed=0) == 1).all()
    with pytest.raises(ValueError, match="classes=1"):
        flip_labels(labels, 0.1, classes=1, seed=0)
    with pytest.raises(ValueError, match="share"):
        flip_labels(labels, 1.1, classes=2, seed=0)
