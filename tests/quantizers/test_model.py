"""Whole models quantised: families, calibration block by block, mixed recipes, and refusals."""

import pytest
import torch
from torch import nn

from tests.quantizers.tiny_models import FAMILIES, VOCABULARY, gpt2, llama, opt, qwen2, tokens
from workbench.quantizers.calibration import TOKENS_AT_ONCE
from workbench.quantizers.gptq import quantize_gptq
from workbench.quantizers.hessian import HessianAccumulator
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.model import model_bytes, quantize_model, quantized_layers, recipe_of, weight_report
from workbench.quantizers.model_walk import is_linear, weight_of
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec

METHODS = [("rtn", 4), ("gptq", 4), ("awq", 4), ("hqq", 4), ("spqr", 3), ("smoothquant", 8), ("llm_int8", 8)]


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def adding_to(accumulator):
    def hook(module, args):
        accumulator.add(args[0])

    return hook


def relative_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "bits"), METHODS)
def test_every_method_works_on_every_family(family, method, bits):
    model, ids = FAMILIES[family](), tokens(6, 48)
    wanted = logits(model, ids)
    recipe = Recipe.of(method, bits, embedding_bits=8)
    made = quantize_model(model, recipe, calibration=ids, in_place=False)
    assert 1e-4 < relative_error(logits(made, ids), wanted) < (0.3 if bits < 8 else 0.03)
    assert model_bytes(made) < 0.5 * model_bytes(model)
    assert torch.equal(logits(model, ids), wanted)  # the original is left as it was


@pytest.mark.parametrize("family", FAMILIES)
def test_a_float_model_whose_layers_are_replaced_by_their_dequantised_weights_gives_the_same_logits(family):
    model, ids = FAMILIES[family](), tokens()
    recipe = Recipe.of("rtn", 3, embedding_bits=8, kernel="naive")
    made = quantize_model(model, recipe, in_place=False)
    for name, quantized in quantized_layers(made).items():
        weight_of(model.get_submodule(name)).copy_(quantized.dequantize())
    torch.testing.assert_close(logits(made, ids), logits(model, ids), rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_method_called_on_each_layer():
    model = qwen2()
    spec = QuantSpec(4, 32)
    made = quantize_model(model, Recipe(LayerRecipe(spec)), in_place=False)
    for name, quantized in quantized_layers(made).items():
        assert torch.equal(quantized.codes, quantize_rtn(weight_of(model.get_submodule(name)), spec).codes)


def test_calibration_goes_block_by_block_with_the_quantised_weights_of_the_blocks_before():
    ids, spec, by_hand = tokens(8, 40), QuantSpec(3, 32), llama()
    done = quantized_layers(quantize_model(llama(), Recipe(LayerRecipe(spec, "gptq")), calibration=ids))
    for index, block in enumerate(by_hand.model.layers):
        layers = {name: module for name, module in block.named_modules() if is_linear(module)}
        seen = {name: HessianAccumulator(module.in_features) for name, module in layers.items()}
        hooks = [module.register_forward_pre_hook(adding_to(seen[name])) for name, module in layers.items()]
        logits(by_hand, ids)
        for one in hooks:
            one.remove()
        for name, module in layers.items():
            wanted = quantize_gptq(weight_of(module), seen[name].hessian, spec)
            found = done[f"model.layers.{index}.{name}"]
            assert (found.codes == wanted.codes).float().mean() > 0.995, (index, name)  # sums in another order
            weight_of(module).copy_(found.dequantize())


def test_calibration_in_many_batches_gives_what_one_batch_gives(monkeypatch):
    ids, recipe = tokens(7, 16), Recipe.of("gptq", 4, options={"act_order": True})
    whole = quantized_layers(quantize_model(llama(), recipe, calibration=ids))
    assert ids.numel() < TOKENS_AT_ONCE
    monkeypatch.setattr("workbench.quantizers.calibration.TOKENS_AT_ONCE", 32)
    parts = quantized_layers(quantize_model(llama(), recipe, calibration=ids))
    same = [(whole[name].codes == parts[name].codes).float().mean() for name in whole]
    assert torch.stack(same).mean() > 0.99


def test_rotated_layers_compute_what_their_dequantised_weights_do():
    model, ids = llama(), tokens()
    recipe = Recipe.of("gptq", 4, rotate=True, kernel="naive")
    made = quantize_model(model, recipe, calibration=ids, in_place=False)
    for name, quantized in quantized_layers(made).items():
        assert quantized.transform is not None
        weight_of(model.get_submodule(name)).copy_(quantized.dequantize())
    torch.testing.assert_close(logits(made, ids), logits(model, ids), rtol=1e-4, atol=1e-5)


def test_tied_embedding_and_output_layer_stay_one_matrix():
    made = quantize_model(llama(), Recipe.of("rtn", 4, embedding_bits=8))
    assert made.get_output_embeddings().storage is made.get_input_embeddings().storage
    untied = quantize_model(qwen2(), Recipe.of("rtn", 4, embedding_bits=8))
    assert untied.get_output_embeddings().storage is not untied.get_input_embeddings().storage
    float_ends = quantize_model(llama(), Recipe.of("rtn", 4))
    assert float_ends.get_output_embeddings().weight is float_ends.get_input_embeddings().weight


def test_variants_share_every_tensor_that_is_not_quantised():
    model = llama()
    made = quantize_model(model, Recipe.of("rtn", 4), in_place=False)
    assert made.get_input_embeddings().weight is model.get_input_embeddings().weight
    assert made.model.norm.weight is model.model.norm.weight
    assert isinstance(model.model.layers[0].mlp.up_proj, nn.Linear)


def test_a_mixed_recipe_does_to_each_layer_what_its_pattern_says():
    recipe = Recipe.of("rtn", 2, overrides={"*.down_proj": LayerRecipe(QuantSpec(8)), "model.layers.0.*": None})
    made = quantize_model(llama(), recipe)
    report = weight_report(made, llama()).set_index("layer")
    assert not [name for name in report.index if name.startswith("model.layers.0.")]
    assert report.loc["model.layers.1.mlp.down_proj", "bits"] == 8
    assert report.loc["model.layers.1.mlp.up_proj", "bits"] == 2
    assert report.loc["model.layers.1.mlp.down_proj", "weight_error"] < 0.01 < report["weight_error"].max()
    assert recipe_of(made) == recipe


def test_layers_outside_the_blocks_are_left_alone_unless_a_pattern_names_them():
    assert "model.decoder.project_in" not in quantized_layers(quantize_model(opt(), Recipe.of("rtn", 4)))
    recipe = Recipe.of("gptq", 4, overrides={"*.project_in": LayerRecipe(QuantSpec(8))})
    assert "model.decoder.project_in" in quantized_layers(quantize_model(opt(), recipe, calibration=tokens()))


def test_bfloat16_models_keep_their_dtype():
    ids = tokens()
    model = llama().to(torch.bfloat16)
    made = quantize_model(model, Recipe.of("gptq", 4, embedding_bits=8), calibration=ids, in_place=False)
    found = logits(made, ids)
    assert found.dtype == torch.bfloat16
    assert relative_error(found.float(), logits(model, ids).float()) < 0.2


def test_the_report_counts_what_is_stored():
    made = quantize_model(llama(), Recipe.of("rtn", 4, group_size=32), in_place=False)
    row = weight_report(made).iloc[0]
    weights = row["out"] * row["in"]
    assert row["nbytes"] == weights / 2 + weights / 32 * (4 + 0.5)  # codes, float32 scales, 4-bit zeros
    assert row["bits_per_weight"] == pytest.approx(4 + 36 / 32)


def test_a_quantised_model_generates():
    made = quantize_model(gpt2(), Recipe.of("rtn", 8, embedding_bits=8))
    assert made.generate(tokens(1, 4), max_new_tokens=5, do_sample=False).shape == (1, 9)


@pytest.mark.parametrize(
    ("calibration", "error", "told"),
    [
        (None, ValueError, "needs calibration"),
        (torch.zeros(0, 8, dtype=torch.int64), ValueError, "empty"),
        (torch.full((1, 8), 5), ValueError, "only 8 tokens"),
        (torch.ones(4, 16), TypeError, "integer token ids"),
        ([[1, 2, 3]], TypeError, "integer token ids"),
        (torch.full((64,), 5), ValueError, r"tokens\[None\]"),
        (torch.full((4, 16), VOCABULARY), ValueError, "the model's own tokenizer"),
        (torch.full((4, 16), -1), ValueError, "token id -1"),
        (torch.full((1, 4096), 5), ValueError, "positions"),
    ],
)
def test_calibration_that_cannot_serve_is_refused_with_the_remedy(calibration, error, told):
    model = llama()
    with pytest.raises(error, match=told):
        quantize_model(model, Recipe.of("gptq", 4), calibration=calibration)
    assert not quantized_layers(model)


def test_few_calibration_tokens_are_warned_of():
    with pytest.warns(UserWarning, match="damping fills the rest"):
        quantize_model(llama(), Recipe.of("gptq", 4), calibration=tokens(1, 40))


def test_a_pattern_that_names_no_layer_is_met_with_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean '\*\.down_proj'"):
        quantize_model(llama(), Recipe.of("rtn", 4, overrides={"*.down_porj": None}))


def test_a_model_that_is_quantised_already_is_refused():
    made = quantize_model(llama(), Recipe.of("rtn", 4))
    with pytest.raises(ValueError, match="quantised already"):
        quantize_model(made, Recipe.of("rtn", 4))


def test_a_group_that_does_not_divide_names_the_layer_and_changes_nothing():
    model = llama()
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.down_proj: 96 inputs.*groups of 64"):
        quantize_model(model, Recipe.of("rtn", 4, group_size=64))
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_weights_that_are_no_numbers_name_the_layer_and_change_nothing():
    model = llama()
    weight_of(model.model.layers[1].self_attn.v_proj)[3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"model\.layers\.1\.self_attn\.v_proj: 1 of"):
        quantize_model(model, Recipe.of("rtn", 4))
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_a_kernel_that_cannot_run_a_layer_is_refused_before_anything_changes():
    model = llama()
    with pytest.raises(ValueError, match="kernel='int8_weight' cannot run"):
        quantize_model(model, Recipe.of("rtn", 4, kernel="int8_weight"))
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_two_widths_for_one_tied_matrix_are_refused():
    recipe = Recipe(None, embedding=QuantSpec(8), head=QuantSpec(4))
    with pytest.raises(ValueError, match="one matrix"):
        quantize_model(llama(), recipe)


def test_something_else_than_a_language_model_is_refused():
    with pytest.raises(TypeError, match="causal language model"):
        quantize_model(nn.Linear(4, 4), Recipe.of("rtn", 4))
    with pytest.raises(TypeError, match=r"Recipe\.of"):
        quantize_model(llama(), "gptq")
    with pytest.raises(ValueError, match="leaves every layer"):
        quantize_model(llama(), Recipe(None))
