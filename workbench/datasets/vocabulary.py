"""Vocabularies trained on a corpus: its characters, or byte pairs; both spell every text there is."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.datasets.corpus import Corpus
from workbench.files import atomic_path, data_folder

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"  # first token; begins and ends texts when a caller puts it there
ESCAPE = "␛"  # then two hexadecimal digits: one byte that the corpus never showed
SMALLEST = 256
_FORMAT = 1  # raise when the same corpus and size should give another vocabulary


def train_vocabulary(corpus: Corpus, size: int | str) -> PreTrainedTokenizerFast:
    """The vocabulary of ``size`` made from ``corpus``; ``decode(encode(text)) == text`` for every text.

    ``size="characters"`` has a token for every character of the corpus, 16 hexadecimal digits and an escape
    token. A character that the corpus never showed is spelled by its UTF-8 bytes, three tokens each (the escape
    and two digits), so that no text is lost and nats per byte stay right. An integer is the exact number of
    tokens of a byte-level byte-pair vocabulary (Sennrich et al. 2016; bytes as in GPT-2, without the thirteen
    that UTF-8 never uses). No token is added by itself: ``bos`` and ``eos`` are both ``<|endoftext|>``, id 0,
    put in by whoever wants them. Trained once and then read from ``data/cache``; equal bytes every time.

    Raises:
        ValueError: a size below 256, or larger than the corpus can fill.
    """
    if size != "characters" and (isinstance(size, bool) or not isinstance(size, int) or size < SMALLEST):
        raise ValueError(f"vocabulary={size!r} must be 'characters' or a whole number of at least {SMALLEST}.")
    recipe = f"{_FORMAT} {size} {version('tokenizers')} {corpus.fingerprint}"
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    path = data_folder() / "cache" / "vocabularies" / f"{size}-{key}.json"
    if not path.is_file():
        trained = _characters(corpus) if size == "characters" else _byte_pairs(corpus, size)
        with atomic_path(path) as temporary:
            temporary.write_text(trained.to_str(pretty=True), encoding="utf-8")
    return _wrap(path)


def encode_corpus(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> list[np.ndarray]:
    """Token ids of each document (uint16, or uint32 for large vocabularies), as ``tokenizer`` would give them.

    Characters go through a table, about a hundred times faster than the tokenizer itself.
    """
    import numpy as np

    kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    single = _single_characters(tokenizer)
    encoded = []
    for document in corpus.documents:
        if single is not None and END_OF_TEXT not in document.text and set(document.text) <= single.keys():
            table = np.zeros(max(map(ord, single)) + 1, dtype=kind)
            table[[ord(character) for character in single]] = list(single.values())
            encoded.append(table[np.frombuffer(document.text.encode("utf-32-le"), dtype=np.uint32)])
        else:
            # The fast form leaves out offsets, which nobody here asks for: half the time.
            (found,) = tokenizer.backend_tokenizer.encode_batch_fast([document.text], add_special_tokens=False)
            encoded.append(np.array(found.ids, dtype=kind))
    return encoded


def _wrap(path: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _characters(corpus: Corpus) -> Tokenizer:
    """One token a character: several bytes of one are merged pair by pair from the left."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    characters = sorted(set().union(*(document.text for document in corpus.documents)) | set("0123456789abcdef"))
    letters = _byte_letters()
    spelled = ["".join(letters[byte] for byte in character.encode("utf-8")) for character in characters]
    seen = {letter for spelling in spelled for letter in spelling}
    names = [END_OF_TEXT, ESCAPE, *spelled]
    merges: dict[tuple[str, str], None] = {}
    for spelling in spelled:
        for end in range(1, len(spelling)):
            merges[spelling[:end], spelling[end]] = None
    names += sorted({*seen, *(first + second for first, second in merges)} - set(names))
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, list(merges)))
    unseen = {letters[byte]: f"{ESCAPE}{byte:02x}" for byte in _utf8_bytes() if letters[byte] not in seen}
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.ByteLevel(), *(normalizers.Replace(letter, escaped) for letter, escaped in unseen.items())]
    )
    # Short pieces: the merging of a whole play as one word would be slow.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(letters[ord("\n")], "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Fuse(),
            *(decoders.Replace(escaped, letter) for letter, escaped in unseen.items()),
            # A model may write an escape with no digits after it; one foreign letter would spoil the whole text.
            decoders.Replace(ESCAPE, "".join(letters[byte] for byte in "\ufffd".encode())),
            decoders.ByteLevel(),
        ]
    )
    _add_end_of_text(tokenizer)
    return tokenizer


def _byte_pairs(corpus: Corpus, size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = _byte_letters()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=[letters[byte] for byte in _utf8_bytes()],
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in corpus.documents), trainer)
    if (found := tokenizer.get_vocab_size()) < size:
        advice = f"ask for at most {found}" if found >= SMALLEST else "give more text, or take 'characters'"
        raise ValueError(f"vocabulary={size} is more than {corpus.name!r} can fill: {advice}.")
    _add_end_of_text(tokenizer)
    return tokenizer


def _add_end_of_text(tokenizer: Tokenizer) -> None:
    from tokenizers import AddedToken

    # Not normalised: it must be found in the text before bytes become letters.
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])


def _single_characters(tokenizer: PreTrainedTokenizerFast) -> dict[str, int] | None:
    """Character -> id of a vocabulary of characters, None for another."""
    vocabulary = tokenizer.get_vocab()
    if ESCAPE not in vocabulary:
        return None
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    single = {}
    for name, number in vocabulary.items():
        if name in (END_OF_TEXT, ESCAPE):
            continue
        try:
            character = bytes(letters[letter] for letter in name).decode("utf-8")
        except UnicodeDecodeError:  # part of a character
            continue
        single[character] = number
    return single


def _utf8_bytes() -> list[int]:
    """The 243 bytes that can occur in UTF-8."""
    return [byte for byte in range(0xF5) if byte not in (0xC0, 0xC1)]


@lru_cache(maxsize=1)
def _byte_letters() -> dict[int, str]:
    """The visible character that byte-level vocabularies write each byte as.

    Printable Latin-1 stands for itself, the others follow from U+0100 on, in order (Radford et al. 2019).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + place) for place, byte in enumerate(others)}
