"""Operations on a text move its words about and keep them whole."""

from collections import Counter

import pytest

from workbench.datasets.text_operations import KEEP_WORDS, OPERATIONS, operate
from workbench.errors import UnknownName

TEXT = "Who's there? Nay, answer me; stand,  and unfold\nyourself. Long live the king! Bernardo? He."


@pytest.mark.parametrize("operation", KEEP_WORDS)
def test_reordering_keeps_every_word(operation):
    assert Counter(operate(TEXT, operation).split()) == Counter(TEXT.split())
    assert operate(TEXT, operation) != operate(TEXT, "none")


def test_reversing_twice_gives_the_text_back():
    assert operate(operate(TEXT, "reverse"), "reverse") == operate(TEXT, "none") == " ".join(TEXT.split())


def test_sentences_stay_whole_when_they_are_shuffled():
    shuffled = operate(TEXT, "shuffle sentences", seed=1)
    assert "stand, and unfold yourself." in shuffled
    assert "Long live the king!" in shuffled


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_halves_are_of_whole_words(count):
    words = TEXT.split()[:count]
    half = (count + 1) // 2
    assert operate(" ".join(words), "truncate").split() == words[:half]
    repeated = operate(" ".join(words), "repeat").split()
    assert repeated == words[:half] + words[: count - half]


def test_foreign_words_are_as_many_and_from_the_others():
    found = operate(TEXT, "foreign words", others=["thou art", "a knave"]).split()
    assert len(found) == len(TEXT.split())
    assert set(found) <= {"thou", "art", "a", "knave"}
    with pytest.raises(ValueError, match="give the other texts"):
        operate(TEXT, "foreign words")


def test_a_draw_depends_on_its_seed_alone():
    assert operate(TEXT, "shuffle", seed=3) == operate(TEXT, "shuffle", seed=3)
    assert len({operate(TEXT, "shuffle", seed=seed) for seed in range(5)}) > 3


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "foreign words"])
def test_an_empty_text_stays_empty(operation):
    assert operate("  \n", operation) == ""


def test_a_misspelt_operation_is_asked_about():
    with pytest.raises(UnknownName, match="Did you mean 'reverse'"):
        operate(TEXT, "revers")
