"""A quantised model on disk: packed tensors in safetensors, the recipe beside them, and no code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.files import atomic_path
from workbench.quantizers.model_report import Quantization, head_is_tied, quantization_of, quantized_layers
from workbench.quantizers.model_swap import fill_model
from workbench.quantizers.model_walk import name_of
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.saved_file import (
    FORMAT,
    WEIGHTS,
    check_layers,
    check_recipe,
    checksum,
    fingerprint,
    read_header,
    read_tensors,
)
from workbench.quantizers.tensor import QuantizedTensor


def save_quantized(model: nn.Module, folder: str | Path) -> Path:
    """Write ``model`` into ``folder``: ``config.json``, ``generation_config.json`` and ``quantized.safetensors``.

    The weights' file holds the packed tensors, what stayed floating, and as metadata the recipe, a description of
    every quantised weight, a fingerprint of the architecture and checksums. The folder appears whole or not at all;
    other files in a folder that was saved before (a tokenizer) stay.

    Args:
        model: quantised by ``quantize_model``; a causal language model of transformers.
        folder: new, empty, or one that this function wrote before.

    Returns:
        The folder.

    Raises:
        ValueError: the model is not quantised, or the folder holds something else.
        AssetError: the folder cannot be written or the disk is full.
    """
    from safetensors.torch import save_file

    quantization, folder = quantization_of(model), Path(folder).expanduser()
    if folder.exists() and not _is_free(folder):
        raise ValueError(f"{folder} holds something else than a quantised model: name a new folder.")
    tensors, descriptions = _contents(model)
    metadata = {
        "format": FORMAT,
        "recipe": json.dumps(quantization.recipe.to_json()),
        "rules": json.dumps({name: rule.to_json() for name, rule in quantization.layers.items()}),
        "layers": json.dumps(descriptions),
        "head": _head_place(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint(model.config),
        "checksums": json.dumps({name: checksum(tensor) for name, tensor in tensors.items()}),
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        if folder.is_dir():
            for kept in folder.iterdir():
                if kept.is_file():
                    shutil.copy2(kept, temporary / kept.name)
        model.config.to_json_file(temporary / "config.json")
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.to_json_file(temporary / "generation_config.json")
        save_file(tensors, temporary / WEIGHTS, metadata=metadata)
    return folder


def load_quantized(folder: str | Path, *, recipe: Recipe | None = None, kernel: str | None = None) -> nn.Module:
    """The model that :func:`save_quantized` wrote into ``folder``, on the CPU in evaluation mode.

    The architecture is built without memory for weights; the file is read once, tensor by tensor, and no float weight
    of a quantised layer is ever made. Nothing in the folder is executed.

    Args:
        folder: what was written.
        recipe: if given, the only recipe that is accepted; its ``kernel`` does not count.
        kernel: as in :class:`Recipe`; None takes that of the saved recipe.

    Raises:
        ValueError: no such folder, or its file is truncated, changed, of a newer version, of another architecture
            than ``config.json``, or not what its recipe or ``recipe`` says; one sentence says which.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = Path(folder).expanduser()
    header = read_header(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if fingerprint(config) != header["fingerprint"]:
        raise ValueError(
            f"{folder / WEIGHTS} belongs to another model than {folder / 'config.json'}: the two were not saved "
            "together; restore the folder or quantise again."
        )
    saved = Recipe.from_json(json.loads(header["recipe"]))
    check_recipe(saved, recipe)
    rules = {name: LayerRecipe.from_json(rule) for name, rule in json.loads(header["rules"]).items()}
    descriptions = json.loads(header["layers"])
    check_layers(rules, descriptions)
    plain, packed = read_tensors(folder / WEIGHTS, json.loads(header["checksums"]), descriptions)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, header["dtype"]))
    layers = {name: _restored(name, description, packed[name]) for name, description in descriptions.items()}
    fill_model(model, plain, layers, rules, head=header["head"], kernel=kernel or saved.kernel)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    model.quantization = Quantization(saved, rules)
    return model.eval()


def _is_free(folder: Path) -> bool:
    return folder.is_dir() and ((folder / WEIGHTS).exists() or not any(folder.iterdir()))


def _contents(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors by name, each storage once, and the descriptions of quantised weights."""
    layers = quantized_layers(model)
    inside = tuple(f"{name}." for name in layers)
    tied = f"{name_of(model, _head(model))}.weight" if head_is_tied(model) else None
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in named:
        if name != tied and (not name.startswith(inside) or name.endswith(".bias")):
            # The file format refuses two names for one storage, so what is shared beyond the head is written twice.
            tensors[name] = tensor.detach().clone() if tensor.data_ptr() in seen else tensor.detach().contiguous()
            seen.add(tensor.data_ptr())
    for name, quantized in layers.items():
        tensors |= {f"{name}::{part}": tensor.contiguous() for part, tensor in quantized.tensors().items()}
    return tensors, {name: quantized.description() for name, quantized in layers.items()}


def _head(model: nn.Module) -> nn.Module | None:
    return model.get_output_embeddings()


def _head_place(model: nn.Module) -> str:
    """``tied`` to the embedding, ``own`` matrix, or ``none``."""
    if _head(model) is None:
        return "none"
    return "tied" if head_is_tied(model) else "own"


def _restored(name: str, description: dict[str, Any], tensors: dict[str, Tensor]) -> QuantizedTensor:
    try:
        return QuantizedTensor.restore(description, tensors)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name}: {error}") from error
