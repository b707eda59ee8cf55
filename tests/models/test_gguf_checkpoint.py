"""A GGUF file becomes the checkpoint that it was made from."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.models.gguf_checkpoint import checkpoint_name, convert_gguf, undo_rotary_order
from workbench.models.small_lm import ModelSize, small_lm

WORDS = ["<unk>", "a", "b", "c", "ab", "Ġ"]


def rotary_order(weight, heads):
    """What llama.cpp does to query and key rows: the two halves of each head are interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path, model, *, kind="llama"):
    config = model.config
    writer = GGUFWriter(path, kind)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([1] * len(WORDS))
    writer.add_token_merges(["a b"])
    for name in ("bos", "eos", "pad", "unk"):
        getattr(writer, f"add_{name}_token_id")(0)
    names = {checkpoint_name(f"blk.{n}.{part}.weight"): f"blk.{n}.{part}.weight"
             for n in range(config.num_hidden_layers)
             for part in ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm", "ffn_norm", "ffn_gate", "ffn_up",
                          "ffn_down")}  # fmt: skip
    names |= {checkpoint_name(name): name for name in ("token_embd.weight", "output_norm.weight", "output.weight")}
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = values.numpy()
        if "q_proj" in name:
            array = rotary_order(array, config.num_attention_heads)
        if "k_proj" in name:
            array = rotary_order(array, config.num_key_value_heads)
        writer.add_tensor(names[name], np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny():
    return small_lm(len(WORDS), ModelSize(width=32, layers=2, heads=4), context=16, seed=1).eval()


def test_a_model_written_as_gguf_comes_back_with_the_same_logits(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "checkpoint")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    ids = torch.tensor([[1, 2, 3, 4, 5, 1, 1, 2]])
    assert torch.equal(again(ids).logits, tiny(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "checkpoint").encode("abc") == [4, 3]


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_the_rotary_order_is_undone_exactly(heads):
    weight = np.random.default_rng(0).normal(size=(heads * 8, 5))
    assert np.array_equal(undo_rotary_order(rotary_order(weight, heads), heads), weight)


def test_a_model_of_another_family_is_refused(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny, kind="gpt2")
    with pytest.raises(ValueError, match="kind 'gpt2', expected 'llama'"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "checkpoint")


def test_a_tensor_without_a_place_is_named():
    with pytest.raises(ValueError, match=r"'blk\.0\.ssm_in\.weight' has no place"):
        checkpoint_name("blk.0.ssm_in.weight")


def test_a_disk_that_fills_while_converting_is_told_as_the_systems_error(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from workbench.errors import AssetError; from workbench.files import atomic_path\n"
        "from workbench.models.gguf_checkpoint import convert_gguf\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try:\n"
        "    with atomic_path(Path(sys.argv[2])) as temporary: convert_gguf(Path(sys.argv[1]), temporary)\n"
        "except AssetError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "tiny.gguf", tmp_path / "checkpoint"], capture_output=True, text=True
    )
    assert done.stdout.startswith("The disk is full"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
