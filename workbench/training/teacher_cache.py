"""What a teacher says about a corpus, asked once and kept on disk: its likeliest tokens, or its hidden states."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workbench import telemetry
from workbench.errors import AssetError, check_choice, check_positive
from workbench.files import locked, write_json
from workbench.models.last_layer import LastLayer, last_hidden_states, last_layer
from workbench.models.next_token import logits_of
from workbench.progress import progress
from workbench.training.distil import frozen
from workbench.training.teacher_answers import (
    DTYPES,
    HIDDEN,
    INDICES,
    TOP,
    About,
    appended,
    as_tensor,
    ask,
    checked_windows,
    save_head,
    size_of_file,
    teacher_fingerprint,
)

ABOUT, HEAD = "about.json", "last_layer.safetensors"
SPARE = 2**26  # bytes of the disk that are left alone


class TeacherCache:
    """A teacher's answers about token windows in ``folder``, filled once with :meth:`fill`, then read by number.

    ``top_k`` log-probabilities feed :func:`workbench.losses.topk_kl`; hidden states with :attr:`head` feed
    :func:`workbench.losses.chunked_linear_distillation`, exact over the whole vocabulary. Any other process may
    read: ``TeacherCache(folder)`` needs no teacher.

    >>> cache = TeacherCache(folder)                                              # doctest: +SKIP
    >>> cache.fill(teacher, windows, top_k=64)                                    # doctest: +SKIP
    >>> loss = topk_kl(student(windows[numbers, :-1]).logits, *cache.top_k(numbers))  # doctest: +SKIP
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def about(self) -> About:
        """What the folder holds.

        Raises:
            ValueError: nothing, or something else.
        """
        try:
            return About(**json.loads((self.folder / ABOUT).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"The folder {self.folder} holds no teacher's answers yet: call fill first.") from None
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.folder / ABOUT} is not what fill writes: take another folder.") from error

    def __len__(self) -> int:
        """How many windows are answered so far."""
        if not (self.folder / ABOUT).is_file():
            return 0
        sizes = self.about.bytes_per_window
        return min(size_of_file(self.folder / name) // size for name, size in sizes.items())

    def fill(
        self,
        teacher: nn.Module,
        windows: Tensor | np.ndarray,
        *,
        top_k: int | None = None,
        hidden_states: bool = False,
        dtype: str = "float16",
        hidden_dtype: str = "bfloat16",
        precision: str = "float32",
        batch_size: int = 8,
        stop: Callable[[], bool] | None = None,
        label: str | None = "teacher asked",
    ) -> TeacherCache:
        """Ask ``teacher`` about all ``windows`` that are not answered yet, in order, and return this cache.

        A fill that was killed or stopped goes on where it was; one that is complete costs a look at the weights.
        Only one process fills a folder at a time.

        Args:
            teacher: causal language model of transformers, or lean model; evaluation mode is set meanwhile.
            windows: ``[windows, time + 1]`` tokens; the answers are about the last ``time`` of each.
            top_k: store the log-probabilities of so many likeliest tokens, at temperature 1.
            hidden_states: store what the teacher's last layer reads, and that layer.
            dtype, hidden_dtype: ``float16 | bfloat16 | float32``; float16 keeps three digits of a log-probability.
            precision: of the pass: ``float32``, or ``bfloat16`` for autocast (a teacher in bfloat16 needs none).
            batch_size: windows asked at once.
            stop: asked before each batch; True ends the fill and keeps what is done.
            label: of the progress bar; None shows none.

        Raises:
            ValueError: nothing to store, ``top_k`` beyond the vocabulary, a folder with other answers, a
                teacher whose logits are more than its last layer.
            AssetError: the answers do not fit on the disk (said before any is computed), or cannot be written.
        """
        check_positive(batch_size=batch_size)
        for name, value in (("dtype", dtype), ("hidden_dtype", hidden_dtype)):
            check_choice(name, value, DTYPES)
        check_choice("precision", precision, ("float32", "bfloat16"))
        windows = checked_windows(windows)
        device = next(teacher.parameters()).device
        with frozen(teacher), torch.no_grad():
            about = self._plan(teacher, windows, top_k, hidden_states, dtype, hidden_dtype, precision, device)
            with locked(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._begin(about, teacher)
                left = range(len(self), about.windows, batch_size)
                with appended(self.folder, about, len(self)) as files:
                    for start in left if label is None else progress(left, label=label):
                        if stop is not None and stop():
                            break
                        telemetry.check_stop()
                        tokens = windows[start : start + batch_size, :-1].to(device)
                        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                            for name, answers in ask(teacher, tokens, about):
                                files[name].write(answers)
                        for file in files.values():
                            file.flush()
        return self

    def top_k(self, numbers: Sequence[int] | Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        """Log-probabilities (float32, falling) and tokens (int64), both ``[n, time, k]``, of windows by number.

        Raises:
            ValueError: they were not stored, or the fill has not come to its end.
            IndexError: a number beyond the windows.
        """
        rows = self._rows(numbers, TOP, "top_k=")
        values = as_tensor(self._files[TOP][rows], self._about.dtype).float()
        return values, torch.from_numpy(self._files[INDICES][rows].astype(np.int64))

    def hidden_states(self, numbers: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """What the teacher's last layer reads, ``[n, time, width]`` in the stored dtype, of windows by number.

        Raises:
            ValueError, IndexError: as :meth:`top_k`.
        """
        rows = self._rows(numbers, HIDDEN, "hidden_states=True")
        return as_tensor(self._files[HIDDEN][rows], self._about.hidden_dtype)

    @cached_property
    def head(self) -> LastLayer:
        """The teacher's last layer in its own dtype, for the hidden states.

        Raises:
            ValueError: hidden states were not stored.
        """
        from safetensors.torch import load_file

        if not (self.folder / HEAD).is_file():
            raise ValueError(f"The folder {self.folder} holds no hidden states: call fill with hidden_states=True.")
        kept = load_file(self.folder / HEAD)
        cap = kept.get("softcap")
        return LastLayer(kept["weight"], kept.get("bias"), None if cap is None else float(cap))

    @property
    def nbytes(self) -> int:
        """Bytes of the folder's files."""
        return sum(path.stat().st_size for path in self.folder.glob("*") if path.is_file())

    @cached_property
    def _about(self) -> About:
        return self.about

    @cached_property
    def _files(self) -> dict[str, np.ndarray]:
        about, found = self._about, {}
        if len(self) < about.windows:
            raise ValueError(
                f"The folder {self.folder} holds answers about {len(self)} of {about.windows} windows: call fill with "
                "the same teacher and windows, which goes on where it was."
            )
        widths = {TOP: about.top_k, INDICES: about.top_k, HIDDEN: about.hidden}
        for name in about.bytes_per_window:
            kind = DTYPES[about.hidden_dtype if name == HIDDEN else about.dtype]
            # numpy has no bfloat16: two bytes are two bytes until torch sees them.
            plain = about.index_type if name == INDICES else np.dtype(f"i{kind.itemsize}")
            shape = (about.windows, about.time, widths[name])
            found[name] = np.memmap(self.folder / name, dtype=plain, mode="r", shape=shape)
        return found

    def _rows(self, numbers: Sequence[int] | Tensor | np.ndarray, name: str, wanted: str) -> np.ndarray:
        if name not in self._files:
            raise ValueError(f"The folder {self.folder} was filled without {wanted}: fill another folder with it.")
        rows = np.asarray(numbers.cpu() if isinstance(numbers, Tensor) else numbers, dtype=np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < self._about.windows):
            raise IndexError(f"windows {rows.min()} to {rows.max()} were asked for, but 0 to {self._about.windows - 1} "
                             "are stored.")  # fmt: skip
        return rows

    def _plan(
        self,
        teacher: nn.Module,
        windows: Tensor,
        top_k: int | None,
        hidden_states: bool,
        dtype: str,
        hidden_dtype: str,
        precision: str,
        device: torch.device,
    ) -> About:
        if top_k is None and not hidden_states:
            raise ValueError("there is nothing to store: give top_k, hidden_states=True, or both.")
        first = torch.zeros(1, 2, dtype=torch.long, device=device)
        vocab = logits_of(teacher, first).shape[-1]
        if top_k is not None and not 1 <= top_k <= vocab:
            raise ValueError(f"top_k={top_k} must lie between 1 and the teacher's vocabulary of {vocab}.")
        if int(windows.min()) < 0 or int(windows.max()) >= vocab:
            raise ValueError(
                f"the windows hold the token {int(windows.max())}, the teacher's vocabulary ends at {vocab}."
            )
        width = last_hidden_states(teacher, first, check=True).shape[-1] if hidden_states else None
        data = hashlib.sha256(f"{tuple(windows.shape)}".encode())
        data.update(np.ascontiguousarray(windows.numpy()).data)
        return About(
            teacher=teacher_fingerprint(teacher),
            data=data.hexdigest()[:16],
            windows=len(windows),
            time=windows.shape[1] - 1,
            vocab=vocab,
            top_k=top_k,
            dtype=dtype,
            hidden=width,
            hidden_dtype=hidden_dtype,
            precision=precision,
        )

    def _begin(self, about: About, teacher: nn.Module) -> None:
        """Check that the folder is this one's, and that what is missing fits on the disk."""
        self.__dict__.pop("_about", None), self.__dict__.pop("_files", None)
        begun = (self.folder / ABOUT).is_file()
        if begun and (known := self.about) != about:
            other = next(name for name, value in asdict(about).items() if asdict(known)[name] != value)
            told = {"teacher": "of another teacher", "data": "about other windows"}
            raise ValueError(
                f"The folder {self.folder} holds answers "
                f"{told.get(other, f'with {other}={getattr(known, other)}, not {getattr(about, other)}')}: "
                "take another folder, or delete this one."
            )
        layer = last_layer(teacher) if about.hidden is not None else None
        missing = (about.windows - (len(self) if begun else 0)) * sum(about.bytes_per_window.values())
        if layer is not None and not (self.folder / HEAD).is_file():
            missing += layer.weight.numel() * layer.weight.dtype.itemsize
        free = shutil.disk_usage(self.folder).free
        if missing + SPARE > free and missing:
            raise AssetError(
                f"The teacher's answers would take {missing / 2**20:,.0f} MiB in {self.folder}, where "
                f"{free / 2**20:,.0f} MiB are free: free some space, ask about fewer windows, or store less of each."
            )
        if layer is not None and not (self.folder / HEAD).is_file():
            save_head(layer, self.folder / HEAD)
        if not begun:
            write_json(self.folder / ABOUT, asdict(about))
