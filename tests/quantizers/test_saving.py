"""Quantised models on disk: what comes back, and every wrong file told in a sentence."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.quantizers.tiny_models import FAMILIES, llama, opt, qwen2, tokens
from workbench.datasets.corpus import load_corpus
from workbench.models.pretrained import load_pretrained
from workbench.quantizers.model import model_bytes, quantize_model, recipe_of
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.saving import load_quantized, save_quantized
from workbench.quantizers.spec import QuantSpec

WEIGHTS = "quantized.safetensors"
GENERATE = """
import sys, torch
from workbench.quantizers.saving import load_quantized
torch.set_num_threads(1)
ids = torch.tensor([[int(number) for number in sys.argv[1].split(",")]])
for folder in sys.argv[2:]:
    print(load_quantized(folder).generate(ids, max_new_tokens=10, do_sample=False)[0].tolist())
"""


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.fixture
def saved(tmp_path):
    made = quantize_model(llama(), Recipe.of("gptq", 4, embedding_bits=8), calibration=tokens())
    return save_quantized(made, tmp_path / "model")


def rewrite(folder, *, metadata=None, tensors=None):
    """The file of ``folder`` with its metadata or tensors changed by a function."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        told, kept = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata:
        metadata(told)
    if tensors:
        tensors(kept)
    save_file(kept, folder / WEIGHTS, metadata=told)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.of("rtn", 8, embedding_bits=8),
        Recipe.of("rtn", 4, codebook="nf4", double_quant=True),
        Recipe.of("gptq", 3, rotate=True, embedding_bits=4),
        Recipe.of("gptq", 4, options={"act_order": True, "static_groups": False}),
        Recipe.of("spqr", 3),
        Recipe.of("awq", 4),
        Recipe.of("llm_int8", 8, options={"threshold": 1.0}),
        Recipe.of("hqq", 2, overrides={"*.0.*": None}),
    ],
    ids=lambda recipe: recipe.default.label,
)
def test_what_is_loaded_computes_the_very_same(family, recipe, tmp_path):
    made = quantize_model(FAMILIES[family](), recipe, calibration=tokens(6, 48))
    loaded = load_quantized(save_quantized(made, tmp_path / "model"), recipe=recipe)
    assert torch.equal(logits(loaded, tokens()), logits(made, tokens()))
    assert model_bytes(loaded) == model_bytes(made)
    assert recipe_of(loaded) == recipe


def test_smollm2_saved_and_loaded_in_a_new_process_generates_the_same_tokens(tmp_path):
    model, tokenizer = load_pretrained("smollm2-135m", device="cpu")
    text = load_corpus("shakespeare").documents[0].text[:6000]
    calibration = torch.tensor(tokenizer(text).input_ids[:640]).view(5, 128)
    ids = tokenizer("The king is dead, and", return_tensors="pt").input_ids
    some_gptq = {"model.layers.0.self_attn.*": LayerRecipe(QuantSpec(4, 64), "gptq")}
    recipes = {
        "4": Recipe.of("rtn", 4, embedding_bits=8, overrides=some_gptq),
        "8": Recipe.of("rtn", 8, embedding_bits=8),
    }
    wanted = {}
    for name, recipe in recipes.items():
        made = quantize_model(model, recipe, calibration=calibration, in_place=False)
        wanted[name] = made.generate(ids, max_new_tokens=10, do_sample=False)[0].tolist()
        folder = save_quantized(made, tmp_path / name)
        share = sum(path.stat().st_size for path in folder.iterdir()) / model_bytes(model)
        assert share < {"4": 0.20, "8": 0.28}[name]
    command = [
        sys.executable,
        "-c",
        GENERATE,
        ",".join(map(str, ids[0].tolist())),
        *(str(tmp_path / name) for name in wanted),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in shown.stdout.splitlines()[-2:]] == list(wanted.values())


def test_files_that_others_put_beside_a_saved_model_stay_when_it_is_saved_again(saved):
    (saved / "tokenizer.json").write_text("{}")
    save_quantized(quantize_model(llama(), Recipe.of("rtn", 8)), saved)
    assert (saved / "tokenizer.json").read_text() == "{}"
    assert recipe_of(load_quantized(saved)) == Recipe.of("rtn", 8)


def test_a_folder_with_something_else_is_not_written_over(tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ValueError, match="name a new folder"):
        save_quantized(quantize_model(llama(), Recipe.of("rtn", 4)), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


def test_a_float_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="quantize_model"):
        save_quantized(llama(), tmp_path / "model")


def test_no_model_is_told(tmp_path):
    with pytest.raises(ValueError, match="holds no quantised model"):
        load_quantized(tmp_path / "nowhere")


def test_a_truncated_file_is_told(saved):
    whole = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_quantized(saved)


def test_a_flipped_bit_is_told(saved):
    whole = bytearray((saved / WEIGHTS).read_bytes())
    whole[-5] ^= 1
    (saved / WEIGHTS).write_bytes(whole)
    with pytest.raises(ValueError, match="bytes of .* are not those"):
        load_quantized(saved)


def test_the_file_of_another_model_is_told(saved, tmp_path):
    other = save_quantized(quantize_model(qwen2(), Recipe.of("rtn", 4)), tmp_path / "other")
    (saved / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match="another model than"):
        load_quantized(saved)


def test_a_config_of_another_shape_is_told(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    with pytest.raises(ValueError, match="another model than"):
        load_quantized(saved)


def test_a_newer_format_is_told(saved):
    rewrite(saved, metadata=lambda told: told.update(format="workbench.quantizers/99"))
    with pytest.raises(ValueError, match="version 99.*update"):
        load_quantized(saved)


def test_a_file_of_somebody_else_is_told(saved):
    rewrite(saved, metadata=lambda told: told.clear())
    with pytest.raises(ValueError, match="not written by save_quantized"):
        load_quantized(saved)


def test_another_recipe_than_the_one_wanted_is_told(saved):
    assert load_quantized(saved, recipe=Recipe.of("gptq", 4, embedding_bits=8, kernel="naive"))
    with pytest.raises(ValueError, match="another recipe: default is .*bits=4, wanted .*bits=3"):
        load_quantized(saved, recipe=Recipe.of("gptq", 3, embedding_bits=8))
    with pytest.raises(ValueError, match="another recipe.*act_order"):
        load_quantized(saved, recipe=Recipe.of("gptq", 4, embedding_bits=8, options={"act_order": True}))


def test_codes_with_a_permutation_that_their_recipe_does_not_give_are_told(tmp_path):
    """The mistake that once gave a perplexity of 19069: packed with act-order, loaded without."""
    recipe = Recipe.of("gptq", 4, options={"act_order": True, "static_groups": False})
    folder = save_quantized(quantize_model(llama(), recipe, calibration=tokens()), tmp_path / "model")

    def forget(told):
        rules = json.loads(told["rules"])
        for rule in rules.values():
            rule["options"] = {}
        told["rules"] = json.dumps(rules)

    rewrite(folder, metadata=forget)
    with pytest.raises(ValueError, match="permutation"):
        load_quantized(folder)


def test_another_spec_than_that_of_the_codes_is_told(saved):
    rewrite(saved, metadata=lambda told: told.update(rules=told["rules"].replace('"bits": 4', '"bits": 3')))
    with pytest.raises(ValueError, match="bits: 3 and 4"):
        load_quantized(saved)


def test_a_tensor_that_is_missing_is_told(saved):
    rewrite(saved, tensors=lambda kept: kept.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        load_quantized(saved)


def test_nothing_in_the_folder_is_a_pickle(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "generation_config.json", WEIGHTS]


def test_a_kernel_may_be_chosen_when_loading(tmp_path):
    made = quantize_model(opt(), Recipe.of("rtn", 4))
    loaded = load_quantized(save_quantized(made, tmp_path / "model"), kernel="naive")
    assert loaded.model.decoder.layers[0].fc1.kernel == "naive"
