"""A corpus on the hub: which text is taken from its rows, and what is said where it cannot be had."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.datasets.local_index import free_port
from workbench.datasets import hub_corpus
from workbench.datasets.corpus import load_corpus
from workbench.datasets.hub_corpus import documents, parse_hub_name
from workbench.errors import UnknownName

NAME = "hub:someone/something"
TALK = [{"role": "user", "content": "Who's there?"}, {"role": "assistant", "content": "Nay, answer me."}]


def test_a_name_says_the_data_set_and_perhaps_the_column():
    assert parse_hub_name(NAME) == ("someone/something", None)
    assert parse_hub_name(f"{NAME}:body") == ("someone/something", "body")
    with pytest.raises(UnknownName, match="hub:owner/name"):
        load_corpus("hub:something")


def test_a_row_is_a_document_and_a_conversation_one_too():
    assert list(documents([{"text": "To be"}, {"text": "or not"}], None, NAME)) == ["To be", "or not"]
    assert list(documents([{"id": 1, "messages": TALK}], None, NAME)) == ["Who's there?\n\nNay, answer me."]
    assert list(documents([{"text": "no", "body": ["a", "b"]}], "body", NAME)) == ["a\n\nb"]


def test_rows_without_text_are_left_out():
    assert list(documents([{"text": None}, {"text": " \n"}, {"text": "x"}], None, NAME)) == ["x"]


def test_reading_ends_when_there_is_text_enough_and_never_within_a_document():
    def rows():
        for text in ("äää", "bbbb", "cc"):
            yield {"text": text}
        raise AssertionError("read on although there was enough")

    assert list(documents(rows(), None, NAME, 12)) == ["äää", "bbbb", "cc"]
    assert list(documents(rows(), None, NAME, 7)) == ["äää", "bbbb"]  # six bytes are not seven
    assert list(documents(rows(), None, NAME, 6)) == ["äää"]


def test_a_column_that_is_not_there_or_holds_no_text_is_named():
    with pytest.raises(UnknownName, match="no column 'body': name one of id, words"):
        list(documents([{"id": 1, "words": "x"}], "body", NAME))
    with pytest.raises(UnknownName, match="no column of text that is known: name one of id, words"):
        list(documents([{"id": 1, "words": "x"}], None, NAME))
    with pytest.raises(UnknownName, match="'id' .* holds int, neither text nor messages"):
        list(documents([{"id": 1}], "id", NAME))


def test_what_was_streamed_once_is_read_without_hub_and_packages(data, monkeypatch):
    asked = []

    def rows(name, repository):
        asked.append(repository)
        yield from ({"text": "To be,\nor not"}, {"messages": TALK, "text": "ü"})

    monkeypatch.setattr(hub_corpus, "_check_hub", lambda name, repository: None)
    monkeypatch.setattr(hub_corpus, "_rows", rows)
    first, again = load_corpus(NAME), load_corpus(NAME)
    assert [document.text for document in first.documents] == ["To be,\nor not", "ü"]
    assert first.fingerprint == again.fingerprint
    assert asked == ["someone/something"]


def test_a_stream_that_breaks_leaves_no_half_corpus(data, monkeypatch):
    def rows(name, repository):
        yield {"text": "To be"}
        raise ConnectionError("gone")

    monkeypatch.setattr(hub_corpus, "_check_hub", lambda name, repository: None)
    monkeypatch.setattr(hub_corpus, "_rows", rows)
    with pytest.raises(ConnectionError):
        load_corpus(NAME)
    assert not [path for path in (data / "cache").rglob("*") if path.suffix in (".jsonl", ".part")]


def ask(tmp_path, *, with_datasets, **variables):
    """What a fresh process says to a corpus on the hub; ``datasets`` is there only as an empty package."""
    if with_datasets:
        (tmp_path / "datasets").mkdir()
        (tmp_path / "datasets" / "__init__.py").write_text("")
    code = (
        "import sys, importlib.util as util\n"
        "real = util.find_spec\n"
        f"util.find_spec = lambda name, *a: real(name, *a) if {with_datasets} or name != 'datasets' else None\n"
        "from workbench.datasets.corpus import load_corpus\n"
        f"try: load_corpus({NAME!r})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {
        **os.environ, "HF_HOME": str(tmp_path), "WORKBENCH_DATA": str(tmp_path / "data"), "PYTHONPATH": str(tmp_path),
        **variables,
    }  # fmt: skip
    environment = {name: value for name, value in environment.items() if value}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_without_the_library_the_sentence_says_how_to_get_it(tmp_path):
    said = ask(tmp_path, with_datasets=False).stdout.strip()
    assert re.fullmatch(rf"AssetError corpus='{NAME}' needs the package datasets: pip install .*\[paper\].*\.", said)


def test_an_unreachable_hub_is_one_sentence_within_seconds(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    said = ask(tmp_path, with_datasets=True, HF_ENDPOINT=address, HF_HUB_OFFLINE="", TRANSFORMERS_OFFLINE="")
    assert re.fullmatch(rf"AssetError corpus='{NAME}' cannot be had from .*\.txt files\.", said.stdout.strip())


def test_when_the_hub_is_switched_off_that_is_what_is_said(tmp_path):
    said = ask(tmp_path, with_datasets=True, HF_HUB_OFFLINE="1").stdout.strip()
    assert said.startswith(f"AssetError corpus='{NAME}' was not streamed before and HF_HUB_OFFLINE forbids it now")


def test_text_is_kept_as_it_is_a_line_of_json_a_document(data, monkeypatch):
    monkeypatch.setattr(hub_corpus, "_check_hub", lambda name, repository: None)
    monkeypatch.setattr(hub_corpus, "_rows", lambda name, repository: iter([{"text": 'a "b"\r\n\u2028c'}]))
    corpus = load_corpus(NAME)
    (kept,) = (data / "cache" / "hub").glob("*.jsonl")
    assert json.loads(kept.read_text(encoding="utf-8")) == corpus.documents[0].text == 'a "b"\r\n\u2028c'
