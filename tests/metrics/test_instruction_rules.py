"""Each rule on answers that keep to it and on answers that nearly do."""

import pytest

from workbench.errors import UnknownName
from workbench.metrics.instruction_rules import RULES, follows

RIGHT = [
    ("capitals", "", "ROME, IN 1990!"),
    ("lowercase", "", "rome, in 1990"),
    ("no letter", "e", "A dog is a loyal animal"),
    ("no comma", "", "red and blue and green"),
    ("sentences", "2", 'It is 3.5 m deep. "Who would swim there?"'),
    ("sentences", "1", "Wait..."),
    ("one word", "", "Cold."),
    ("one word", "", "Merry-go-round"),
    ("at most words", "3", "one two three"),
    ("lines", "2", "first\n\nsecond\n"),
    ("bullets", "3", "- Apple\n- Banana\n-Cherry"),
    ("number", "", "7"),
    ("number", "", "1,024.5"),
    ("number", "", "-3."),
    ("json", "name,age", '{"age": 9, "name": "Ann"}'),
    ("json", "city", '```json\n{"city": "Madrid"}\n```'),
    ("comma list", "3", "iron, copper, and gold."),
    ("quoted", "", '"Good morning!"'),
    ("quoted", "", "“Good morning!”"),
    ("yes or no", "", "Yes."),
    ("yes or no", "", "no"),
    ("ends with", "blue", "The sky is Blue."),
    ("ends with", "Thank you.", 'He said "thank you."'),
    ("begins with", "Once upon a time", "Once upon a time, there was"),
    ("repeats", "green apple", '"Green apple."'),
    ("mentions", "river,bridge", "The Bridge over the river"),
]
WRONG = [
    ("capitals", "", "ROMe"),
    ("capitals", "", "1990"),
    ("lowercase", "", "Rome"),
    ("no letter", "e", "A dog is a loyal friEnd"),
    ("no letter", "e", "dog"),
    ("no comma", "", "red, blue and green"),
    ("no comma", "", "red"),
    ("sentences", "2", "It is deep. It is blue. It is wide."),
    ("sentences", "2", "It is deep. It is blue. It is"),
    ("one word", "", "It is cold"),
    ("at most words", "3", "one two three four"),
    ("lines", "2", "first\nsecond\nthird"),
    ("bullets", "3", "- Apple\n- Banana"),
    ("bullets", "2", "Fruits:\n- Apple\n- Banana"),
    ("bullets", "2", "* Apple\n* Banana"),
    ("bullets", "2", "- \n- Banana"),
    ("number", "", "seven"),
    ("number", "", "7 days"),
    ("json", "name,age", '{"name": "Ann"}'),
    ("json", "name", '{"name": "Ann", "age": 9}'),
    ("json", "name", '{"name": Ann}'),
    ("json", "name", '["name"]'),
    ("json", "name", 'Here it is: {"name": "Ann"}'),
    ("comma list", "3", "iron and copper and gold"),
    ("comma list", "3", "Three metals that I know are iron, copper, gold"),
    ("comma list", "3", "iron,\ncopper, gold"),
    ("quoted", "", 'He said "Good morning!"'),
    ("quoted", "", '"One" and "two"'),
    ("yes or no", "", "Yes, it is."),
    ("ends with", "blue", "Blue is the sky."),
    ("ends with", "blue", "I love skyblue."),
    ("begins with", "Once upon a time", "There was once upon a time"),
    ("repeats", "green apple", "a green apple"),
    ("mentions", "river,bridge", "The riverside has a bridge"),
]


@pytest.mark.parametrize(("rule", "argument", "answer"), RIGHT)
def test_a_right_answer_follows_also_with_white_space_around_it(rule, argument, answer):
    assert follows(answer, rule, argument)
    assert follows(f"\n  {answer} \n", rule, argument)


@pytest.mark.parametrize(("rule", "argument", "answer"), WRONG)
def test_a_wrong_answer_does_not_follow(rule, argument, answer):
    assert not follows(answer, rule, argument)


def test_every_rule_is_tested_on_both_sides():
    assert {rule for rule, *_ in RIGHT} == {rule for rule, *_ in WRONG} | {"begins with"} == set(RULES)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_an_answer_without_a_letter_or_digit_follows_nothing(rule):
    arguments = {"sentences": "1", "at most words": "9", "lines": "1", "bullets": "1", "comma list": "1"}
    for empty in ("", " \n", "!!! ... !!!", '""'):
        assert not follows(empty, rule, arguments.get(rule, "x"))


def test_an_unknown_rule_gets_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'capitals'"):
        follows("A", "capital")
