"""Texts by kind: four genres of one author, his old spelling, code, manuals, a licence, notes on data."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import random
from collections.abc import Callable
from pathlib import Path

from workbench.datasets.corpus import load_corpus, split_corpus
from workbench.datasets.documents import Corpus, Document
from workbench.errors import AssetError, check_choice, check_positive

PLAYS = ("comedy", "tragedy", "history")
KINDS = (*PLAYS, "poem", "folio", "code", "documentation", "licence", "data notes")
# Written in Python, on every platform, and long; in the order in which they are taken.
CODE = ("statistics", "fractions", "heapq", "textwrap", "shlex", "calendar", "graphlib", "csv", "cmd", "sched")
POEM = "The Rape of Lucrece"  # the longest
LICENSED = "transformers"  # its licence is Apache-2.0, the same text in every version


def text_kinds(
    *, characters: int = 8000, seed: int = 0, held_out: int = 4, kinds: tuple[str, ...] = KINDS
) -> dict[str, str]:
    """About ``characters`` of real text of each kind, in the order of ``kinds``; no network beyond one asset.

    * ``comedy``, ``tragedy``, ``history``: one work each of those that ``split_corpus(load_corpus("shakespeare"),
      held_out=held_out, seed=seed)`` holds out, so that language models trained here on the rest have not seen it.
    * ``folio``: the held-out comedy once more, about the same place, in the First Folio's spelling: a shift of domain.
    * ``poem``: a poem, which that split never holds out: only for models that were not trained on this corpus.
    * ``code``: source of the standard library of this Python; ``documentation``: its manual of the language.
    * ``licence``: Apache-2.0, which stands in countless repositories; ``data notes``: what scikit-learn tells about
      its data sets.

    The last four are the files of this environment, the same on machines with the same versions; the licence and
    the notes have 11,000 and 40,000 characters in all. A public model may have read any of them in training.

    Args:
        characters: of each text, which begins and ends with a line; a kind that has less comes whole.
        seed: of the split of works, and of where in a text the stretch begins.
        held_out: works that the split holds out.

    Raises:
        UnknownName: another kind.
        ValueError: the split holds out no work of a genre that was asked for.
        AssetError: Shakespeare's works are not here and cannot be fetched, or this Python comes without its sources.
    """
    check_positive(characters=characters, held_out=held_out)
    for kind in kinds:
        check_choice("kind", kind, KINDS)
    shakespeare: dict[str, str] = {}
    if wanted := [kind for kind in kinds if kind in (*PLAYS, "poem", "folio")]:
        modern = load_corpus("shakespeare")
        _, chosen = split_corpus(modern, held_out=held_out, seed=seed)
        shakespeare = {kind: _work(kind, chosen, modern, seed).text for kind in wanted}
    sources: dict[str, Callable[[], str]] = {
        "code": _code, "documentation": _documentation, "licence": _licence, "data notes": _data_notes,
    }  # fmt: skip
    whole = {kind: shakespeare[kind] if kind in shakespeare else sources[kind]() for kind in kinds}
    # One draw for all kinds: the folio's stretch then lies about where that of the same play in modern spelling does.
    place = random.Random(seed).uniform(0.1, 0.7)
    return {kind: _stretch(text, characters, place) for kind, text in whole.items()}


def _work(kind: str, held_out: Corpus, modern: Corpus, seed: int) -> Document:
    if kind == "poem":
        return next(document for document in modern.documents if document.name == POEM)
    genre = "comedy" if kind == "folio" else kind
    works = [document for document in held_out.documents if document.genre == genre]
    if kind == "folio":
        old = {document.name: document for document in load_corpus("shakespeare-folio").documents}
        works = [old[work.name] for work in works if work.name in old]
    if not works:
        raise ValueError(f"seed={seed} holds out no {genre} for kind {kind!r}: hold out more works or leave it out.")
    return works[0]


def _stretch(text: str, characters: int, place: float) -> str:
    """Whole lines from about ``place`` (a share of what can be left out) on, about ``characters`` of them."""
    if len(text) <= characters:
        return text
    start = text.find("\n", int(place * (len(text) - characters))) + 1
    end = text.find("\n", start + characters) + 1
    return text[start : end or None]


def _code() -> str:
    return "\n\n".join(_source(module) for module in CODE)


def _source(module: str) -> str:
    found = importlib.util.find_spec(module)
    path = Path(found.origin) if found is not None and found.origin else None
    if path is None or path.suffix != ".py" or not path.is_file():
        raise AssetError(f"this Python comes without the source of its module {module}: leave kind 'code' out.")
    return path.read_text(encoding="utf-8")


def _documentation() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def _licence() -> str:
    files = importlib.metadata.files(LICENSED) or []
    found = next((file for file in files if file.name.startswith("LICENSE")), None)
    if found is None or not Path(found.locate()).is_file():
        raise AssetError(f"the package {LICENSED} is installed without its licence: leave kind 'licence' out.")
    return Path(found.locate()).read_text(encoding="utf-8")


def _data_notes() -> str:
    folder = importlib.resources.files("sklearn.datasets") / "descr"
    notes = sorted((file for file in folder.iterdir() if file.name.endswith(".rst")), key=lambda file: file.name)
    if not notes:
        raise AssetError("scikit-learn is installed without the notes on its data sets: leave kind 'data notes' out.")
    return "\n\n".join(file.read_text(encoding="utf-8") for file in notes)
