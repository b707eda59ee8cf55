"""Text from the command line, turned into the value that a parameter's type asks for."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

EXPECTED = {
    "int": "a whole number, such as 3",
    "float": "a finite number, such as 0.5",
    "bool": "true or false",
    "str": "text",
    "list": "a bracketed list, such as [0,1,2]",
    "dict": 'a JSON object, such as {"a": 1}',
}
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_value(text: str, kind: str) -> Any:
    """``text`` as a value of ``kind``: ``int | float | bool | str | list | dict``; any other kind takes a literal.

    Raises:
        ValueError: the text is no such value; the message says what was expected.
    """
    try:
        return _parse(text.strip(), kind)
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"expected {EXPECTED.get(kind, kind)}, got {text!r}") from error


def _parse(text: str, kind: str) -> Any:
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    if kind == "float":
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return number
    if kind == "bool":
        return TRUTH[text.lower()]
    if kind == "list":
        if not (text[:1] in ("[", "(") and text[-1:] in ("]", ")")):
            raise ValueError(text)
        return [_literal_or_text(item) for item in split_top_level(text[1:-1]) if item.strip()]
    if kind == "dict":
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(text)
        return value
    return _literal_or_text(text)


def _literal_or_text(text: str) -> Any:
    text = text.strip()
    if text[:1] in ("[", "("):
        return _parse(text, "list")
    if text in ("true", "false", "null"):
        return json.loads(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if any(mark in text for mark in "[](){}\"'"):
            raise
        return text  # a bare word, such as shakespeare


def split_top_level(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes: ``"[0,1],[2]"`` gives ``["[0,1]", "[2]"]``."""
    parts, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[({":
            depth += 1
        elif character in "])}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]
