"""What pretrained models have in common: a tokenizer, a size of vocabulary, and a text in its tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import UnknownName, check_positive
from workbench.models.pretrained import SHORT_NAMES, find_pretrained, is_pretrained_name
from workbench.models.small_lm import is_size_name, named_size
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, made_once
from workbench.training.text_task import TEXT_CODE, PreparedText

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

HELD_OUT_SHARE = 0.01  # of a corpus with many documents


def are_pretrained(names: Sequence[str]) -> bool:
    """Whether ``names`` are pretrained models (short name, folder, ``owner/name``) and not sizes such as ``64x2``.

    Raises:
        ValueError: both forms in one list, a size that cannot be, or a name of neither form.
    """
    sizes = [name for name in names if is_size_name(name)]
    others = [name for name in names if not is_size_name(name)]
    if sizes and others:
        raise ValueError(
            f"{sizes[0]!r} is a size to train here and {others[0]!r} a pretrained model: they have different "
            "vocabularies, so give teachers and students all in one of the two forms."
        )
    for name in sizes:
        named_size(name)
    for name in others:
        if not is_pretrained_name(name):
            raise UnknownName(
                f"model {name!r} is neither a size (width x layers, such as '64x2'), nor a folder, nor one of "
                f"{', '.join(SHORT_NAMES)}, nor owner/name on the Hugging Face hub."
            )
    return bool(others)


@dataclass(frozen=True)
class Family:
    """Pretrained models of one tokenizer, none of them loaded yet."""

    folders: dict[str, Path]  # by the name that was given
    vocab_size: int  # of all; where the models pad their vocabulary differently, the smallest padding

    def label(self, name: str) -> str:
        """``name`` without the path before it, where that leaves the names different."""
        last = [Path(other).name for other in self.folders]
        return Path(name).name if last.count(Path(name).name) == 1 else name

    def config(self, name: str) -> PretrainedConfig:
        """The configuration of a model."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folders[name])

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that they share."""
        return _tokenizer(next(iter(self.folders.values())))


def find_family(names: Sequence[str], *, context: int) -> Family:
    """Fetch all of ``names`` and check that they can be compared token by token.

    Raises:
        ValueError: vocabularies that differ in more than padding, or a context longer than a model can see.
        UnknownName, AssetError: a model that cannot be had.
    """
    folders = {name: find_pretrained(name) for name in dict.fromkeys(names)}
    family = Family(folders, 0)
    configs = {name: family.config(name) for name in folders}
    vocabularies = {name: _tokenizer(folder).get_vocab() for name, folder in folders.items()}
    first = next(iter(folders))
    for name, config in configs.items():
        if vocabularies[name] != vocabularies[first]:
            raise ValueError(
                f"{first!r} and {name!r} have different vocabularies ({len(vocabularies[first])} and "
                f"{len(vocabularies[name])} tokens): teachers and students must share one tokenizer."
            )
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and context > longest:
            raise ValueError(f"context={context} is more than the {longest} tokens that {name!r} can see: lower it.")
    smallest = min(config.vocab_size for config in configs.values())
    if smallest <= max(vocabularies[first].values()):
        raise ValueError(
            f"a model answers for {smallest} tokens, fewer than its tokenizer knows: {', '.join(folders)}."
        )
    return Family(folders, smallest)


def prepare_pretrained(family: Family, corpus: str, *, context: int, held_out: int | None = None) -> PreparedText:
    """``corpus`` in the tokens of ``family``, its documents ended by the tokenizer's end of text; cached.

    ``held_out`` documents are held out as :class:`~workbench.training.TextTask` does: four, or one in a hundred
    where that is more.

    Raises:
        ValueError: the corpus is unknown or has too few documents.
        AssetError: the corpus cannot be had.
    """
    from workbench.datasets.corpus import load_corpus, split_corpus
    from workbench.datasets.vocabulary import encode_corpus

    text, tokenizer = load_corpus(corpus), family.tokenizer()
    held_out = max(4, round(HELD_OUT_SHARE * len(text.documents))) if held_out is None else held_out
    check_positive(context=context, held_out=held_out)
    code = code_hash((*TEXT_CODE, "training/pretrained_text.py"))
    spelling = tokenizer.backend_tokenizer.to_str()
    key = content_hash(
        text=text.fingerprint, spelling=spelling, end=tokenizer.eos_token_id, held_out=held_out, code=code
    )

    def make(folder: Path) -> None:
        about = {"vocab_size": family.vocab_size}
        for name, part in zip(("training", "held_out"), split_corpus(text, held_out=held_out), strict=True):
            tokens = encode_corpus(part, tokenizer)
            end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
            closed = [piece for document in tokens for piece in (document, np.array(end, dtype=document.dtype))]
            np.save(folder / f"{name}.npy", np.concatenate(closed))
            about[f"{name}_bytes"] = part.bytes
        (folder / "about.json").write_text(json.dumps(about, indent=2), encoding="utf-8")

    return PreparedText(made_once(cache_folder("text", key), make), context)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
