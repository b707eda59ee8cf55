"""Labelled texts out of plays and folders: passages by genre, speeches by who speaks them."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.datasets.documents import Corpus, Document
from workbench.errors import check_between, check_positive

PLAY_GENRES = ("comedy", "tragedy", "history")  # poems have no speakers and are too few to be split by work
SPEECHES_OF_A_PLAY = 50  # a document with fewer is no play: its headings were something else
_PART = re.compile(r"(?:ACT|Act|SCENE|Scene|PERSONS|DRAMATIS|EPILOGUE|PROLOGUE|INDUCTION)\b|Persons Represented")
_NUMBERED = re.compile(r"^(?:SCENE|Scene) (?:[IVX]+|\d+)\b", re.M)
_NUMERAL = re.compile(r"[IVXLC]+")  # over the stanzas of a song
_DIRECTION = re.compile(r"\[[^\]]*\]?")
# A speaker stands alone on the first line of a paragraph: in capitals, or as a name with a full stop ("Ham.").
_HEADING = re.compile(r"([A-Z][A-Z'’&., -]*[A-Z]|[A-Z][\w'’]*(?: (?:[A-Z][\w'’]*|of|the|and|to)\.?){0,4}(?=\.))\.? *")


@dataclass(frozen=True)
class LabelledText:
    """A text, its label, and the group that must not be divided between training and test."""

    text: str
    label: str
    group: str  # the document of a passage; the play and scene of a speech


@dataclass(frozen=True)
class Speech:
    """What one character says at a stretch, without stage directions."""

    speaker: str  # as the edition heads it; abbreviations completed where its list of persons allows it
    text: str
    scene: int  # from 1, counted through the play


def speeches_of(document: Document) -> list[Speech]:
    """All speeches of a play whose speakers stand on lines of their own; none for any other text.

    Stage directions in brackets are left out; a speech goes on behind one that stands alone.
    """
    paragraphs = [part.strip("\n") for part in re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", document.text)]
    speeches: list[Speech] = []
    scene, opens, open_speech, after_direction = 0, False, False, False
    for paragraph in paragraphs:
        first, _, rest = paragraph.strip().partition("\n")
        if _PART.match(first):
            # An act without the heading of its first scene begins one all the same; the list of persons does not.
            opens, open_speech = opens or not first.upper().startswith(("SCENE", "PERSONS", "DRAMATIS")), False
            if _NUMBERED.search(paragraph):
                scene, opens = scene + 1, False
            continue
        heading = _HEADING.fullmatch(first.strip())
        if heading and rest.strip() and (scene or opens) and not _NUMERAL.fullmatch(heading[1]):
            scene, opens = scene + opens, False
            speeches.append(Speech(heading[1].strip(" ."), _spoken(rest), scene))
            open_speech, after_direction = True, False
        elif _DIRECTION.fullmatch(paragraph.strip()):
            after_direction = True
        elif open_speech and after_direction:
            last = speeches[-1]
            speeches[-1] = Speech(last.speaker, f"{last.text} {_spoken(paragraph)}".strip(), last.scene)
            after_direction = False
        else:
            open_speech = False  # a description of the place, or a direction without brackets
    if len(speeches) < SPEECHES_OF_A_PLAY:
        return []
    full = _full_names(document, {speech.speaker for speech in speeches})
    return [Speech(full[speech.speaker], speech.text, speech.scene) for speech in speeches if speech.text]


def passages(
    corpus: Corpus, *, labels: Sequence[str] | None = None, words: int = 50, per_document: int | None = None
) -> list[LabelledText]:
    """Consecutive pieces of about ``words`` words; the label is the document's genre (its sub-folder).

    Of a play only what is spoken counts, so that neither headings nor directions tell the genre. A piece never
    goes beyond a document's end; ``per_document`` takes so many, spread evenly.

    Raises:
        ValueError: fewer than two labels, a label with a single document, or a document without one.
    """
    check_positive(words=words)
    chosen = [document for document in corpus.documents if labels is None or document.genre in labels]
    counts = Counter(document.genre for document in chosen)
    if len(counts) < 2 or min(counts.values()) < 2 or "" in counts:
        raise ValueError(
            f"the corpus {corpus.name!r} has documents by label {dict(counts)}: expected at least two labels with two "
            "documents each, so that no document is in training and test; give a folder with a sub-folder a label."
        )
    found = []
    for document in chosen:
        spoken = " ".join(speech.text for speech in speeches_of(document)) or document.text
        stream = spoken.split()
        pieces = [" ".join(stream[start : start + words]) for start in range(0, len(stream), words)]
        whole = pieces[: len(stream) // words] or pieces  # the last may be shorter; a short document has no other
        count = len(whole) if per_document is None else min(per_document, len(whole))
        spread = [whole[index * len(whole) // count] for index in range(count)]
        found.extend(LabelledText(piece, document.genre, document.name) for piece in spread)
    return found


def speeches(
    corpus: Corpus, *, speakers: int = 6, least_words: int = 12, per_speaker: int | None = None
) -> list[LabelledText]:
    """Speeches of the most talkative characters (by words), labelled ``Hamlet (Hamlet)``; the group is the scene.

    The label is not in the input: headings are cut off, and every name that a play gives to a speaker is removed
    from that play's speeches wherever it is written with a capital; so are the names of all chosen speakers.
    A speech that is said twice word for word is kept once.

    Raises:
        ValueError: the corpus has no plays, or fewer speakers than asked for.
    """
    check_positive(speakers=speakers, least_words=least_words)
    by_play = {document.name: speeches_of(document) for document in corpus.documents}
    talk: Counter[tuple[str, str]] = Counter()
    for play, said in by_play.items():
        for speech in said:
            talk[play, speech.speaker] += len(speech.text.split())
    if len(talk) < speakers:
        raise ValueError(
            f"the corpus {corpus.name!r} has {len(talk)} speakers, speakers={speakers} were asked for: it needs plays "
            "whose speakers stand in capitals on lines of their own."
        )
    chosen = dict(talk.most_common(speakers))
    own = {word for _, speaker in chosen for word in _words_of(speaker)}
    found, seen = [], set()
    for play, speaker in chosen:
        said = by_play[play]
        names = own | _proper_names(said)
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})(?:['’]s)?\b")
        kept = []
        for speech in said:
            text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(pattern.sub(" ", speech.text).split()))
            if speech.speaker == speaker and len(text.split()) >= least_words and text not in seen:
                seen.add(text)
                kept.append(LabelledText(text, f"{speaker} ({play})", f"{play}, scene {speech.scene}"))
        count = len(kept) if per_speaker is None else min(per_speaker, len(kept))
        found.extend(kept[index * len(kept) // count] for index in range(count))
    return found


def split_by_group(
    texts: Sequence[LabelledText], *, held_out: float = 0.3, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Indices of ``(training, test)``: whole groups go to the test until each label has its share there.

    Groups are drawn by ``seed``; every label keeps a group on both sides.

    Raises:
        ValueError: a label with a single group, or ``held_out`` outside (0, 1).
    """
    check_between(0, 1, open_ends=True, held_out=held_out)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # group -> label -> texts
    for one in texts:
        sizes[one.group][one.label] += 1
    total, held = Counter(one.label for one in texts), Counter()
    left = Counter(label for labels in sizes.values() for label in labels)  # groups of a label still in training
    if lonely := sorted(label for label, count in left.items() if count < 2):
        raise ValueError(f"the labels {lonely} have one group each: nothing could be held out that is not shared.")
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    test = set()
    for group in order:
        labels = sizes[group]
        if all(left[label] > 1 for label in labels) and all(held[label] < held_out * total[label] for label in labels):
            test.add(group)
            held.update(labels)
            left.subtract(labels.keys())
    if missing := sorted(label for label in total if not held[label]):
        raise ValueError(f"no group could be held out for the labels {missing} without taking another label's last.")
    training = [index for index, one in enumerate(texts) if one.group not in test]
    return training, [index for index, one in enumerate(texts) if one.group in test]


def _spoken(text: str) -> str:
    return " ".join(_DIRECTION.sub(" ", text).split())


def _full_names(document: Document, speakers: set[str]) -> dict[str, str]:
    """Display names: ``Ham`` becomes ``Hamlet`` where the list of persons has one word that begins so."""
    front = re.split(r"^(?:ACT|Act)\b", document.text, maxsplit=1, flags=re.M)[0]
    listed = {word.title() for word in re.findall(r"\b[A-Z][A-Za-z]{2,}", front)}
    names = {}
    for speaker in speakers:
        longer = {word for word in listed if word.startswith(speaker.title()) and word != speaker.title()}
        short = len(speaker) <= 5 and speaker.isalpha() and speaker.title() not in listed
        names[speaker] = longer.pop() if short and len(longer) == 1 else _titled(speaker)
    return names


def _titled(speaker: str) -> str:
    small = {"Of", "The", "And", "To"}
    return " ".join(word.lower() if word in small else word for word in speaker.title().split())


def _words_of(speaker: str) -> set[str]:
    """The words of a name as they may stand in a text, in both ways of writing."""
    words = {word for word in re.findall(r"[A-Za-z]{3,}", speaker) if word not in ("the", "and")}
    return {form for word in words for form in (word, word.title(), word.upper())}


def _proper_names(said: Sequence[Speech]) -> set[str]:
    """Words of speakers' names that this play never writes small: ``Horatio``, but not ``First`` or ``King``."""
    small = set(re.findall(r"\b[a-z]{3,}\b", " ".join(speech.text for speech in said)))
    words = {form for speech in said for form in _words_of(speech.speaker)}
    return {word for word in words if word.lower() not in small}
