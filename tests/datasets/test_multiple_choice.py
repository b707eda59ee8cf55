"""Questions are made of real plays: the right choice is what stands there, the wrong ones are what does not."""

import re
from collections import Counter

import pytest

from workbench.datasets.corpus import Corpus, Document, load_corpus, split_corpus
from workbench.datasets.multiple_choice import (
    Question,
    _bare,
    _words_of,
    cloze_questions,
    next_word_questions,
)


@pytest.fixture(scope="module")
def plays():
    return split_corpus(load_corpus("shakespeare"), held_out=4)[1]


@pytest.fixture(scope="module")
def spoken(plays):
    return {document.name: " ".join(_words_of(document)) for document in plays.documents}


@pytest.fixture(scope="module")
def cloze(plays):
    return cloze_questions(plays, count=40)


@pytest.fixture(scope="module")
def next_word(plays):
    return next_word_questions(plays, count=80)


def test_the_right_choice_is_what_follows_in_the_work(cloze, spoken):
    for question in cloze:
        assert question.context + question.choices[question.answer] in spoken[question.group]


def test_the_wrong_choices_stand_in_the_same_work_but_nowhere_after_the_passage(cloze, spoken):
    for question in cloze:
        last_words = " ".join(question.context.split()[-2:])
        for place, choice in enumerate(question.choices):
            assert choice in spoken[question.group]
            assert (f"{last_words}{choice} " in f"{spoken[question.group]} ") == (place == question.answer)
            assert choice not in question.context


def test_neither_length_nor_a_capital_nor_the_place_tells_the_answer(cloze):
    shortest = [min(question.choices, key=len) == question.choices[question.answer] for question in cloze]
    assert 0 < sum(shortest) < len(cloze) / 2
    for question in cloze:
        right = len(question.choices[question.answer].strip())
        assert all(abs(len(choice.strip()) - right) <= 0.1 * right for choice in question.choices)
        assert all(re.match(r" [a-z]", choice) for choice in question.choices)
    assert set(Counter(question.answer for question in cloze)) == {0, 1, 2, 3}


def test_works_take_turns(cloze, plays):
    assert Counter(question.group for question in cloze) == {document.name: 10 for document in plays.documents}


def test_more_questions_begin_with_the_same_ones_and_another_seed_asks_others(plays, cloze, next_word):
    assert cloze_questions(plays, count=6) == cloze[:6]
    assert next_word_questions(plays, count=6) == next_word[:6]
    assert cloze_questions(plays, count=6, seed=1) != cloze[:6]
    assert len({question.context for question in cloze}) == len(cloze)


def test_the_right_word_follows_the_passage_and_the_wrong_ones_never_follow_its_last_word(next_word, spoken):
    whole = " ".join(spoken.values()).lower()
    for question in next_word:
        assert re.search(
            re.escape(question.context + question.choices[question.answer]) + r"\b", spoken[question.group]
        )
        last = question.context.split()[-1].lower()
        for place, choice in enumerate(question.choices):
            if place != question.answer:
                assert f" {last}{choice} " not in whole


def test_all_words_are_as_rare_as_the_right_one(next_word, spoken):
    frequency = Counter(_bare(word) for text in spoken.values() for word in text.split())
    for question in next_word:
        often = [frequency[choice.strip()] for choice in question.choices]
        assert min(often) >= 3
        assert max(often) <= 40
        right = often[question.answer]
        assert all(1 / 1.5 <= other / right <= 1.5 for other in often)
        assert max(map(len, question.choices)) - min(map(len, question.choices)) <= 4


@pytest.mark.parametrize("choices", [2, 3, 6])
def test_chance_is_one_over_the_number_of_choices(plays, choices):
    for make in (cloze_questions, next_word_questions):
        (question,) = make(plays, count=1, choices=choices)
        assert len(question.choices) == choices
        assert question.chance == 1 / choices


def test_a_text_of_ones_own_serves_too_and_one_that_is_too_short_says_so():
    sentence = "the ship sailed out and {} men rowed it over a wide green water until the evening came slowly down "
    words = ["seven", "tired", "silent", "cheerful", "hungry", "sleepy", "wise", "strong", "old", "young"]
    own = Corpus("own", (Document("tale", " ".join(sentence.format(word) for word in words * 10), ""),))
    assert len(cloze_questions(own, count=3, context_words=12, length=30)) == 3
    with pytest.raises(ValueError, match="count=5 .* 'own', only 0: give more text"):
        cloze_questions(Corpus("own", (Document("tale", "too short", ""),)), count=5)


def test_what_cannot_be_asked_is_refused(plays):
    with pytest.raises(ValueError, match="choices=1 must be a whole number of at least 2"):
        cloze_questions(plays, count=1, choices=1)
    with pytest.raises(ValueError, match="count=0 must be a finite number above 0"):
        next_word_questions(plays, count=0)
    with pytest.raises(ValueError, match="all different and none empty"):
        Question("a", (" b", " b"), 0, "cloze", "")
    with pytest.raises(ValueError, match="answer=2 is the place of none of the 2 choices"):
        Question("a", (" b", " c"), 2, "cloze", "")
