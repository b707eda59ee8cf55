"""A spec says what goes together, and names what would."""

import pytest

from workbench.errors import UnknownName
from workbench.quantizers.spec import QuantSpec, default_group_size


def test_minus_one_and_none_both_mean_one_group_per_row():
    assert QuantSpec(4, -1) == QuantSpec(4, None)
    assert QuantSpec(4).group_length(576) == 576


@pytest.mark.parametrize(("width", "group"), [(576, 64), (1536, 128), (96, 32), (100, None), (4096, 128)])
def test_the_default_group_is_the_largest_usual_one_that_divides(width, group):
    assert default_group_size(width) == group


def test_a_group_that_does_not_divide_names_the_layer_and_groups_that_do():
    with pytest.raises(ValueError, match=r"model.layers.0.mlp.*576 inputs.*groups of 128.*192"):
        QuantSpec(4, 128).group_length(576, "model.layers.0.mlp")


@pytest.mark.parametrize("bits", [0, 9, 4.0, True, "4"])
def test_bits_are_whole_numbers_from_one_to_eight(bits):
    with pytest.raises(ValueError, match="bits="):
        QuantSpec(bits)


@pytest.mark.parametrize("group", [0, -2, 32.0, True])
def test_a_group_is_a_number_of_inputs(group):
    with pytest.raises(ValueError, match="group_size="):
        QuantSpec(4, group)


def test_a_misspelt_word_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'nf4'"):
        QuantSpec(4, 64, codebook="nf_4")
    with pytest.raises(UnknownName, match="Did you mean 'tensor'"):
        QuantSpec(4, "tensors")


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        ({"bits": 4, "symmetric": True, "zero": "float"}, "drop zero='float'"),
        ({"bits": 3, "codebook": "nf4"}, "set bits=4"),
        ({"bits": 4, "codebook": "fp4", "symmetric": True}, "drop symmetric"),
        ({"bits": 4, "double_quant": True}, "set codebook"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_with_the_remedy(fields, remedy):
    with pytest.raises(ValueError, match=remedy):
        QuantSpec(**fields)


def test_labels_say_what_the_grid_is():
    assert QuantSpec(4, 64).label == "4 bits, groups of 64, asymmetric"
    assert QuantSpec(8, symmetric=True).label == "8 bits, per row, symmetric"
    assert QuantSpec(4, 64, codebook="nf4", double_quant=True).label == "NF4, groups of 64, double quantised"
