"""The form in which a teacher's answers lie on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from workbench.files import atomic_path
from workbench.models.last_layer import LastLayer, last_hidden_states, last_layer
from workbench.models.next_token import logits_of

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
TOP, INDICES, HIDDEN = "top_log_probs.bin", "top_indices.bin", "hidden_states.bin"


@dataclass(frozen=True)
class About:
    """What a folder holds: of whom, about what, and in which form."""

    teacher: str  # fingerprint of its weights and configuration
    data: str  # fingerprint of the windows
    windows: int
    time: int  # predicted tokens of a window
    vocab: int
    top_k: int | None
    dtype: str  # of the log-probabilities
    hidden: int | None  # width of the hidden states
    hidden_dtype: str
    precision: str  # of the teacher's pass

    @property
    def bytes_per_window(self) -> dict[str, int]:
        """Bytes that every file grows by with each window."""
        sizes = {}
        if self.top_k is not None:
            sizes[TOP] = self.time * self.top_k * DTYPES[self.dtype].itemsize
            sizes[INDICES] = self.time * self.top_k * self.index_type.itemsize
        if self.hidden is not None:
            sizes[HIDDEN] = self.time * self.hidden * DTYPES[self.hidden_dtype].itemsize
        return sizes

    @property
    def index_type(self) -> np.dtype:
        """The narrowest that holds every token."""
        return np.dtype(np.uint16 if self.vocab <= 2**16 else np.int32)


def teacher_fingerprint(teacher: nn.Module) -> str:
    """Sixteen hex digits of a model's weights, buffers and configuration."""
    digest = hashlib.sha256(type(teacher).__name__.encode())
    config = getattr(teacher, "config", None)
    if hasattr(config, "to_dict"):
        # Where it lies and which version wrote it say nothing about the answers.
        left_out = ("_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype")
        plain = {name: value for name, value in config.to_dict().items() if name not in left_out}
        digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    for name, tensor in [*teacher.named_parameters(), *teacher.named_buffers()]:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()[:16]


def checked_windows(windows: Tensor | np.ndarray) -> Tensor:
    """Windows as int64 ``[windows, time + 1]``, or a sentence."""
    tensor = torch.as_tensor(np.asarray(windows) if not isinstance(windows, Tensor) else windows).cpu()
    if tensor.dim() != 2 or tensor.shape[0] < 1 or tensor.shape[1] < 2 or tensor.is_floating_point():
        raise ValueError(
            f"windows must be integer tokens [windows, time + 1]; got {tuple(tensor.shape)} {tensor.dtype}."
        )
    return tensor.long()


def ask(teacher: nn.Module, tokens: Tensor, about: About) -> Iterator[tuple[str, bytes]]:
    """Answers about one batch, by file."""
    hidden = last_hidden_states(teacher, tokens) if about.hidden is not None else None
    if about.top_k is not None:
        logits = logits_of(teacher, tokens) if hidden is None else last_layer(teacher).logits(hidden)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        values, indices = log_probs.topk(about.top_k, dim=-1)
        yield TOP, _bytes(values.to(DTYPES[about.dtype]))
        yield INDICES, indices.cpu().numpy().astype(about.index_type).tobytes()
    if hidden is not None:
        yield HIDDEN, _bytes(hidden.to(DTYPES[about.hidden_dtype]))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def as_tensor(rows: np.ndarray, dtype: str) -> Tensor:
    """Rows of a file as what they stand for."""
    return torch.from_numpy(np.ascontiguousarray(rows)).view(DTYPES[dtype])


def size_of_file(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def save_head(layer: LastLayer, target: Path) -> None:
    """Write a last layer, whole or not at all."""
    from safetensors.torch import save_file

    parts = {"weight": layer.weight.detach().cpu().contiguous()}
    if layer.bias is not None:
        parts["bias"] = layer.bias.detach().cpu().contiguous()
    if layer.softcap is not None:
        parts["softcap"] = torch.tensor(float(layer.softcap), dtype=torch.float64)
    with atomic_path(target) as temporary:
        save_file(parts, temporary)


@contextmanager
def appended(folder: Path, about: About, done: int) -> Iterator[dict[str, BinaryIO]]:
    """The files of a folder, open to append after the ``done`` windows that all of them hold whole."""
    with ExitStack() as opened:
        files = {}
        for name, size in about.bytes_per_window.items():
            (folder / name).touch()
            files[name] = file = opened.enter_context((folder / name).open("r+b"))
            file.truncate(done * size)  # a killed fill may have left a part of a window
            file.seek(0, 2)
        yield files
