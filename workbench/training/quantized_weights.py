"""A quantised model as it is judged: its rounded weights in a plain model, or itself where inputs are rounded too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.training.quantized_variants import NOT_QUANTISED, Variant

if TYPE_CHECKING:
    from workbench.quantizers.tensor import QuantizedTensor


@dataclass(frozen=True)
class Quantised:
    """One variant of a model, ready to be scored, and what is told of it in every row."""

    model: nn.Module
    about: dict[str, Any]  # variant, method, bits, group, bits_per_weight, bytes, outlier_share


def as_it_is(model: nn.Module) -> Quantised:
    """The model before anything was done to it, told of like a variant."""
    from workbench.quantizers.model import model_bytes

    bits = 8 * next(model.parameters()).element_size()
    about = {"variant": NOT_QUANTISED, "method": NOT_QUANTISED, "bits": bits, "group": "none"}
    sizes = {"bits_per_weight": float(bits), "bytes": model_bytes(model), "outlier_share": 0.0}
    return Quantised(model, about | sizes)


def quantise(model: nn.Module, shell: nn.Module, variant: Variant, calibration: Tensor | None) -> Quantised:
    """Quantise ``model`` (left as it is) and put what its weights became into ``shell``, a copy of it.

    Rounded weights in a plain model give the numbers of the packed one to float rounding, and far sooner than
    kernels for memory's sake do. Where inputs are rounded too (LLM.int8(), SmoothQuant), the quantised model itself
    is handed back. Bits per weight are of the linear layers of the blocks, scales, zeros and outliers included;
    bytes are of all that the model stores.

    Args:
        shell: may be ``model`` itself, if its float weights are not needed any more.
        calibration: token ids ``[sequences, time]`` for methods that look at a layer's inputs.
    """
    from workbench.quantizers.model import model_bytes, quantize_model, quantized_layers

    needed = calibration if variant.needs_calibration else None
    # A kernel may keep weights in a layout of its own; what is told is what is stored.
    recipe = variant.recipe(kernel="auto" if variant.rounds_inputs else "blocked")
    packed = quantize_model(model, recipe, calibration=needed, in_place=False)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    layers = quantized_layers(packed)
    inside = [layer for name, layer in layers.items() if model.get_submodule(name) not in ends]
    weights = sum(layer.shape[0] * layer.shape[1] for layer in inside)
    about = {
        "variant": variant.name, "method": variant.method, "bits": variant.bits,
        "group": Counter(str(layer.spec.group_size or "row") for layer in inside).most_common(1)[0][0],
        "bits_per_weight": 8 * sum(layer.nbytes for layer in inside) / weights, "bytes": model_bytes(packed),
        "outlier_share": sum(layer.outliers.count for layer in inside if layer.outliers is not None) / weights,
    }  # fmt: skip
    if not variant.rounds_inputs:
        put_weights(shell, layers)
    return Quantised((packed if variant.rounds_inputs else shell).eval(), about)


@torch.no_grad()
def put_weights(shell: nn.Module, layers: Mapping[str, QuantizedTensor]) -> None:
    """Write the rounded weights ``[out, in]`` over those of the plain layers of the same names."""
    for name, layer in layers.items():
        module, values = shell.get_submodule(name), layer.dequantize()
        # GPT-2's Conv1D keeps its weight as [in, out].
        module.weight.copy_(values if isinstance(module, nn.Linear | nn.Embedding) else values.t())
