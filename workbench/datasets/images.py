"""Pictures with labels by name: handwritten digits, clothes, CIFAR from where the user keeps it, or anybody's own."""

from __future__ import annotations

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.datasets.cifar import CIFAR_MEMBERS, read_cifar
from workbench.datasets.fetch import fetch
from workbench.datasets.splits import stratified_parts
from workbench.errors import AssetError, UnknownName, check_choice
from workbench.files import data_folder

IMAGES = ("digits", "fashion-mnist", "cifar-100")
CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGITS_HELD_OUT = 797  # of 1,797; scikit-learn's collection has no test set of its own
PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures of one size, divided into what is trained on and what is tested on."""

    name: str
    train_images: np.ndarray  # [samples, channels, height, width], float32 from 0 to 1
    train_labels: np.ndarray  # [samples], int64 from 0
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        return self.train_images.shape[1:]


def load_images(name: str | Path = "digits") -> Images:
    """The pictures called ``digits``, ``fashion-mnist`` or ``cifar-100``, or those at a path.

    ``digits`` are scikit-learn's 1,797 of 8 x 8 (797 of them held out, the same always); ``fashion-mnist`` has
    60,000 + 10,000 of 28 x 28 and comes as a Debian package through apt; ``cifar-100`` is looked for as the folder
    ``cifar-100-python`` among the archives of the data folder. A path is an ``.npz`` with the arrays
    ``train_images, train_labels, test_images, test_labels`` (pictures ``[samples, height, width]`` or with channels
    in the second place, bytes or 0 to 1), a folder with Fashion-MNIST's (or any MNIST's) four idx files, or a
    folder of CIFAR's python version.

    Raises:
        UnknownName: neither a known name nor an existing path.
        ValueError: what lies there cannot be used.
        AssetError: the pictures are not here and cannot be fetched; nothing stands in for them.
    """
    name = str(name)
    if name == "digits":
        return _digits()
    if name == "fashion-mnist":
        try:
            return _idx_folder(fetch("fashion-mnist"), name, CLOTHES)
        except AssetError as error:
            raise AssetError(
                f"{str(error).rstrip('.')}; or take the pictures that need no download, digits."
            ) from error
    if name == "cifar-100":
        return read_images(require_cifar_100())
    path = Path(name).expanduser()
    if path.exists():
        return read_images(path)
    if path.suffix or len(path.parts) > 1:
        raise UnknownName(f"images={name!r} does not exist: give an .npz, a folder or {', '.join(map(repr, IMAGES))}.")
    check_choice("images", name, IMAGES)
    raise UnknownName(f"images={name!r} is neither a file nor a folder.")


def read_images(path: Path) -> Images:
    """The pictures in the ``.npz`` or folder at ``path``, see :func:`load_images`."""
    if path.is_file():
        return _npz(path)
    if all((path / member).is_file() for member in CIFAR_MEMBERS):
        return _checked(path.name, *read_cifar(path))
    if _idx_file(path, "train-images-idx3-ubyte"):
        return _idx_folder(path, path.name)
    raise ValueError(f"{path} holds neither the four idx files of an MNIST nor CIFAR's {', '.join(CIFAR_MEMBERS)}.")


def require_cifar_100() -> Path:
    """The folder of CIFAR-100's python version among the archives of the data folder.

    Raises:
        AssetError: it is not there; no package holds it.
    """
    folder = data_folder() / "archives" / "cifar-100-python"
    if not folder.is_dir():
        raise AssetError(
            "cifar-100 is in no package: get cifar-100-python.tar.gz from its authors, "
            f"unpack it into {folder.parent}, or give the path of its folder."
        )
    return folder


def _digits() -> Images:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)  # grey levels 0 to 16
    held, kept = stratified_parts(bunch.target, (DIGITS_HELD_OUT, len(bunch.target) - DIGITS_HELD_OUT), seed=0)
    classes = tuple(map(str, bunch.target_names))
    return _checked("digits", images[kept], bunch.target[kept], images[held], bunch.target[held], classes)


def _npz(path: Path) -> Images:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {part: arrays[part] for part in PARTS if part in arrays}
            held = ", ".join(arrays.files) or "nothing"
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz of plain arrays.") from error
    if missing := [part for part in PARTS if part not in found]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {held}.")
    return _checked(path.stem, *found.values())


def _idx_folder(folder: Path, name: str, classes: tuple[str, ...] = ()) -> Images:
    arrays = []
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            file = _idx_file(folder, f"{part}-{kind}-ubyte")
            if file is None:
                raise ValueError(f"{folder} lacks {part}-{kind}-ubyte.gz.")
            arrays.append(read_idx(file))
    return _checked(name, *arrays, classes)


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """The bytes of an idx file (LeCun's MNIST format), packed by gzip or not, in the shape its header gives.

    Raises:
        ValueError: it is no idx file of unsigned bytes, or not whole.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}).") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 * (1 + content[3]):
        raise ValueError(f"{path} is no idx file of unsigned bytes.")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 * (1 + axes))
    if values.size != shape.prod():
        raise ValueError(f"{path} is not whole: its header tells {shape.prod()} bytes, it holds {values.size}.")
    return values.reshape(shape)


def _checked(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    classes: tuple[str, ...] = (),
) -> Images:
    """One form for all: float32 from 0 to 1 with a channel axis, int64 labels, a name for each class."""
    train, test = (_pictures(images, name) for images in (train_images, test_images))
    labels = []
    for images, given in ((train, train_labels), (test, test_labels)):
        if given.shape != (len(images),) or given.dtype.kind not in "iu" or len(given) == 0 or given.min() < 0:
            raise ValueError(f"{name}: labels must be whole numbers from 0, one a picture; got shape {given.shape}.")
        labels.append(given.astype(np.int64))
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"{name}: pictures to train on are {train.shape[1:]}, those to test on {test.shape[1:]}.")
    count = int(max(part.max() for part in labels)) + 1
    return Images(name, train, labels[0], test, labels[1], classes or tuple(map(str, range(count))))


def _pictures(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim not in (3, 4):
        raise ValueError(f"{name}: pictures must be [samples, height, width] or with channels, got {images.shape}.")
    if images.ndim == 4 and images.shape[1] not in (1, 3):
        raise ValueError(f"{name}: the second axis must be the 1 or 3 channels, got shape {images.shape}.")
    scaled = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    if not (np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError(f"{name}: pictures must be bytes, or numbers from 0 to 1.")
    return scaled if scaled.ndim == 4 else scaled[:, None]
