"""CIFAR's python version: pickles, read by an unpickler that makes arrays and nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

CIFAR_MEMBERS = ("train", "test", "meta")  # of CIFAR-100
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
SIDE = 32


def read_cifar(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Training pictures ``[samples, 3, 32, 32]`` (bytes) and fine labels, the same to test on, and class names.

    Raises:
        ValueError: a file is not what CIFAR-100's python version has there, or holds more than arrays.
    """
    found: list[np.ndarray] = []
    for part in ("train", "test"):
        content = _unpickle(folder / part)
        pictures = content.get(b"data")
        if not isinstance(pictures, np.ndarray) or pictures.ndim != 2 or pictures.shape[1] != 3 * SIDE * SIDE:
            raise ValueError(f"{folder / part} holds no pictures of 3 x 32 x 32 bytes.")
        found += [pictures.reshape(-1, 3, SIDE, SIDE), np.asarray(content[b"fine_labels"])]
    names = _unpickle(folder / "meta").get(b"fine_label_names", [])
    return (*found, tuple(name.decode() for name in names))


class _ArraysOnly(pickle.Unpickler):
    """A pickle may call anything that it names; this one is given nothing to call but what builds arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which arrays do not need")
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is not a file of CIFAR's python version ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a file of CIFAR's python version: it holds no dictionary.")
    return content
