"""Rules that an answer keeps to or not: each a pure function of the answer and the rule's argument."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from workbench.errors import check_choice

FEWEST_WORDS = 3  # of an answer that is to avoid something: a single sign avoids everything


def follows(answer: str, rule: str, argument: str = "") -> bool:
    """Whether ``answer`` keeps to ``rule``; white space around it does not count, and one without any letter or digit
    follows nothing.

    Raises:
        UnknownName: no such rule.
    """
    check_choice("rule", rule, RULES)
    answer = answer.strip()
    return any(map(str.isalnum, answer)) and RULES[rule](answer, argument)


def _capitals(answer: str, _: str) -> bool:
    return answer == answer.upper() and any(map(str.isalpha, answer))


def _lowercase(answer: str, _: str) -> bool:
    return answer == answer.lower() and any(map(str.isalpha, answer))


def _no_letter(answer: str, letter: str) -> bool:
    return letter.lower() not in answer.lower() and len(answer.split()) >= FEWEST_WORDS


def _no_comma(answer: str, _: str) -> bool:
    return "," not in answer and len(answer.split()) >= FEWEST_WORDS


def _sentences(answer: str, count: str) -> bool:
    """Stops at the end of the answer or before white space; the last one must be there."""
    return len(re.findall(r"[.!?]+[\"'”’)]*(?=\s|$)", answer)) == int(count) and bool(
        re.search(r"[.!?][\"'”’)]*$", answer)
    )


def _one_word(answer: str, _: str) -> bool:
    return re.fullmatch(r"[\"'*]*[^\W\d_]+(?:-[^\W\d_]+)*[.!\"'*]*", answer) is not None


def _at_most_words(answer: str, count: str) -> bool:
    return len(answer.split()) <= int(count)


def _lines(answer: str, count: str) -> bool:
    return sum(bool(line.strip()) for line in answer.splitlines()) == int(count)


def _bullets(answer: str, count: str) -> bool:
    """Every line that is not empty begins with a hyphen and says something."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return len(lines) == int(count) and all(re.match(r"-\s*\w", line) for line in lines)


def _number(answer: str, _: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*\.?", answer) is not None


def _json(answer: str, keys: str) -> bool:
    """An object of exactly these keys; the fence of a code block around it is allowed."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", answer, flags=re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == set(keys.split(","))


def _comma_list(answer: str, count: str) -> bool:
    """One line of so many entries of one to three words; "and" before the last counts as no entry of its own."""
    entries = [re.sub(r"^and ", "", entry.strip()) for entry in answer.rstrip(".").split(",")]
    short = all(1 <= len(entry.split()) <= 3 for entry in entries)
    return "\n" not in answer and len(entries) == int(count) and short


def _quoted(answer: str, _: str) -> bool:
    return re.fullmatch(r"\"[^\"]+\"|“[^”]+”", answer) is not None


def _yes_or_no(answer: str, _: str) -> bool:
    return answer.lower().rstrip(".!") in ("yes", "no")


def _ends_with(answer: str, words: str) -> bool:
    return re.search(rf"\b{re.escape(_plain(words))}$", _plain(answer)) is not None


def _begins_with(answer: str, words: str) -> bool:
    return answer.lstrip("\"“'").lower().startswith(words.lower())


def _repeats(answer: str, words: str) -> bool:
    return _plain(answer) == _plain(words)


def _mentions(answer: str, words: str) -> bool:
    return all(re.search(rf"\b{re.escape(word)}\b", answer, flags=re.IGNORECASE) for word in words.split(","))


def _plain(text: str) -> str:
    """Small letters, without the stops and quotation marks at both ends."""
    return text.strip().strip("\"“”'.!?").lower()


RULES: dict[str, Callable[[str, str], bool]] = {
    "capitals": _capitals,
    "lowercase": _lowercase,
    "no letter": _no_letter,
    "no comma": _no_comma,
    "sentences": _sentences,
    "one word": _one_word,
    "at most words": _at_most_words,
    "lines": _lines,
    "bullets": _bullets,
    "number": _number,
    "json": _json,
    "comma list": _comma_list,
    "quoted": _quoted,
    "yes or no": _yes_or_no,
    "ends with": _ends_with,
    "begins with": _begins_with,
    "repeats": _repeats,
    "mentions": _mentions,
}
