"""Variants by name, questions that characters can answer, rounded weights in a plain model, memory of a path."""

import copy

import pytest
import torch

from workbench.datasets.multiple_choice import Question
from workbench.errors import UnknownName
from workbench.models.small_lm import ModelSize, small_lm
from workbench.quantizers.model import quantize_model
from workbench.training import TextTask
from workbench.training.quantized_grid import quantizable_size, spelling_questions
from workbench.training.quantized_speed import FLOAT32, INT4, PATHS, peak_memory_of_paths
from workbench.training.quantized_tables import wilson
from workbench.training.quantized_variants import WAYS, Variant, variants
from workbench.training.quantized_weights import as_it_is, quantise

SIZE = ModelSize(64, 1, 4, 192)


@pytest.fixture(scope="module")
def model():
    return small_lm(80, SIZE, context=128, seed=0).eval()


def test_a_method_comes_at_all_bits_it_is_defined_at_or_at_its_own():
    names = [variant.name for variant in variants(["rtn", "nf4", "gptq_row:2", "rtn:4"], [8, 4, 2])]
    assert names == ["RTN, 8 bits", "RTN, 4 bits", "RTN, 2 bits", "NF4, 4 bits", "GPTQ, rows, 2 bits"]
    with pytest.raises(UnknownName, match="Did you mean 'gptq'"):
        variants(["gtpq"], [4])
    with pytest.raises(ValueError, match="at none of bits"):
        variants(["nf4"], [8, 2])


@pytest.mark.parametrize("variant", [Variant(way, WAYS[way].bits[-1]) for way in WAYS], ids=lambda one: one.way)
def test_every_way_has_a_recipe_that_a_model_takes(variant, model):
    calibration = torch.arange(4 * 64).view(4, 64) % 80
    found = quantise(model, copy.deepcopy(model), variant, calibration)
    assert found.about["bits_per_weight"] >= variant.bits
    assert found.about["bytes"] < as_it_is(model).about["bytes"] / 2
    assert found.about["variant"] == variant.name


@pytest.mark.parametrize("way", ["rtn", "gptq", "awq", "spqr", "gptq_rotated"])
def test_rounded_weights_in_a_plain_model_say_what_the_packed_model_says(way, model):
    tokens = (torch.arange(4 * 64).view(4, 64) * 7) % 80
    variant = Variant(way, 3)
    found = quantise(model, copy.deepcopy(model), variant, tokens)
    packed = quantize_model(model, variant.recipe(kernel="blocked"), calibration=tokens, in_place=False)
    with torch.no_grad():
        ours, theirs = found.model(tokens).logits, packed(tokens).logits
        before = model(tokens).logits
    assert (ours - theirs).abs().max() < 1e-4 * before.abs().max()
    assert (ours - before).abs().max() > 1e-2 * before.abs().max()


def test_groups_of_32_divide_every_layer_of_a_size_that_is_trained_here():
    for name in ("16x1", "32x2", "64x2", "128x2"):
        size = quantizable_size(name)
        assert size.feed_forward % 32 == 0
        assert size.name == name


def test_a_misspelling_swaps_two_letters_inside_a_word_and_nothing_else():
    question = Question("He said", (" that wonderful morning", " of a dog"), 0, "cloze", "a work")
    (asked,) = spelling_questions([question])
    assert asked.choices[asked.answer] == question.choices[0]
    assert len(set(asked.choices)) == 4
    for choice in asked.choices:
        assert sorted(choice) == sorted(question.choices[0])
        different = [
            place for place, pair in enumerate(zip(choice, question.choices[0], strict=True)) if len({*pair}) > 1
        ]
        assert different in ([], [different[0], different[0] + 1] if different else [])
        assert [word[0] for word in choice.split()] == ["t", "w", "m"]
    assert spelling_questions([Question("He", (" is", " was"), 0, "cloze", "a work")]) == []


def test_wilsons_interval_stays_inside_and_has_width_where_all_were_right():
    low, high = wilson(1.0, 20)
    assert 0.8 < low < 0.9
    assert high == pytest.approx(1.0)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_a_packed_model_loads_into_less_memory_than_its_float_weights(tmp_path):
    large = small_lm(2000, ModelSize(512, 4, 8), context=64, seed=0)
    large.save_pretrained(tmp_path / "model")
    TextTask(vocabulary=300).prepare().tokenizer.save_pretrained(tmp_path / "model")
    found = peak_memory_of_paths(
        str(tmp_path / "model"), new_tokens=2, paths={name: PATHS[name] for name in (FLOAT32, INT4)}
    )
    held = found.set_index("path")["held_mib"]
    assert held[INT4] < held[FLOAT32]
