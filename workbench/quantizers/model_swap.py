"""Quantised modules put in the place of float ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.quantizers.embedding import QuantizedEmbedding
from workbench.quantizers.grid import Grid, fit_grid
from workbench.quantizers.kernels import Blocked, Naive, make_kernel
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.llm_int8 import LLMInt8Linear
from workbench.quantizers.model_walk import ROWS_AT_ONCE, Plan, name_of, replace_module, weight_of
from workbench.quantizers.recipes import LayerRecipe
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor


def swap_layer(model: nn.Module, name: str, quantized: QuantizedTensor, rule: LayerRecipe | None, kernel: str) -> None:
    """Put the quantised layer in the place of the one called ``name``, whose float weight is let go."""
    linear = model.get_submodule(name)
    if rule is not None and rule.method == "llm_int8":
        new: nn.Module = LLMInt8Linear.from_linear(linear, quantized, **rule.options, layer=name)
    else:
        new = QuantizedLinear.from_linear(linear, quantized, kernel=kernel, layer=name)
    replace_module(model, name, new.train(linear.training))


def check_kernel(model: nn.Module, plan: Plan, kernel: str) -> None:
    """Raise ``ValueError`` if a kernel that was asked for cannot run a layer's format; tried on zeros."""
    if kernel == "auto":
        return
    for name, rule in plan.layers.items():
        if rule.method != "llm_int8":
            zeros = torch.zeros(weight_of(model.get_submodule(name)).shape)
            make_kernel(quantize_rtn(zeros, rule.spec, layer=name), kernel, layer=name)


def take_values(model: nn.Module, found: Mapping[str, QuantizedTensor]) -> None:
    """Let the float layers compute with the values of their codes; the weights they had are not written to."""
    for name, quantized in found.items():
        module = model.get_submodule(name)
        values = quantized.dequantize(dtype=module.weight.dtype)
        values = values if isinstance(module, nn.Linear) else values.t()
        module.weight = nn.Parameter(values, requires_grad=False)


def quantize_ends(model: nn.Module, plan: Plan, kernel: str) -> None:
    """Round embedding and output layer to nearest; where they are tied they share one packed matrix."""
    if plan.embedding is not None:
        name, spec = plan.embedding
        quantized = quantize_by_rows(model.get_submodule(name).weight, spec, layer=name)
        _let_go(model, model.get_submodule(name).weight)  # before the kernel makes its layout: memory peaks here
        swap_embedding(model, name, quantized, kernel)
        del quantized
        if plan.tied:
            tie_head(model)
    if plan.head is not None and not plan.tied:
        name, spec = plan.head
        swap_layer(
            model, name, quantize_by_rows(model.get_submodule(name).weight, spec, layer=name), None, _end(kernel)
        )


def quantize_by_rows(weight: Tensor, spec: QuantSpec, *, layer: str) -> QuantizedTensor:
    """:func:`quantize_rtn` of a tall ``weight [vocab, in]``, a few thousand rows at a time to save memory."""
    if spec.group_size == "tensor":
        return quantize_rtn(weight, spec, layer=layer)
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    grids = []
    for rows, place in zip(weight.detach().split(ROWS_AT_ONCE), codes.split(ROWS_AT_ONCE), strict=True):
        grids.append(fit_grid(rows, spec, layer=layer))
        place.copy_(grids[-1].encode(rows.float()))
    zeros = None if grids[0].zero is None else torch.cat([grid.zero for grid in grids])
    grid = Grid(torch.cat([grid.scale for grid in grids]), zeros, spec)
    return QuantizedTensor.from_codes(codes, grid, method="rtn")


def _let_go(model: nn.Module, weight: nn.Parameter) -> None:
    """Leave shape and dtype of ``weight`` in embedding and tied output layer, and not its memory."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None and module.weight is weight:
            module.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def swap_embedding(model: nn.Module, name: str, quantized: QuantizedTensor, kernel: str) -> None:
    """Put the quantised embedding in the place of the one called ``name``."""
    new = QuantizedEmbedding.from_embedding(model.get_submodule(name), quantized, kernel=_end(kernel), layer=name)
    replace_module(model, name, new)


def tie_head(model: nn.Module) -> None:
    """Let the output layer multiply by the packed matrix of the embedding."""
    head = model.get_output_embeddings()
    name = name_of(model, head)
    replace_module(model, name, model.get_input_embeddings().tied_head(head.bias, layer=name))


def _end(kernel: str) -> str:
    """The kernel of embedding and output layer: a recipe's is meant for layers, whose format may be another."""
    return kernel if kernel in (Blocked.name, Naive.name) else "auto"


def fill_model(
    model: nn.Module,
    plain: Mapping[str, Tensor],
    layers: Mapping[str, QuantizedTensor],
    rules: Mapping[str, LayerRecipe],
    *,
    head: str,
    kernel: str,
) -> None:
    """Give ``model``, built on the meta device, its float tensors and its quantised weights.

    Args:
        head: ``tied`` to the embedding, ``own`` or ``none``.

    Raises:
        ValueError: a name or shape that the architecture does not have, or a weight that nothing was given for.
    """
    for name, tensor in plain.items():
        _set_tensor(model, name, tensor)
    for name, quantized in layers.items():
        module = _module(model, name)
        if tuple(weight_of(module).shape) != quantized.shape:
            raise ValueError(
                f"{name}: the file has a weight {quantized.shape}, the architecture {tuple(weight_of(module).shape)}: "
                "they belong to different models."
            )
        if isinstance(module, nn.Embedding):
            swap_embedding(model, name, quantized, kernel)
        else:
            swap_layer(model, name, quantized, rules.get(name), kernel if name in rules else _end(kernel))
    if head == "tied" and isinstance(model.get_input_embeddings(), QuantizedEmbedding):
        tie_head(model)
    elif head == "tied":
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    empty = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if empty:
        raise ValueError(f"the file has nothing for {empty[0]}: it belongs to another model; quantise and save again.")


def _set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    module = _module(model, owner)
    place = next((kept for kept in (module._parameters, module._buffers) if kept.get(last) is not None), None)
    if place is None or place[last].shape != tensor.shape:
        there = "no such tensor" if place is None else f"shape {tuple(place[last].shape)}"
        raise ValueError(
            f"{name}: the file has a tensor {tuple(tensor.shape)}, the architecture {there}: "
            "they belong to different models."
        )
    place[last] = nn.Parameter(tensor, requires_grad=False) if place is module._parameters else tensor


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ValueError(f"{name}: the architecture has no such layer: file and config differ.") from None
