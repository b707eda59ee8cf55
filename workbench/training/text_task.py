"""Next-token prediction on a text: corpus, vocabulary and split, prepared once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import check_positive
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, made_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from workbench.datasets.corpus import Corpus

TEXT_CODE = ("datasets/corpus.py", "datasets/documents.py", "datasets/vocabulary.py", "training/text_task.py")


@dataclass(frozen=True)
class TextTask:
    """Which text, cut into which tokens; whole documents are held out, never the end of one.

    Raises:
        ValueError: a number that cannot work.
    """

    corpus: str = "shakespeare"  # name, .txt file or folder of .txt files
    vocabulary: str | int = "characters"  # or the size of a byte-level BPE vocabulary
    context: int = 64  # tokens a model sees
    held_out: int = 4  # documents
    split_seed: int = 0  # which documents
    training_bytes: int | None = None  # the training text is cut to about this size; None = all of it

    def __post_init__(self) -> None:
        check_positive(context=self.context, held_out=self.held_out)
        if self.training_bytes is not None:
            check_positive(training_bytes=self.training_bytes)

    def prepare(self) -> PreparedText:
        """Tokens of both parts and the tokenizer; from the cache when the same text was prepared before.

        Raises:
            ValueError: the corpus is unknown, has too few documents, or is shorter than one window.
            AssetError: the corpus cannot be had.
        """
        from workbench.datasets.corpus import load_corpus, split_corpus

        corpus = load_corpus(self.corpus)
        genres = [(document.name, document.genre) for document in corpus.documents]  # they decide the split
        about = {name: value for name, value in asdict(self).items() if name not in ("corpus", "context")}
        key = content_hash(text=corpus.fingerprint, genres=genres, code=code_hash(TEXT_CODE), **about)

        def make(folder: Path) -> None:
            training, held_out = split_corpus(corpus, held_out=self.held_out, seed=self.split_seed)
            _write(folder, self, training, held_out)

        return PreparedText(made_once(cache_folder("text", key), make), self.context)


def _write(folder: Path, task: TextTask, training: Corpus, held_out: Corpus) -> None:
    from workbench.datasets.vocabulary import encode_corpus, train_vocabulary

    if task.training_bytes is not None:
        training = _cut(training, task.training_bytes)
    tokenizer = train_vocabulary(training, task.vocabulary)
    tokenizer.save_pretrained(folder / "tokenizer")
    about = {"vocab_size": len(tokenizer)}
    for name, part in (("training", training), ("held_out", held_out)):
        np.save(folder / f"{name}.npy", np.concatenate(encode_corpus(part, tokenizer)))
        about[f"{name}_bytes"] = part.bytes
    (folder / "about.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _cut(corpus: Corpus, most: int) -> Corpus:
    """The first ``most`` bytes of ``corpus``, the last document cut short."""
    kept, left = [], most
    for document in corpus.documents:
        text = document.text.encode("utf-8")[:left].decode("utf-8", errors="ignore")
        kept.append(replace(document, text=text))
        left -= len(text.encode("utf-8"))
        if left < 4:  # less than the longest character
            break
    return replace(corpus, documents=tuple(kept))


@dataclass(frozen=True)
class PreparedText:
    """Token arrays of a task, memory-mapped from ``folder``; its name is the hash of everything that made them."""

    folder: Path
    context: int

    @cached_property
    def _about(self) -> dict[str, int]:
        return json.loads((self.folder / "about.json").read_text(encoding="utf-8"))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, loaded when first asked for (that imports transformers)."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self.folder / "tokenizer")

    @property
    def key(self) -> str:
        """Hash of corpus, vocabulary and split."""
        return self.folder.name

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return self._about["vocab_size"]

    @cached_property
    def training(self) -> np.ndarray:
        """Training tokens, uint16 or uint32."""
        return np.load(self.folder / "training.npy", mmap_mode="r")

    @cached_property
    def held_out(self) -> np.ndarray:
        """Held-out tokens, uint16 or uint32."""
        return np.load(self.folder / "held_out.npy", mmap_mode="r")

    @property
    def held_out_bytes(self) -> int:
        """Bytes of the held-out text in UTF-8."""
        return self._about["held_out_bytes"]

    @property
    def bytes_per_token(self) -> float:
        """Of the held-out text: nats per token divided by it are nats per byte."""
        return self.held_out_bytes / len(self.held_out)
