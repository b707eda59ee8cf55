"""What was computed once is kept under a hash of everything that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.files import atomic_path, data_folder, locked, remove_leavings
from workbench.models.small_lm import ModelSize, llama_config

if TYPE_CHECKING:
    from torch import Tensor


def content_hash(**parts: Any) -> str:
    """Sixteen hex digits that change when any named part does (numbers, text, bytes, arrays, dataclasses, lists)."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(f"\0{name}=".encode())
        _feed(digest, parts[name])
    return digest.hexdigest()[:16]


def _feed(digest: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif isinstance(part, bytes):
        digest.update(part)
    else:
        plain = asdict(part) if is_dataclass(part) else part
        digest.update(json.dumps(plain, sort_keys=True, default=repr).encode())


# What decides the weights of a model of the ladder; losses are not among it, teachers learn from labels alone.
LADDER_CODE = (
    "models/small_lm.py",
    "models/next_token.py",
    "models/replica_layers.py",
    "models/stacked_lm.py",
    "training/batches.py",
    "training/checkpoints.py",
    "training/ladder.py",
    "training/loop.py",
    "training/schedule.py",
    "metrics/language.py",
)


@cache
def code_hash(files: tuple[str, ...] = LADDER_CODE) -> str:
    """Hash of ``files`` of this package and of the version of torch that runs them."""
    from importlib.metadata import version

    package = Path(__file__).resolve().parent.parent
    code = b"\0".join((package / file).read_bytes() for file in files)
    return content_hash(torch=version("torch"), code=code)


def cache_folder(kind: str, key: str) -> Path:
    """Where the thing of that kind with that hash is kept. Ask in the process that the user started:
    one that works on tasks may have been started under another ``$WORKBENCH_DATA``.
    """
    return data_folder() / "cache" / kind / key


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``make(temporary folder)`` if it is not there.

    Several processes may ask at once: one makes it, the others wait. A ``make`` that fails leaves nothing.

    Raises:
        AssetError: the folder cannot be written or the disk is full.
    """
    if folder.is_dir():
        return folder
    with locked(folder):
        if not folder.is_dir():
            remove_leavings(folder)
            with atomic_path(folder) as temporary:
                temporary.mkdir(parents=True)
                make(temporary)
    return folder


def save_weights(weights: Mapping[str, Tensor], size: ModelSize, folder: Path, *, context: int) -> None:
    """Write a small model as ``from_pretrained`` of transformers reads it, without needing transformers."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = len(weights["model.embed_tokens.weight"])
    config = llama_config(vocab_size, size, context=context)
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that :func:`save_weights` wrote, by name."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
