"""Messages read like the call that failed."""

import pytest
import torch

from workbench.errors import UnknownName, check_between, check_choice, check_mask, check_positive, check_same_shape


def test_a_near_miss_is_answered_with_the_name_that_was_meant():
    with pytest.raises(
        UnknownName, match=r"scheme='symetric' is not one of 'symmetric', 'asymmetric'\. Did you mean 'symmetric'\?"
    ):
        check_choice("scheme", "symetric", ("symmetric", "asymmetric"))


def test_a_far_miss_lists_the_names_without_guessing():
    with pytest.raises(UnknownName) as caught:
        check_choice("scheme", "zzz", ("symmetric",))
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "2", None])
def test_what_is_not_a_positive_finite_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="temperature"):
        check_positive(temperature=value)


def test_open_ends_refuse_the_ends_themselves():
    check_between(0, 1, beta=1.0)
    with pytest.raises(ValueError, match="beta=1.0 must lie strictly between 0 and 1"):
        check_between(0, 1, open_ends=True, beta=1.0)


def test_different_vocabularies_are_named_with_their_shapes_and_a_way_out():
    with pytest.raises(ValueError, match=r"student_logits \(2, 11\), teacher_logits \(2, 9\).*uld"):
        check_same_shape(student_logits=torch.zeros(2, 11), teacher_logits=torch.zeros(2, 9))


def test_a_mask_must_be_bool_and_have_the_logits_shape_without_the_vocabulary():
    check_mask(torch.ones(2, 3, dtype=torch.bool), (2, 3))
    check_mask(None, (2, 3))
    with pytest.raises(TypeError, match="bool"):
        check_mask(torch.ones(2, 3), (2, 3))
    with pytest.raises(ValueError, match=r"\(3, 2\), expected \(2, 3\)"):
        check_mask(torch.ones(3, 2, dtype=torch.bool), (2, 3))
