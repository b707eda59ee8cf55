"""Text documents of a data set on the Hugging Face hub, streamed up to a number of bytes and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from workbench import runtime
from workbench.datasets.documents import Corpus, Document
from workbench.errors import AssetError, UnknownName, check_positive
from workbench.files import atomic_path, data_folder, locked, remove_leavings
from workbench.progress import progress

PREFIX = "hub:"
MOST_BYTES = 1_000_000_000  # about all of UltraChat-200k, a fortieth of OpenWebText
TEXT_COLUMNS = ("text", "messages", "content")  # looked for in this order where none is named
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?::(?P<column>.+))?")


def load_hub_corpus(name: str, *, most_bytes: int = MOST_BYTES) -> Corpus:
    """The corpus called ``hub:owner/name`` or ``hub:owner/name:column``; one row is one document.

    The rows of the split ``train`` (or the first whose name begins so) are taken in their order until there are
    ``most_bytes`` of text, the last document whole. A column holds text, or a conversation: messages with
    ``content``, which are joined by blank lines. What was streamed once is read from ``data/cache`` afterwards.

    Raises:
        UnknownName: not of that form, no such data set or no such column.
        AssetError: ``datasets`` is not installed or the hub does not answer, and it was not streamed before.
    """
    repository, column = parse_hub_name(name)
    check_positive(most_bytes=most_bytes)
    key = hashlib.sha256(f"{name} {most_bytes}".encode()).hexdigest()[:16]
    path = data_folder() / "cache" / "hub" / f"{repository.replace('/', '--')}-{key}.jsonl"
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                remove_leavings(path)
                _check_hub(name, repository)
                with atomic_path(path) as temporary:
                    _write(documents(_rows(name, repository), column, name, most_bytes), temporary, most_bytes)
    with path.open(encoding="utf-8") as lines:
        return Corpus(name, tuple(Document(f"row {row}", json.loads(line), "") for row, line in enumerate(lines)))


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """Data set and column of ``hub:owner/name`` or ``hub:owner/name:column``.

    Raises:
        UnknownName: another form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownName(f"corpus={name!r} is not of the form hub:owner/name or hub:owner/name:column.")
    return match["repository"], match["column"]


def documents(
    rows: Iterable[Mapping[str, Any]], column: str | None, name: str, most_bytes: int = MOST_BYTES
) -> Iterator[str]:
    """The text of each of ``rows`` that has any, until there are ``most_bytes`` of it.

    Raises:
        UnknownName: no such column, or none named and none that is known to hold text.
    """
    left = most_bytes
    for row in rows:
        column = _column(column, row, name)
        text = _text(row[column], column, name)
        if text.strip():
            yield text
            left -= len(text.encode("utf-8"))
        if left <= 0:
            return


def _column(column: str | None, row: Mapping[str, Any], name: str) -> str:
    if column is None:
        column = next((known for known in TEXT_COLUMNS if known in row), None)
    if column is None or column not in row:
        which = "has no column of text that is known" if column is None else f"has no column {column!r}"
        raise UnknownName(
            f"corpus={name!r} {which}: name one of {', '.join(row)}, as in hub:{parse_hub_name(name)[0]}:column."
        )
    return column


def _text(value: Any, column: str, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n\n".join(_text(part, column, name) for part in value)
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        return value["content"]
    raise UnknownName(
        f"the column {column!r} of corpus={name!r} holds {type(value).__name__}, neither text nor messages with "
        "content: name another column, as in hub:owner/name:column."
    )


def _check_hub(name: str, repository: str) -> None:
    if importlib.util.find_spec("datasets") is None:
        raise AssetError(f"corpus={name!r} needs the package datasets: {runtime.PAPER_EXTRA}.")
    if runtime.hub_is_switched_off():
        raise AssetError(f"corpus={name!r} was not streamed before and HF_HUB_OFFLINE forbids it now: unset it.")
    from huggingface_hub import HfApi

    try:
        # Asked first and once: the streaming itself would try for minutes before it says that nobody answers.
        HfApi().dataset_info(repository, timeout=runtime.HUB_SECONDS)
    except Exception as error:
        # Whatever it is: the hub's client changes its network library, and with it these errors, between versions.
        _explain(name, error)


def _rows(name: str, source: str) -> Iterator[Mapping[str, Any]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(source, streaming=True)
        split = next((split for split in splits if split.startswith("train")), next(iter(splits)))
        yield from splits[split]
    except (AssetError, UnknownName):
        raise
    except Exception as error:
        # As above; besides, data sets of several configurations and with scripts of their own are refused here.
        _explain(name, error)


def _explain(name: str, error: Exception) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        raise AssetError(f"corpus={name!r} is gated: ask for access on its page and log in to the hub.") from error
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        raise UnknownName(f"corpus={name!r} is not a data set that the hub shows you.") from error
    raise AssetError(
        f"corpus={name!r} cannot be had from the Hugging Face hub ({runtime.first_line(error)}): check the network "
        "and the name, or give a text file or a folder of .txt files."
    ) from error


def _write(texts: Iterator[str], target: Path, most_bytes: int) -> None:
    with target.open("w", encoding="utf-8") as file:
        for megabyte in progress(_megabytes(texts, file), total=-(-most_bytes // 10**6), label="streaming text (MB)"):
            del megabyte
    if not target.stat().st_size:
        raise AssetError("the data set's column holds no text at all: name another column.")


def _megabytes(texts: Iterator[str], file: Any) -> Iterator[int]:
    """Write each text as a line of JSON, and report every full megabyte of text."""
    written = reported = 0
    for text in texts:
        file.write(json.dumps(text, ensure_ascii=False) + "\n")
        written += len(text.encode("utf-8"))
        while reported < written // 10**6:
            reported += 1
            yield reported
