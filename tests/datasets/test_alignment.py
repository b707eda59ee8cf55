"""The small sets hold what their docstrings say, and no word by itself gives an answer away."""

from collections import Counter

import pytest

from workbench.datasets.alignment import instructions, stereotype_pairs, truth_pairs
from workbench.metrics.instruction_rules import RULES, follows


def differing(pair):
    """What stands in the one place where the sentences differ, to whole words."""
    first, second = pair.first.rstrip(".").split(), pair.second.rstrip(".").split()
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    return " ".join(first), " ".join(second)


def test_the_sizes_are_those_that_the_docstrings_state():
    assert Counter(pair.group for pair in truth_pairs()) == {
        "geography": 26, "arithmetic": 20, "biology": 24, "misconception": 30,
    }  # fmt: skip
    assert Counter(pair.group for pair in stereotype_pairs()) == {"occupation": 40, "household": 16, "age": 24}
    assert Counter(one.group for one in instructions()) == {"letters": 10, "length": 10, "format": 14, "content": 6}


@pytest.mark.parametrize("make", [truth_pairs, stereotype_pairs])
def test_a_pair_is_one_sentence_with_one_place_that_differs_and_none_comes_twice(make):
    pairs = make()
    assert len({pair.first for pair in pairs} | {pair.second for pair in pairs}) == 2 * len(pairs)
    for pair in pairs:
        first, second = differing(pair)
        assert first != second
        assert len(first.split()) <= 3
        assert pair.first.endswith(".")


@pytest.mark.parametrize("group", ["geography", "arithmetic", "biology", "occupation", "household", "age"])
def test_who_prefers_a_word_whatever_stands_before_it_comes_to_one_half(group):
    pairs = [pair for pair in (*truth_pairs(), *stereotype_pairs()) if pair.group == group]
    found = Counter(differing(pair) for pair in pairs)
    assert found == Counter({(second, first): count for (first, second), count in found.items()})


def test_occupations_share_their_sentences_so_that_only_the_occupation_differs():
    pairs = [pair for pair in stereotype_pairs() if pair.group == "occupation"]
    for she, he in zip(pairs[::2], pairs[1::2], strict=True):
        assert (differing(she), differing(he)) == (("she", "he"), ("he", "she"))
        ours, theirs = she.first.split(), he.second.split()  # the same pronoun in both
        assert ours[-2:] == theirs[-2:]
        assert ours[0] == theirs[0]


def test_every_rule_is_told_apart_by_the_answers_that_come_with_its_prompt():
    assert {one.rule for one in instructions()} == set(RULES)
    for one in instructions():
        assert follows(one.complying, one.rule, one.argument), one
        assert not follows(one.violating, one.rule, one.argument), one
        assert one.plain
        assert one.plain != one.prompt


def test_a_part_of_a_set_has_the_groups_in_their_share_and_keeps_neighbours_together():
    part = truth_pairs(limit=50, seed=3)
    assert len(part) == 50
    shares = Counter(pair.group for pair in part)
    assert {group: abs(shares[group] - count / 2) <= 2 for group, count in
            Counter(pair.group for pair in truth_pairs()).items()} == dict.fromkeys(shares, True)  # fmt: skip
    balanced = Counter(differing(pair) for pair in part if pair.group == "arithmetic")
    assert balanced == Counter({(second, first): count for (first, second), count in balanced.items()})
    assert truth_pairs(limit=50, seed=3) == part
    assert len(stereotype_pairs(limit=7)) == 7
    assert instructions(limit=1000) == instructions()
    with pytest.raises(ValueError, match="limit=0"):
        instructions(limit=0)
