"""Real pretrained models come by short name, folder or hub name, and behave as what they are."""

import os
import re
import subprocess
import sys

import pytest
import torch

from tests.datasets.local_index import free_port
from workbench.errors import UnknownName
from workbench.models import pretrained
from workbench.models.encoders import encode_sentences
from workbench.models.pretrained import SHORT_NAMES, find_pretrained, load_pretrained
from workbench.models.small_lm import ModelSize, small_lm


@pytest.fixture(scope="module")
def smollm2():
    return load_pretrained("smollm2-135m", device="cpu")


@pytest.fixture(scope="module")
def minilm():
    return load_pretrained("minilm", device="cpu")


def test_smollm2_knows_the_capital_of_france(smollm2):
    model, tokenizer = smollm2
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert tokenizer.decode([logits[0, -1].argmax()]) == " Paris"


def test_smollm2_is_an_ordinary_model_that_can_be_trained_and_saved(smollm2):
    model, _ = smollm2
    assert model.num_parameters() == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not getattr(model, "is_quantized", False)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert not model.training


def test_smollm2s_weights_lie_on_a_grid_of_four_bits(smollm2):
    blocks = smollm2[0].model.layers[7].mlp.down_proj.weight.detach()[:8].reshape(-1, 32)
    assert max(len(block.unique()) for block in blocks) == 16


def test_smollm2s_tokenizer_gives_every_text_back_and_knows_the_chat_marks(smollm2):
    tokenizer = smollm2[1]
    for text in ("def f(x):\n    return x  # ok\n", "naïve café, 北京, 😀"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|im_start|>") == [1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    assert "<|im_start|>user\nHello<|im_end|>" in chat


def test_smollm2_is_converted_once_and_then_only_read(smollm2):
    file = find_pretrained("smollm2-135m") / "model.safetensors"
    before = file.stat().st_mtime_ns
    again, _ = load_pretrained("smollm2-135m", device="cpu", dtype="bfloat16")
    assert again.dtype == torch.bfloat16
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [
        ("A man is eating food.", "A man is eating a piece of bread.", 0.755),
        ("A man is eating food.", "Someone is having a meal.", 0.689),
        ("A man is eating food.", "A woman is playing violin.", -0.070),
    ],
)
def test_minilm_finds_like_sentences_alike(minilm, first, second, cosine):
    vectors = encode_sentences(*minilm, [first, second])
    assert (vectors[0] @ vectors[1]).item() == pytest.approx(cosine, abs=0.01)


def test_a_sentences_vector_has_length_one_and_does_not_depend_on_its_company(minilm):
    texts = ["Short.", "A sentence that is a good deal longer than the others are.", "", "Short."]
    together = encode_sentences(*minilm, texts, batch_size=2)
    alone = torch.cat([encode_sentences(*minilm, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(4))
    assert encode_sentences(*minilm, []).shape == (0, 384)
    with pytest.raises(TypeError, match="list of strings"):
        encode_sentences(*minilm, "one string")


def test_a_folder_with_ones_own_model_loads_with_its_head(tmp_path, minilm):
    own = small_lm(50, ModelSize(width=16, layers=1, heads=2), context=8, seed=0)
    own.save_pretrained(tmp_path)
    minilm[1].save_pretrained(tmp_path)  # any tokenizer will do
    model, _ = load_pretrained(tmp_path, device="cpu")
    assert type(model) is type(own)
    ids = torch.arange(6)[None]
    torch.testing.assert_close(model(ids).logits, own.eval()(ids).logits)


def test_a_misspelt_short_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'smollm2-135m'.*owner/name"):
        load_pretrained("smolm2-135m")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "a/b/c", "./owner/name"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(name):
    with pytest.raises(UnknownName, match="neither an existing folder nor a hub name"):
        load_pretrained(name)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a config\.json"):
        load_pretrained(tmp_path)


def test_short_names_are_there_without_the_hub():
    for name in SHORT_NAMES:
        assert (find_pretrained(name) / "model.safetensors").is_file()


def ask_hub(tmp_path, **variables):
    """What a fresh process says to a hub name (the hub's client reads its variables once, at import)."""
    code = (
        "from workbench.models.pretrained import find_pretrained\n"
        "try: print(find_pretrained('someone/something'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), **variables}
    environment = {name: value for name, value in environment.items() if value}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_an_unreachable_hub_is_one_sentence_within_seconds(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    said = ask_hub(tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="", TRANSFORMERS_OFFLINE="").stdout.strip()
    assert re.fullmatch(r"AssetError model='someone/something' .* cannot be had .*need no hub\.", said)


def test_when_the_hub_is_switched_off_that_is_what_is_said(tmp_path):
    said = ask_hub(tmp_path, HF_HUB_OFFLINE="1").stdout.strip()
    assert said.startswith("AssetError model='someone/something' is not in the hub's cache and HF_HUB_OFFLINE forbids")


def test_a_model_in_the_hubs_cache_needs_no_network(tmp_path):
    snapshot = tmp_path / "hub" / "models--someone--something" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    assert ask_hub(tmp_path, HF_HUB_OFFLINE="1").stdout.strip() == str(snapshot)


def test_the_loader_leaves_the_switch_of_transformers_bars_as_it_was(minilm):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    with pretrained._without_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() == before
