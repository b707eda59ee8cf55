"""Whole documents under one name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """One whole text."""

    name: str
    text: str
    genre: str  # comedy | tragedy | history | poem; a user's sub-folder; "" where nothing is known


@dataclass(frozen=True)
class Corpus:
    """Documents under one name."""

    name: str
    documents: tuple[Document, ...]

    @cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents: what losses in nats per byte are divided by."""
        return sum(len(document.text.encode("utf-8")) for document in self.documents)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the texts in order; equal exactly when the same text is read in the same order."""
        digest = hashlib.sha256()
        for document in self.documents:
            encoded = document.text.encode("utf-8")
            digest.update(len(encoded).to_bytes(8, "big"))
            digest.update(encoded)
        return digest.hexdigest()
