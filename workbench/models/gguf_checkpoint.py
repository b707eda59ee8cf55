"""A GGUF file of the Llama family as an ordinary checkpoint: float32 safetensors, config and tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from transformers import LlamaConfig

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(path: Path, folder: Path) -> None:
    """Write the model and tokenizer of the GGUF file at ``path`` into ``folder``, dequantized to float32.

    transformers reads such files too, but needs accelerate for it, takes twice as long, and depending on what
    else is installed keeps the weights packed and refuses to save them.

    Raises:
        ValueError: the file is not of the Llama family, or holds a tensor this knows no place for.
        OSError: the folder cannot be written.
    """
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, GenerationConfig

    reader = GGUFReader(path)
    config = _config(reader)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        name = checkpoint_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type)
        if rotated := next((count for part, count in heads.items() if part in name), None):
            values = undo_rotary_order(values, rotated)
        weights[name] = torch.from_numpy(values.copy() if not values.flags.writeable else values).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        # It hides the system's error number, by which a full disk is told from other trouble.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error
    config.save_pretrained(folder)
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**special).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)


def checkpoint_name(name: str) -> str:
    """``blk.3.ffn_up.weight`` -> ``model.layers.3.mlp.up_proj.weight``."""
    if name in _NAMES:
        return _NAMES[name]
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if not block or block[2] not in _NAMES:
        raise ValueError(f"The GGUF tensor {name!r} has no place in a Llama checkpoint.")
    return f"model.layers.{block[1]}.{_NAMES[block[2]]}.weight"


def undo_rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection ``[heads * width, in]``: GGUF pairs neighbours, transformers halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(reader: GGUFReader) -> LlamaConfig:
    from transformers import LlamaConfig

    def field(name: str) -> Any:
        return reader.fields[name].contents() if name in reader.fields else None

    if (kind := field("general.architecture")) != "llama":
        raise ValueError(f"The GGUF file holds a model of the kind {kind!r}, expected 'llama'.")
    names = {tensor.name for tensor in reader.tensors}
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=field("llama.vocab_size"),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings="output.weight" not in names,
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        pad_token_id=field("tokenizer.ggml.padding_token_id"),
    )
