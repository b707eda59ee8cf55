"""A vocabulary spells every text there is, gives it back, and is the same every time."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.datasets.corpus import Corpus, Document, load_corpus
from workbench.datasets.vocabulary import END_OF_TEXT, ESCAPE, encode_corpus, train_vocabulary
from workbench.files import data_folder

any_text = st.text(st.characters(exclude_categories=["Cs"]))  # lone surrogates are no text: UTF-8 has none
RUSSIAN = Corpus("pushkin", (Document("a", "Я помню чудное мгновенье:\nПередо мной явилась ты,\n", ""),))


def corpus_of(*texts):
    return Corpus("own", tuple(Document(str(number), text, "") for number, text in enumerate(texts)))


@pytest.fixture(scope="module")
def plays():
    """Three real works: 250 kB, quick to train on."""
    documents = load_corpus("shakespeare").documents
    names = ("Macbeth", "A Lover's Complaint", "The Comedy of Errors")
    return Corpus("three works", tuple(document for document in documents if document.name in names))


@pytest.fixture(scope="module", params=["characters", 256, 700])
def tokenizer(request, plays):
    return train_vocabulary(plays, request.param)


@given(text=any_text)
@example("Café 😀 ␛e9 | naïve\x00\t\r\n \u2028\ufeff")
@example(f"{END_OF_TEXT} to be {ESCAPE}{ESCAPE}20 or <|end")
@example("  two  spaces \n\n and 3 ... , . ' 's n't ")
@settings(max_examples=150, deadline=None)
def test_decoding_what_was_encoded_gives_back_every_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_real_plays_come_back_as_they_were(tokenizer, plays):
    for document in plays.documents:
        assert tokenizer.decode(tokenizer.encode(document.text)) == document.text


def test_no_token_is_added_by_itself_and_the_end_of_text_is_number_zero(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer("To be")["input_ids"] == tokenizer.encode("To be", add_special_tokens=False)
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.encode(END_OF_TEXT) == [0]


@pytest.mark.parametrize("size", [256, 257, 700])
def test_a_number_is_exactly_how_many_tokens_there_are(plays, size):
    assert len(train_vocabulary(plays, size)) == size


def test_more_byte_pairs_never_need_more_tokens(plays):
    lengths = [sum(map(len, encode_corpus(plays, train_vocabulary(plays, size)))) for size in (256, 400, 700)]
    assert plays.bytes > lengths[0] > lengths[1] > lengths[2]


def test_a_vocabulary_of_characters_is_small_and_gives_one_token_a_character(plays):
    tokenizer = train_vocabulary(plays, "characters")
    characters = set("".join(document.text for document in plays.documents)) | set("0123456789abcdef")
    assert len(tokenizer) == len(characters) + 2  # the end of text and the escape
    assert len(tokenizer.encode(plays.documents[0].text)) == len(plays.documents[0].text)


def test_characters_of_several_bytes_are_one_token_too():
    tokenizer = train_vocabulary(RUSSIAN, "characters")
    text = RUSSIAN.documents[0].text
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode("Привет 😀")) == "Привет 😀"


def test_a_character_that_the_corpus_never_showed_is_spelled_by_its_bytes(plays):
    tokenizer = train_vocabulary(plays, "characters")
    spelled = tokenizer.convert_ids_to_tokens(tokenizer.encode("é"))
    assert spelled == [ESCAPE, "c", "3", ESCAPE, "a", "9"]


def test_an_escape_that_a_model_leaves_unfinished_does_not_spoil_the_text_around_it(plays):
    tokenizer = train_vocabulary(plays, "characters")
    ids = [*tokenizer.encode("to "), tokenizer.convert_tokens_to_ids(ESCAPE), *tokenizer.encode("x or not\n")]
    assert tokenizer.decode(ids) == "to \ufffdx or not\n"


def test_the_fast_way_to_encode_a_corpus_equals_the_tokenizers(tokenizer, plays):
    odd = corpus_of("plain words", f"with {END_OF_TEXT} inside", "and é", "tab\t")
    for corpus in (plays, odd, RUSSIAN):
        encoded = encode_corpus(corpus, tokenizer)
        assert [ids.tolist() for ids in encoded] == [tokenizer.encode(d.text) for d in corpus.documents]
        assert {ids.dtype for ids in encoded} == {np.dtype(np.uint16)}


@pytest.mark.parametrize("size", ["characters", 600])
def test_training_again_gives_the_same_bytes(size, plays, tmp_path, monkeypatch):
    written = []
    for name in ("first", "second"):
        monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / name))
        train_vocabulary(plays, size)
        (file,) = (tmp_path / name / "cache" / "vocabularies").iterdir()
        written.append((file.name, file.read_bytes()))
    assert written[0] == written[1]


def test_it_is_trained_once_and_then_read(plays, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    train_vocabulary(plays, 300)
    (file,) = (data_folder() / "cache" / "vocabularies").iterdir()
    before = file.stat().st_mtime_ns
    train_vocabulary(plays, 300)
    assert file.stat().st_mtime_ns == before
    train_vocabulary(corpus_of("other text that has another fingerprint"), "characters")
    assert len(list(file.parent.iterdir())) == 2


@pytest.mark.parametrize("size", [255, 0, -1, 300.0, True, "character", None])
def test_a_size_that_cannot_be_is_refused(size, plays):
    with pytest.raises(ValueError, match=r"vocabulary=.* must be 'characters' or a whole number of at least 256"):
        train_vocabulary(plays, size)


def test_a_size_that_the_corpus_cannot_fill_says_how_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    rhyme = corpus_of("to be or not to be that is the question whether it is nobler in the mind to suffer")
    with pytest.raises(ValueError, match=r"ask for at most (\d+)") as caught:
        train_vocabulary(rhyme, 5000)
    most = int(str(caught.value).rstrip(".").rpartition(" ")[2])
    assert len(train_vocabulary(rhyme, most)) == most
    with pytest.raises(ValueError, match="give more text, or take 'characters'"):
        train_vocabulary(corpus_of("to be"), 256)


def test_it_can_be_saved_and_read_by_transformers(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Exeunt. Café\n"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert again.eos_token_id == 0
