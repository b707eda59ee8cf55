"""What a quantised model holds: its quantised weights, their bytes and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import nn

from workbench.quantizers.embedding import QuantizedEmbedding
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.llm_int8 import LLMInt8Linear
from workbench.quantizers.model_walk import QUANTIZED, weight_of
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.tensor import QuantizedTensor


@dataclass(frozen=True)
class Quantization:
    """What was done to a model; kept on it as ``model.quantization``."""

    recipe: Recipe
    layers: Mapping[str, LayerRecipe]  # with groups settled


def recipe_of(model: nn.Module) -> Recipe:
    """The recipe that ``model`` was quantised by; raises ``ValueError`` for a float model."""
    return quantization_of(model).recipe


def quantization_of(model: nn.Module) -> Quantization:
    """What was done to ``model``; raises ``ValueError`` for a float model."""
    found = getattr(model, "quantization", None)
    if not isinstance(found, Quantization):
        raise ValueError(f"this {type(model).__name__} is not quantised: call quantize_model(model, recipe) first.")
    return found


def quantized_layers(model: nn.Module) -> dict[str, QuantizedTensor]:
    """Every quantised weight of ``model`` by the name of its module, unpacked from the layout it is multiplied in.

    An output layer that is tied to the embedding is not listed beside it.
    """
    head = model.get_output_embeddings() if head_is_tied(model) else None
    named = model.named_modules()
    return {name: module.quantized for name, module in named if isinstance(module, QUANTIZED) and module is not head}


def head_is_tied(model: nn.Module) -> bool:
    """Whether the output layer of a quantised model multiplies by the embedding's matrix, packed or float."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if isinstance(embedding, QuantizedEmbedding):
        return isinstance(head, QuantizedLinear) and head.storage is embedding.storage
    return head is not None and not isinstance(head, QUANTIZED) and head.weight is embedding.weight


def model_bytes(model: nn.Module) -> int:
    """Bytes of everything that ``model`` keeps for its weights, float or packed, each storage once."""
    total, seen = 0, set()
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        if (tensor.device, storage.data_ptr()) not in seen:
            seen.add((tensor.device, storage.data_ptr()))
            total += storage.nbytes()
    for module in model.modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            if id(module.storage) not in seen:
                seen.add(id(module.storage))
                total += module.storage.nbytes
        elif isinstance(module, LLMInt8Linear):
            total += module.quantized.nbytes
    return total


def weight_report(model: nn.Module, original: nn.Module | None = None) -> pd.DataFrame:
    """One row for each quantised weight of ``model``.

    Args:
        original: the float model; adds ``weight_error``, the norm of the difference in parts of the weight's norm.

    Returns:
        ``layer, out, in, method, bits, group_size, scheme, outliers`` (share of weights)``, nbytes, bits_per_weight``.
    """
    return pd.DataFrame([_row(name, quantized, original) for name, quantized in quantized_layers(model).items()])


def _row(name: str, quantized: QuantizedTensor, original: nn.Module | None) -> dict[str, object]:
    out, width = quantized.shape
    kept = 0 if quantized.outliers is None else quantized.outliers.count
    row: dict[str, object] = {
        "layer": name, "out": out, "in": width, "method": quantized.method, "bits": quantized.spec.bits,
        "group_size": quantized.spec.group_size or width, "scheme": quantized.spec.label,
        "outliers": kept / (out * width), "nbytes": quantized.nbytes, "bits_per_weight": quantized.bits_per_weight,
    }  # fmt: skip
    if original is not None:
        weight = weight_of(original.get_submodule(name)).float()
        row["weight_error"] = float((quantized.dequantize() - weight).norm() / weight.norm())
    return row
