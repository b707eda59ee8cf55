"""A quantised model as one GGUF file, which llama.cpp, the gguf package and transformers read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from workbench.errors import UnknownName, check_choice
from workbench.files import atomic_path
from workbench.quantizers.gguf_blocks import gguf_blocks
from workbench.quantizers.gguf_tokenizer import add_tokenizer
from workbench.quantizers.model_report import quantized_layers

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from transformers import PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "qwen2")  # whose rows and names this knows; others store some tensors in other orders
MOSTLY = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}  # numbers of llama.cpp's file types


def export_gguf(model: nn.Module, path: str | Path, *, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Write ``model`` as a GGUF file; quantised weights keep their codes, everything else is float32.

    Schemes that the format defines: 4 bits symmetric (``Q4_0``), 4 bits with a zero (``Q4_1``) and 8 bits symmetric
    (``Q8_0``), in groups of 32 or a multiple, with ``scale_dtype="float16"``. ``Q4_0`` here may use other codes than
    llama.cpp would choose; they mean what they meant before.

    Args:
        model: of the Llama or Qwen2 family, quantised by ``quantize_model``.
        path: of the file, as a rule ``*.gguf``; written whole or not at all.
        tokenizer: a byte-level BPE tokenizer to put in, without which llama.cpp does not load the file.

    Returns:
        The path.

    Raises:
        ValueError: a scheme, a model or a kind of positions that the format cannot hold; says what would do.
        AssetError: the file cannot be written.
    """
    from gguf import GGUFWriter

    layers = quantized_layers(model)
    if not layers:
        raise ValueError("the model is not quantised: call quantize_model(model, recipe) first.")
    architecture = _architecture(model)
    tensors = [_tensor(*found) for found in _named_tensors(model, layers)]
    path = Path(path).expanduser()
    with atomic_path(path) as temporary:
        writer = GGUFWriter(temporary, architecture)
        _add_config(writer, model.config)
        kinds = [kind.name for _, _, kind in tensors if kind is not None]
        writer.add_file_type(MOSTLY[max(set(kinds), key=kinds.count)])
        writer.add_quantization_version(2)
        if tokenizer is not None:
            add_tokenizer(writer, tokenizer, model.config)
        for name, data, kind in tensors:
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _architecture(model: nn.Module) -> str:
    config = model.config
    try:
        check_choice("the model's family", str(config.model_type), ARCHITECTURES)
    except UnknownName as error:
        raise ValueError(f"{error} Keep other families with save_quantized.") from None
    rope = getattr(config, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        raise ValueError(f"positions of the kind {kind!r} have no place in this export: use save_quantized.")
    return str(config.model_type)


def _named_tensors(model: nn.Module, layers: dict[str, Any]) -> list[tuple[str, Any, str, int | None]]:
    """What the file holds: ``(name here, tensor or quantised weight, name there, heads if rows change places)``."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    config = model.config
    number = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}[config.model_type]
    names = get_tensor_name_map(MODEL_ARCH(number), config.num_hidden_layers)
    kept = {name: parameter.detach() for name, parameter in model.named_parameters()}
    kept |= {f"{name}.weight": quantized for name, quantized in layers.items()}
    found = []
    for name, value in kept.items():
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ValueError(f"GGUF has no name for {name} of a {config.model_type} model: use save_quantized.")
        heads = None
        if config.model_type == "llama" and ".q_proj." in name:
            heads = config.num_attention_heads
        elif config.model_type == "llama" and ".k_proj." in name:
            heads = config.num_key_value_heads
        found.append((name, value, there, heads))
    return found


def _tensor(
    name: str, value: Any, there: str, heads: int | None
) -> tuple[str, np.ndarray, GGMLQuantizationType | None]:
    """Name, data and type (None: float32) as they are written."""
    if isinstance(value, torch.Tensor):
        data, kind = value.float().cpu().numpy(), None
    else:
        data, kind = gguf_blocks(value, name.removesuffix(".weight"))
    if heads is not None:
        # The file pairs neighbouring rows of a head for rotary positions, transformers its halves.
        rows = data.shape[0]
        data = data.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(data.shape)
    return there, data, kind


def _add_config(writer: GGUFWriter, config: Any) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(config.model_type)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
