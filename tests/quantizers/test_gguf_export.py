"""GGUF files: the gguf package and transformers read back what the model computes with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tests.quantizers.tiny_models import gpt2, llama, qwen2, tokens
from workbench.models.gguf_checkpoint import checkpoint_name, undo_rotary_order
from workbench.models.pretrained import load_pretrained
from workbench.quantizers.gguf_export import export_gguf
from workbench.quantizers.model import quantize_model, quantized_layers
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.spec import QuantSpec

ENDS = QuantSpec(8, 32, symmetric=True, scale_dtype="float16")
EXACT = {
    "Q4_0": LayerRecipe(QuantSpec(4, 32, symmetric=True, scale_dtype="float16")),
    "Q8_0": LayerRecipe(QuantSpec(8, 32, symmetric=True, scale_dtype="float16")),
    "Q4_0 by gptq": LayerRecipe(QuantSpec(4, 32, symmetric=True, scale_dtype="float16"), "gptq"),
    "Q4_0, scales of a whole row": LayerRecipe(QuantSpec(4, None, symmetric=True, scale_dtype="float16")),
}
ROUNDED = {
    "Q4_1": LayerRecipe(QuantSpec(4, 32, zero="float", scale_dtype="float16")),
    "Q4_1, whole zeros": LayerRecipe(QuantSpec(4, 32, scale_dtype="float16")),
    "Q4_1 by hqq": LayerRecipe(QuantSpec(4, 32, zero="float", scale_dtype="float16"), "hqq"),
}


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def quantised(model, rule, *, ends=ENDS):
    recipe = Recipe(rule, embedding=ends, head=ends, kernel="naive")
    return quantize_model(model, recipe, calibration=tokens(6, 48))


def read_by_transformers(path):
    config = GgufConfig(dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=config, dtype=torch.float32
    )
    return loaded.eval()


def read_by_gguf(path):
    return {one.name: (one.tensor_type.name, dequantize(one.data, one.tensor_type)) for one in GGUFReader(path).tensors}


@pytest.mark.parametrize("rule", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("family", [llama, qwen2])
def test_transformers_reads_the_same_weights_and_logits(family, rule, tmp_path):
    made, ids = quantised(family(), rule), tokens()
    loaded = read_by_transformers(export_gguf(made, tmp_path / "model.gguf"))
    for name, quantized in quantized_layers(made).items():
        assert torch.equal(loaded.get_submodule(name).weight, quantized.dequantize()), name
    torch.testing.assert_close(logits(loaded, ids), logits(made, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ROUNDED.values(), ids=ROUNDED)
def test_q4_1_differs_by_the_rounding_of_its_minimum_and_no_more(rule, tmp_path):
    made, ids = quantised(llama(), rule), tokens()
    loaded = read_by_transformers(export_gguf(made, tmp_path / "model.gguf"))
    for name, quantized in quantized_layers(made).items():
        if quantized.spec.bits == 4:
            low = (quantized.scales * quantized.zeros).abs().repeat_interleave(32, 1)
            off = (loaded.get_submodule(name).weight - quantized.dequantize()).abs()
            assert bool((off <= 2.0**-11 * low + 1e-7).all()), name
    torch.testing.assert_close(logits(loaded, ids), logits(made, ids), rtol=0, atol=2e-3)


def test_q4_1_is_exact_where_the_minimum_is_a_number_of_float16(tmp_path):
    """A weight that lies on the format's own grid, as the shipped SmolLM2 does, goes in and comes out unchanged."""
    model, spec = llama(), QuantSpec(4, 32, zero="float")
    weight = model.model.layers[0].mlp.up_proj.weight
    scale = torch.full((weight.shape[0], 2, 1), 2.0**-6)
    low = -scale * torch.arange(1.0, 9.0).repeat(12)[:, None, None]
    steps = torch.arange(32).roll(1) % 16
    weight.data = (scale * steps + low).flatten(1)
    recipe = Recipe(None, {"*layers.0.mlp.up_proj": LayerRecipe(spec)})
    found = read_by_gguf(export_gguf(quantize_model(model, recipe, in_place=False), tmp_path / "model.gguf"))
    kind, values = found["blk.0.ffn_up.weight"]
    assert kind == "Q4_1"
    assert np.array_equal(values, weight.detach().numpy())


def test_the_gguf_package_reads_the_kinds_and_the_values(tmp_path):
    made = quantised(llama(), EXACT["Q4_0"])
    found = read_by_gguf(export_gguf(made, tmp_path / "model.gguf"))
    heads = {"q_proj": made.config.num_attention_heads, "k_proj": made.config.num_key_value_heads}
    layers = quantized_layers(made)
    assert "output.weight" not in found  # tied: one matrix, once
    for name, (kind, values) in found.items():
        ours = checkpoint_name(name).removesuffix(".weight")
        if ours not in layers:
            assert kind == "F32"
            continue
        assert kind == ("Q8_0" if name == "token_embd.weight" else "Q4_0")
        turned = next((count for part, count in heads.items() if part in ours), None)
        values = values if turned is None else undo_rotary_order(values, turned)
        assert np.array_equal(values, layers[ours].dequantize().numpy()), name


def test_two_blocks_of_smollm2_with_its_tokenizer_are_a_whole_file(tmp_path):
    model, tokenizer = load_pretrained("smollm2-135m", device="cpu")
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2  # all 30 take a minute to read
    model.config.layer_types = None
    rule = LayerRecipe(QuantSpec(4, 64, symmetric=True, scale_dtype="float16"))
    recipe = Recipe(rule, embedding=replace(ENDS, group_size=None), kernel="naive")
    made = quantize_model(model, recipe)
    ids = tokenizer("Shall I compare thee to a summer's day?", return_tensors="pt").input_ids
    loaded = read_by_transformers(export_gguf(made, tmp_path / "bare.gguf"))
    torch.testing.assert_close(logits(loaded, ids), logits(made, ids), rtol=1e-3, atol=1e-3)
    export_gguf(made, tmp_path / "model.gguf", tokenizer=tokenizer)
    text = "Thou art more lovely\n and 42 more temperate: <|im_start|>x"
    back = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert back(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (Recipe.of("rtn", 3, group_size=32, scale_dtype="float16"), "defines no block of 3 bits"),
        (Recipe.of("rtn", 8, group_size=32, symmetric=False, scale_dtype="float16"), "8 bits symmetric"),
        (Recipe.of("rtn", 4, codebook="nf4", scale_dtype="float16"), "defines no block of NF4"),
        (Recipe.of("rtn", 4, group_size=16, scale_dtype="float16"), "take group_size=32"),
        (Recipe.of("rtn", 4, symmetric=True), "scale_dtype='float16'"),
        (Recipe.of("awq", 4, scale_dtype="float16"), "change of inputs"),
        (Recipe.of("gptq", 4, scale_dtype="float16", rotate=True), "without rotation"),
        (
            Recipe.of("gptq", 4, scale_dtype="float16", options={"act_order": True, "static_groups": False}),
            "static_groups=True",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_scheme_that_the_format_does_not_define_is_refused_with_the_remedy(recipe, told, tmp_path):
    made = quantize_model(llama(), recipe, calibration=tokens(6, 48))
    with pytest.raises(ValueError, match=f"model.layers.0.*{told}"):
        export_gguf(made, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_a_family_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="save_quantized"):
        export_gguf(quantised(gpt2(), EXACT["Q4_0"]), tmp_path / "model.gguf")


def test_a_float_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="quantize_model"):
        export_gguf(llama(), tmp_path / "model.gguf")
