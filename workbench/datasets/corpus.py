"""Corpora as lists of whole documents: Shakespeare by name, or anybody's own text files."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

from workbench.datasets.documents import Corpus, Document
from workbench.datasets.fetch import fetch
from workbench.datasets.hub_corpus import PREFIX, load_hub_corpus
from workbench.datasets.shakespeare import WORKS
from workbench.errors import UnknownName, check_choice

CORPORA = ("shakespeare", "shakespeare-folio")
BLOCKS_PER_HELD_OUT = 10  # a lone document is cut into ten times as many blocks as are held out


def load_corpus(name: str | Path = "shakespeare") -> Corpus:
    """The corpus called ``shakespeare`` or ``shakespeare-folio``, the text at a path, or a data set on the hub.

    A path is a text file (one document) or a folder whose ``.txt`` files are the documents; there the name of
    the sub-folder that a file lies in is its genre. Texts are UTF-8. ``hub:owner/name`` or
    ``hub:owner/name:column`` is read by :func:`workbench.datasets.hub_corpus.load_hub_corpus`.

    Raises:
        UnknownName: neither a known corpus nor an existing path.
        ValueError: there is no text in it, or it is not UTF-8.
        AssetError: the texts are not there yet and cannot be fetched.
    """
    name = str(name)
    if name in CORPORA:
        return _shakespeare(name)
    if name.startswith(PREFIX):
        return load_hub_corpus(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return Corpus(path.stem, (Document(path.stem, _read(path), ""),))
    if path.suffix or len(path.parts) > 1:
        raise UnknownName(
            f"corpus={name!r} does not exist: give a text file, a folder of .txt files, hub:owner/name or {_known()}."
        )
    check_choice("corpus", name, CORPORA)
    raise UnknownName(f"corpus={name!r} is neither a file nor a folder.")  # a broken link or a device


def split_corpus(corpus: Corpus, *, held_out: int = 4, seed: int = 0) -> tuple[Corpus, Corpus]:
    """Divide a corpus by document, never by position, into what is trained on and what is held out.

    Genres are represented by their share of the text: each next document to hold out comes from the genre that
    lacks most, drawn by ``seed``; a genre keeps at least one document for training where that is possible. A
    corpus of one document is first cut at paragraph ends into blocks of about equal length, ten for each held
    out one where there are paragraphs enough, and the blocks are divided in the same way.

    Returns:
        ``(training, held_out)``, each in the corpus's order; together they are the corpus.

    Raises:
        ValueError: ``held_out`` leaves nothing to train on.
    """
    if not isinstance(held_out, int) or held_out < 1:
        raise ValueError(f"held_out={held_out!r} must be a whole number of documents, at least 1.")
    documents = corpus.documents
    if len(documents) == 1:
        documents = _blocks(documents[0], BLOCKS_PER_HELD_OUT * held_out)
    if held_out >= len(documents):
        unit = "paragraphs" if len(corpus.documents) == 1 else "documents"
        raise ValueError(
            f"held_out={held_out} leaves nothing to train on: {corpus.name!r} has {len(documents)} {unit}; "
            "hold out fewer or give more text."
        )
    chosen = _choose(documents, held_out, seed)
    kept = tuple(document for index, document in enumerate(documents) if index not in chosen)
    held = tuple(documents[index] for index in sorted(chosen))
    return Corpus(f"{corpus.name} (training)", kept), Corpus(f"{corpus.name} (held out)", held)


def _choose(documents: tuple[Document, ...], held_out: int, seed: int) -> set[int]:
    size, left = Counter(), Counter()
    for document in documents:
        size[document.genre] += len(document.text)
        left[document.genre] += 1
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    taken: Counter[str] = Counter()
    chosen: set[int] = set()
    for count in range(1, held_out + 1):
        spare = {genre for genre, documents_left in left.items() if documents_left > 1}
        genres = sorted(spare or {genre for genre, documents_left in left.items() if documents_left})
        lacks = {genre: count * size[genre] / sum(size.values()) - taken[genre] for genre in genres}
        genre = max(genres, key=lacks.__getitem__)
        chosen.add(next(index for index in order if index not in chosen and documents[index].genre == genre))
        taken[genre] += 1
        left[genre] -= 1
    return chosen


def _blocks(document: Document, wanted: int) -> tuple[Document, ...]:
    """Consecutive pieces of ``document``, cut after blank lines, whose texts joined are its text."""
    paragraphs = re.findall(r".+?(?:\n[^\S\n]*(?:\n\s*)+|\Z)", document.text, flags=re.DOTALL)
    target = len(document.text) / wanted
    blocks: list[str] = []
    filled = 0
    for paragraph in paragraphs:
        if not blocks or filled >= target * len(blocks):
            blocks.append("")
        blocks[-1] += paragraph
        filled += len(paragraph)
    return tuple(
        Document(f"{document.name}, block {number}", text, document.genre)
        for number, text in enumerate(blocks, start=1)
    )


def _shakespeare(name: str) -> Corpus:
    folder = fetch("shakespeare")
    stems = {work: work.modern if name == "shakespeare" else work.folio for work in WORKS}
    return Corpus(
        name,
        tuple(
            Document(work.title, _read(folder / f"{stem}.txt"), work.genre)
            for work, stem in stems.items()
            if stem is not None
        ),
    )


def _folder(folder: Path) -> Corpus:
    documents = []
    for path in sorted(folder.rglob("*.txt")):
        relative = path.relative_to(folder)
        genre = relative.parent.name
        documents.append(Document(relative.with_suffix("").as_posix(), _read(path), genre))
    if not documents:
        raise ValueError(f"The folder {folder} holds no .txt file to use as a corpus.")
    return Corpus(folder.resolve().name, tuple(documents))


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): save it as UTF-8."
        ) from error
    if not text.strip():
        raise ValueError(f"{path} is empty: a corpus needs text.")
    return text


def _known() -> str:
    return " or ".join(map(repr, CORPORA))
