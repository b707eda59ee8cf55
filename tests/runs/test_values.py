import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.runs.values import parse_value, split_top_level


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", "int", 3),
        ("-2", "int", -2),
        ("1e-3", "float", 0.001),
        ("2", "float", 2.0),
        ("true", "bool", True),
        ("No", "bool", False),
        ("1e-3", "str", "1e-3"),
        ("[0,1, 2]", "list", [0, 1, 2]),
        ("(0, 1)", "list", [0, 1]),
        ("[]", "list", []),
        ("[forward_kl, taid]", "list", ["forward_kl", "taid"]),
        ("['a,b', true]", "list", ["a,b", True]),
        ("[[1, 2], [3]]", "list", [[1, 2], [3]]),
        ('{"a": [1]}', "dict", {"a": [1]}),
    ],
)
def test_text_becomes_the_value_that_the_type_asks_for(text, kind, value):
    parsed = parse_value(text, kind)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", "int"),
        ("three", "int"),
        ("nan", "float"),
        ("inf", "float"),
        ("maybe", "bool"),
        ("0", "list"),
        ("[0", "list"),
        ("", "list"),
        ("[1]", "dict"),
    ],
)
def test_text_of_another_type_is_refused_with_what_was_expected(text, kind):
    with pytest.raises(ValueError, match="expected .* got"):
        parse_value(text, kind)


def test_commas_inside_of_brackets_and_quotes_do_not_split():
    assert split_top_level("[0,1],[2,3]") == ["[0,1]", "[2,3]"]
    assert split_top_level("'a,b',c") == ["'a,b'", "c"]


@given(st.lists(st.lists(st.integers()), min_size=1))
def test_a_grid_of_lists_is_read_back_as_it_was_written(lists):
    text = ",".join(str(one).replace(" ", "") for one in lists)
    assert [parse_value(part, "list") for part in split_top_level(text)] == lists
