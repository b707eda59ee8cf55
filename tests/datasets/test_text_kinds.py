"""Texts of every kind are there without a network, and what is held out is not what models are trained on."""

import pytest

from workbench.datasets import text_kinds as module
from workbench.datasets.corpus import load_corpus, split_corpus
from workbench.datasets.text_kinds import KINDS, text_kinds
from workbench.errors import AssetError, UnknownName


@pytest.fixture(scope="module")
def texts():
    return text_kinds(characters=3000)


def test_every_kind_comes_in_the_length_asked_for_in_whole_lines(texts):
    assert tuple(texts) == KINDS
    for text in texts.values():
        assert 3000 <= len(text) <= 3200
        assert text.endswith("\n")
    assert text_kinds(characters=3000) == texts


def test_plays_are_those_that_the_split_holds_out(texts):
    training, held_out = split_corpus(load_corpus("shakespeare"), held_out=4, seed=0)
    for kind in ("comedy", "tragedy", "history"):
        assert any(texts[kind] in document.text and document.genre == kind for document in held_out.documents)
        assert not any(texts[kind] in document.text for document in training.documents)
    assert any(texts["poem"] in document.text for document in training.documents)  # as the docstring warns


def test_the_folio_is_the_same_place_of_the_comedy_in_old_spelling(texts):
    def names(text):
        return {word.strip(".,;:!?'") for word in text.split() if word[0].isupper() and len(word) > 5}

    assert texts["folio"] != texts["comedy"]
    assert len(names(texts["folio"]) & names(texts["comedy"])) >= 5
    assert "haue" in texts["folio"].lower()
    assert "haue" not in texts["comedy"].lower()


def test_code_is_code_and_manuals_are_prose(texts):
    assert texts["code"].count("def ") > 2
    assert texts["code"] in "\n\n".join(module._source(name) for name in module.CODE)
    assert texts["licence"].count(";") > 3
    assert texts["documentation"] != texts["data notes"]


def test_another_seed_takes_other_works_and_other_places():
    first, second = (text_kinds(characters=500, seed=seed, kinds=("tragedy", "code")) for seed in (0, 1))
    assert first["tragedy"] != second["tragedy"]
    assert first["code"] != second["code"]


@pytest.mark.parametrize("seed", range(8))
def test_a_split_of_four_works_holds_out_every_genre_of_plays_whatever_the_seed(seed):
    assert len(text_kinds(characters=100, seed=seed, kinds=("comedy", "tragedy", "history", "folio"))) == 4


def test_a_kind_that_cannot_be_had_is_named_and_nothing_is_put_in_its_place(monkeypatch):
    with pytest.raises(UnknownName, match="Did you mean 'comedy'"):
        text_kinds(kinds=("comedie",))
    with pytest.raises(ValueError, match="holds out no .* hold out more works or leave it out"):
        text_kinds(held_out=1, kinds=("comedy", "tragedy", "history"))
    monkeypatch.setattr(module, "CODE", ("sys",))
    with pytest.raises(AssetError, match="without the source of its module sys: leave kind 'code' out"):
        text_kinds(kinds=("code",))
    assert text_kinds(kinds=("licence",), characters=10**6)["licence"].strip().startswith("Copyright")
