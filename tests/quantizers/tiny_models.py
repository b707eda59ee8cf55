"""Small models of five families, each with what makes its layers special."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from workbench.runtime import generator, seeded

VOCABULARY = 96
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}


def _make(kind, config):
    with seeded(0):
        return kind(config).eval()


def llama(**changed):
    """Tied embeddings, grouped queries, 96 inputs in one layer."""
    fields = {"intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return _make(LlamaForCausalLM, LlamaConfig(**SIZE, **ENDS, **{**fields, **changed}))


def qwen2():
    """Biases of q, k and v; an output layer of its own."""
    return _make(Qwen2ForCausalLM, Qwen2Config(**SIZE, **ENDS, intermediate_size=96, num_key_value_heads=2))


def gpt2():
    """Conv1D: weights ``[in, out]``; tied."""
    fields = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return _make(GPT2LMHeadModel, GPT2Config(**fields, **ENDS))


def neox():
    """One matrix for q, k and v, biases everywhere, blocks that add in parallel."""
    return _make(GPTNeoXForCausalLM, GPTNeoXConfig(**SIZE, **ENDS, intermediate_size=96))


def opt():
    """Embeddings narrower than the model, projected by layers outside the blocks."""
    fields = {"ffn_dim": 96, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    return _make(OPTForCausalLM, OPTConfig(**SIZE, **{**ENDS, "pad_token_id": 1}, **fields))


FAMILIES = {"llama": llama, "qwen2": qwen2, "gpt2": gpt2, "neox": neox, "opt": opt}


def tokens(sequences=5, time=24, seed=0):
    """Ids that are no special tokens, ``[sequences, time]``."""
    return torch.randint(3, VOCABULARY, (sequences, time), generator=generator(seed))
