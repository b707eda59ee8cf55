"""Corpora are whole documents; what is held out is chosen by document, never by position."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.datasets.corpus import Corpus, Document, load_corpus, split_corpus
from workbench.errors import UnknownName


@pytest.fixture(scope="module")
def shakespeare():
    return load_corpus("shakespeare")


@pytest.fixture(scope="module")
def folio():
    return load_corpus("shakespeare-folio")


def test_the_works_are_there_with_their_genres(shakespeare):
    assert Counter(d.genre for d in shakespeare.documents) == {"comedy": 15, "tragedy": 12, "history": 10, "poem": 5}
    assert shakespeare.bytes == 5_057_198
    assert len({document.name for document in shakespeare.documents}) == 42


def test_each_text_is_the_work_it_is_called(shakespeare):
    text = {document.name: document.text for document in shakespeare.documents}
    assert "To be, or not to be,--that is the question:--" in text["Hamlet"]
    assert "Is this a dagger which I see before me" in text["Macbeth"]
    assert "Shall I compare thee to a summer's day?" in text["Sonnets"]
    assert "the winter of our discontent" in text["Richard III"]


def test_the_folio_has_the_same_titles_in_older_spelling(shakespeare, folio):
    assert folio.bytes == 4_485_861
    assert len(folio.documents) == 35
    modern = {document.name: document for document in shakespeare.documents}
    for document in folio.documents:
        assert document.genre == modern[document.name].genre
        words = [set(re.findall(r"[a-z]{3,}", text.lower())) for text in (document.text, modern[document.name].text)]
        shared = len(words[0] & words[1]) / len(words[0])
        assert 0.3 < shared < 0.8, document.name  # the same play in another spelling


def test_no_licence_or_publishers_note_is_left_in_any_text(shakespeare, folio):
    for document in (*shakespeare.documents, *folio.documents):
        assert not re.search(r"gutenberg|copyright|\*\*\*|\betext", document.text, re.IGNORECASE), document.name


@pytest.mark.parametrize("seed", range(8))
def test_four_held_out_works_are_plays_of_every_kind(shakespeare, seed):
    _, held = split_corpus(shakespeare, held_out=4, seed=seed)
    assert {document.genre for document in held.documents} == {"comedy", "tragedy", "history"}
    assert 0.08 < held.bytes / shakespeare.bytes < 0.13


def test_a_seed_always_gives_the_same_split_and_another_gives_another(shakespeare):
    assert split_corpus(shakespeare, seed=3) == split_corpus(shakespeare, seed=3)
    assert len({split_corpus(shakespeare, seed=seed)[1].documents for seed in range(10)}) > 5


@given(
    genres=st.lists(st.sampled_from(["comedy", "tragedy", ""]), min_size=2, max_size=12),
    lengths=st.data(),
    seed=st.integers(0, 99),
)
def test_training_and_held_out_divide_the_documents_and_no_genre_is_lost_that_can_be_kept(genres, lengths, seed):
    documents = tuple(
        Document(f"{number}", "x" * lengths.draw(st.integers(1, 50)), genre) for number, genre in enumerate(genres)
    )
    held_out = lengths.draw(st.integers(1, len(documents) - 1))
    training, held = split_corpus(Corpus("any", documents), held_out=held_out, seed=seed)
    assert len(held.documents) == held_out
    both = sorted(training.documents + held.documents, key=lambda document: int(document.name))
    assert tuple(both) == documents
    if len(documents) - held_out >= len(set(genres)):
        assert {document.genre for document in training.documents} == set(genres)


@pytest.mark.parametrize("held_out", [0, -1, 42, 100, 2.0])
def test_a_split_that_leaves_nothing_is_refused(shakespeare, held_out):
    with pytest.raises(ValueError, match="held_out="):
        split_corpus(shakespeare, held_out=held_out)


paragraphs = st.lists(st.text("abc \n", min_size=1).filter(str.strip), min_size=3, max_size=60)


@given(parts=paragraphs, held_out=st.integers(1, 3), seed=st.integers(0, 9))
def test_one_text_is_cut_at_blank_lines_and_nothing_of_it_is_lost(parts, held_out, seed):
    text = "\n\n".join(part.strip() for part in parts)
    corpus = Corpus("one", (Document("one", text, ""),))
    found = len([part for part in re.split(r"\n\s*\n", text) if part])
    if found <= held_out:
        with pytest.raises(ValueError, match="paragraphs"):
            split_corpus(corpus, held_out=held_out, seed=seed)
        return
    training, held = split_corpus(corpus, held_out=held_out, seed=seed)
    blocks = sorted(training.documents + held.documents, key=lambda block: int(block.name.rpartition(" ")[2]))
    assert "".join(block.text for block in blocks) == text
    assert len(held.documents) == held_out
    assert all(re.search(r"\n\s*\n\s*\Z", block.text) for block in blocks[:-1])


def test_the_blocks_of_one_long_text_are_about_equal_so_that_a_tenth_is_held_out(shakespeare):
    hamlet = next(document for document in shakespeare.documents if document.name == "Hamlet")
    corpus = Corpus("hamlet", (hamlet,))
    training, held = split_corpus(corpus)
    assert len(training.documents) + len(held.documents) == 40
    assert 0.08 < held.bytes / corpus.bytes < 0.12


def test_a_users_file_is_a_corpus_of_one_document(tmp_path):
    (tmp_path / "letters.txt").write_bytes(b"\xef\xbb\xbfDear reader,\r\n\r\n\xc3\xa9t\xc3\xa9\r\n")
    corpus = load_corpus(tmp_path / "letters.txt")
    assert corpus == Corpus("letters", (Document("letters", "Dear reader,\n\nété\n", ""),))
    assert corpus.bytes == len("Dear reader,\n\nété\n".encode())


def test_a_users_folder_is_a_corpus_whose_sub_folders_are_genres(tmp_path):
    for name in ("prose/b.txt", "prose/a.txt", "verse/c.txt", "d.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    corpus = load_corpus(str(tmp_path))
    assert corpus.name == tmp_path.name
    assert [(document.name, document.genre) for document in corpus.documents] == [
        ("d", ""),
        ("prose/a", "prose"),
        ("prose/b", "prose"),
        ("verse/c", "verse"),
    ]


def test_a_corpus_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'shakespeare-folio'"):
        load_corpus("shakespear-folio")
    with pytest.raises(UnknownName, match=r"nowhere\.txt' does not exist"):
        load_corpus("nowhere.txt")
    with pytest.raises(UnknownName, match="does not exist"):
        load_corpus(tmp_path / "nowhere")


def test_a_corpus_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.txt file"):
        load_corpus(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        load_corpus(tmp_path)


def test_a_text_in_another_encoding_is_refused_with_the_place(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text \(byte 3 is 0xe9\)"):
        load_corpus(tmp_path / "latin.txt")


def test_the_fingerprint_tells_texts_apart_and_their_borders_too():
    def fingerprint(*texts):
        return Corpus("any", tuple(Document(text, text, "") for text in texts)).fingerprint

    assert fingerprint("ab", "c") == fingerprint("ab", "c")
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc"), fingerprint("c", "ab")}) == 4
