"""Recipes: which rule holds where, and what is refused."""

import json

import pytest

from workbench.errors import UnknownName
from workbench.quantizers.recipes import METHODS, LayerRecipe, Recipe
from workbench.quantizers.spec import QuantSpec

FOUR = LayerRecipe(QuantSpec(4, 32))
EIGHT = LayerRecipe(QuantSpec(8, symmetric=True))


@pytest.mark.parametrize(
    ("method", "bits"),
    [(method, bits) for method in METHODS for bits in (2, 3, 4, 8) if bits == 8 or method != "llm_int8"],
)
def test_every_recipe_survives_json(method, bits):
    recipe = Recipe.of(method, bits, embedding_bits=8, overrides={"*.mlp.*": EIGHT, "*.q_proj": None})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_last_pattern_that_matches_stands():
    recipe = Recipe(FOUR, {"*.mlp.*": EIGHT, "model.layers.0.*": None})
    assert recipe.rule_for("model.layers.1.mlp.up_proj") == EIGHT
    assert recipe.rule_for("model.layers.0.mlp.up_proj") is None
    assert recipe.rule_for("model.layers.1.self_attn.q_proj") == FOUR


def test_the_default_group_is_one_that_divides_the_inputs_of_all_layers():
    rule = Recipe.of("rtn", 4).default
    assert rule.for_width(576, [576, 1536]).spec.group_size == 64  # SmolLM2: 128 does not divide 576
    assert rule.for_width(1536, [576, 1536]).spec.group_size == 64
    assert rule.for_width(4096, [4096, 11008]).spec.group_size == 128
    assert rule.for_width(96, [100, 96]).spec.group_size == 32  # no group fits both: each layer its own
    assert rule.for_width(100, [100, 96]).spec.group_size is None


def test_eight_bits_are_symmetric_with_one_scale_per_row_as_int8_products_need():
    spec = Recipe.of("rtn", 8).default.for_width(576).spec
    assert spec.symmetric
    assert spec.group_size is None


def test_a_group_that_was_asked_for_is_kept():
    assert Recipe.of("gptq", 4, group_size=32).default.for_width(576, [576]).spec.group_size == 32
    assert Recipe.of("gptq", 4, group_size=None).default.for_width(576, [576]).spec.group_size is None


def test_spqr_takes_the_groups_and_the_float_zero_of_its_authors():
    spec = Recipe.of("spqr", 3).default.spec
    assert (spec.group_size, spec.zero) == (16, "float")


def test_names_that_do_not_exist_are_met_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'gptq'"):
        Recipe.of("gtpq", 4)
    with pytest.raises(UnknownName, match="Did you mean 'act_order'"):
        Recipe.of("gptq", 4, options={"actorder": True})
    with pytest.raises(UnknownName, match="kernel"):
        Recipe.of("rtn", 4, kernel="int5")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LayerRecipe(QuantSpec(4, 32), "awq", rotate=True), "rotate=True does not go with"),
        (lambda: LayerRecipe(QuantSpec(4, 32), "llm_int8"), "8 bits"),
        (lambda: Recipe.of("hqq", 4, codebook="nf4"), "uniform grid"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_remedy(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_json_of_something_else_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no recipe"):
        Recipe.from_json({"bits": 4})
