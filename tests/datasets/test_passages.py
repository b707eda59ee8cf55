"""Labelled texts: a play's speeches are counted by hand, labels are not in the texts, no group is on both sides."""

import re
from collections import Counter

import pytest

from workbench.datasets.corpus import load_corpus
from workbench.datasets.documents import Corpus, Document
from workbench.datasets.passages import (
    PLAY_GENRES,
    LabelledText,
    passages,
    speeches,
    speeches_of,
    split_by_group,
)


@pytest.fixture(scope="module")
def shakespeare():
    return load_corpus("shakespeare")


@pytest.fixture(scope="module")
def works(shakespeare):
    return {document.name: document for document in shakespeare.documents}


@pytest.fixture(scope="module")
def spoken(shakespeare):
    return speeches(shakespeare, speakers=6)


def test_macbeth_has_the_speeches_and_scenes_that_one_counts_by_hand(works):
    text = works["Macbeth"].text
    found = speeches_of(works["Macbeth"])
    by_speaker = Counter(speech.speaker for speech in found)
    # The line "LADY MACBETH." stands 60 times in the file, once of them in the list of persons.
    assert len(re.findall(r"^LADY MACBETH\.$", text, flags=re.M)) == 60
    assert by_speaker["Lady Macbeth"] == 59
    assert by_speaker["Macbeth"] == len(re.findall(r"^MACBETH\.$", text, flags=re.M)) == 145
    assert max(speech.scene for speech in found) == len(re.findall(r"^SCENE [IVX]+\.", text, flags=re.M)) == 26


def test_the_first_speeches_of_macbeth_are_read_as_they_stand(works):
    first, second, *_ = speeches_of(works["Macbeth"])
    assert (first.speaker, first.scene) == ("First Witch", 1)
    assert first.text == "When shall we three meet again? In thunder, lightning, or in rain?"
    assert second.text == "When the hurlyburly's done, When the battle's lost and won."


def test_abbreviated_and_bare_headings_are_speakers_too(works):
    hamlet = Counter(speech.speaker for speech in speeches_of(works["Hamlet"]))
    assert hamlet.most_common(1)[0][0] == "Hamlet"  # the file says "Ham."
    assert hamlet["Hamlet"] == len(re.findall(r"^Ham\.$", works["Hamlet"].text, flags=re.M))
    dream = Counter(speech.speaker for speech in speeches_of(works["A Midsummer Night's Dream"]))
    assert dream["Theseus"] == 48  # without a full stop


def test_a_speech_goes_on_behind_a_stage_direction_and_holds_none(works):
    dream = speeches_of(works["A Midsummer Night's Dream"])
    (theseus,) = [speech for speech in dream if "Stir up the Athenian youth" in speech.text]
    assert theseus.text.endswith("with triumph, and with revelling.")
    assert "Exit" not in theseus.text
    assert "[" not in theseus.text


def test_every_play_has_speakers_and_no_poem_has(works):
    for document in works.values():
        assert bool(speeches_of(document)) == (document.genre != "poem"), document.name


def test_the_speaker_is_not_named_in_what_is_said(spoken):
    for one in spoken:
        play = one.group.rpartition(", scene")[0]
        for word in re.findall(r"[A-Za-z]{3,}", one.label.removesuffix(f"({play})")):
            assert not re.search(rf"\b{word}\b", one.text), one


def test_other_persons_of_the_play_are_not_named_either(spoken):
    texts = " ".join(one.text for one in spoken if one.group.startswith("Hamlet"))
    assert not re.search(r"Horatio|Ophelia|Laertes|Polonius|Hamlet", texts)


def test_no_speech_is_there_twice_and_none_is_short(spoken):
    assert len({one.text for one in spoken if one.label == "Hamlet (Hamlet)"}) == sum(
        one.label == "Hamlet (Hamlet)" for one in spoken
    )
    assert min(len(one.text.split()) for one in spoken) >= 12


def test_hamlet_talks_most(shakespeare):
    (label,) = {one.label for one in speeches(shakespeare, speakers=1)}
    assert label == "Hamlet (Hamlet)"


def test_passages_are_what_is_spoken_in_fifty_words(shakespeare):
    found = passages(shakespeare, labels=PLAY_GENRES)
    assert {len(one.text.split()) for one in found} == {50}
    assert {one.label for one in found} == set(PLAY_GENRES)
    macbeth = " ".join(one.text for one in found if one.group == "Macbeth")
    assert "Enter" not in macbeth.split()
    assert "MACBETH." not in macbeth
    assert len({one.group for one in found}) == 37


@pytest.mark.parametrize("seed", range(4))
def test_no_play_is_in_training_and_test(shakespeare, seed):
    found = passages(shakespeare, labels=PLAY_GENRES, per_document=20)
    training, test = split_by_group(found, held_out=0.3, seed=seed)
    assert sorted(training + test) == list(range(len(found)))
    assert not {found[row].group for row in training} & {found[row].group for row in test}
    assert {found[row].label for row in test} == set(PLAY_GENRES)
    assert 0.28 < len(test) / len(found) < 0.42  # whole plays


@pytest.mark.parametrize("seed", range(4))
def test_no_scene_is_in_training_and_test_and_every_speaker_is_in_both(spoken, seed):
    training, test = split_by_group(spoken, seed=seed)
    assert not {spoken[row].group for row in training} & {spoken[row].group for row in test}
    labels = {one.label for one in spoken}
    assert {spoken[row].label for row in training} == {spoken[row].label for row in test} == labels


def test_a_split_depends_on_its_seed_alone(spoken):
    assert split_by_group(spoken, seed=3) == split_by_group(spoken, seed=3)
    assert split_by_group(spoken, seed=3) != split_by_group(spoken, seed=4)


def test_anybodys_folder_has_its_sub_folders_as_labels(tmp_path):
    for label, words in (("sea", "wave and foam "), ("land", "hill and stone ")):
        for name in ("one", "two", "three"):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{name}.txt").write_text(words * 40)
    found = passages(load_corpus(tmp_path), words=30)
    assert Counter(one.label for one in found) == {"land": 12, "sea": 12}
    training, test = split_by_group(found, seed=1)
    assert len({found[row].group for row in test}) == 2
    assert len(training) == 16


def test_what_cannot_be_split_is_refused():
    lonely = Corpus("mine", (Document("a", "word " * 60, "x"), Document("b", "word " * 60, "y")))
    with pytest.raises(ValueError, match=r"'mine' has documents by label .*at least two labels with two"):
        passages(lonely)
    with pytest.raises(ValueError, match="has 0 speakers, speakers=6"):
        speeches(lonely)
    with pytest.raises(ValueError, match=r"labels \['x'\] have one group each"):
        split_by_group([LabelledText("a", "x", "g"), LabelledText("b", "x", "g")])
    with pytest.raises(ValueError, match="held_out"):
        split_by_group([], held_out=1.0)
