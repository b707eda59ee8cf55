"""A byte-level BPE tokenizer as the fields of a GGUF file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

PLACES = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "pad_token_id", "unk": "unk_token_id"}
SPLITTERS = {"llama": "smollm", "qwen2": "qwen2"}  # how llama.cpp cuts text before merging; SmolLM's is a Llama model


def add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Put vocabulary, merges, special tokens and chat template into ``writer``.

    Raises:
        ValueError: no byte-level BPE tokenizer, or one with more tokens than the model has.
    """
    from gguf import TokenType

    parsed = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    if parsed["model"].get("type") != "BPE" or parsed["model"].get("byte_fallback"):
        raise ValueError("only byte-level BPE tokenizers have a place in this export: leave tokenizer out.")
    added = {token["id"]: token for token in parsed["added_tokens"]}
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    if max(words) >= config.vocab_size:
        raise ValueError(f"the tokenizer has {max(words) + 1} tokens, the model only {config.vocab_size}.")
    tokens, kinds = [], []
    for number in range(config.vocab_size):
        tokens.append(words.get(number, f"[PAD{number}]"))  # rows that fill the matrix up have no word
        if number not in words:
            kinds.append(TokenType.UNUSED)
        elif number in added:
            kinds.append(TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED)
        else:
            kinds.append(TokenType.NORMAL)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in parsed["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTERS[config.model_type])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for place, attribute in PLACES.items():
        if (number := getattr(tokenizer, attribute, None)) is not None:
            getattr(writer, f"add_{place}_token_id")(number)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
