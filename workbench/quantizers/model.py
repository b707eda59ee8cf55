"""A whole language model in few bits: every linear layer of every block, embedding and output layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from workbench.progress import progress
from workbench.quantizers.calibration import (
    BlockCall,
    check_calibration,
    evaluating,
    first_hidden,
    observe_block,
    run_block,
    trace_blocks,
)
from workbench.quantizers.layer_inputs import LayerInputs
from workbench.quantizers.layer_methods import quantize_layers
from workbench.quantizers.memory import give_back_memory
from workbench.quantizers.model_report import Quantization, model_bytes, quantized_layers, recipe_of, weight_report
from workbench.quantizers.model_swap import check_kernel, quantize_ends, swap_layer, take_values
from workbench.quantizers.model_walk import Plan, plan_model, weight_of
from workbench.quantizers.recipes import LayerRecipe, Recipe

__all__ = ["model_bytes", "quantize_model", "quantized_layers", "recipe_of", "weight_report"]


def quantize_model(
    model: nn.Module,
    recipe: Recipe,
    *,
    calibration: Tensor | None = None,
    in_place: bool = True,
    label: str = "quantize",
) -> nn.Module:
    """``model`` with its weights packed in few bits, as ``recipe`` says.

    Methods that look at inputs see those of the calibration tokens, block by block: a block's statistics are gathered
    with its float weights, on what the blocks before it give *with their quantised weights* (the order of GPTQ's
    released code). Layers that read the same tensor share their statistics. The output layer is not run.

    Everything is checked before anything is changed; a run that is stopped in the middle leaves ``model`` in part
    quantised, which this function then refuses.

    Args:
        model: a causal language model of transformers, in any floating dtype.
        recipe: what is done to which layer.
        calibration: token ids ``[sequences, time]`` without padding; only needed where the recipe looks at inputs.
        in_place: free the float weights one block after the other. False leaves ``model`` as it is and returns a new
            one that shares with it every tensor that is not quantised, so that many variants fit into memory.
        label: of the progress bar.

    Raises:
        TypeError, ValueError, UnknownName: whatever cannot work, with the layer and the remedy.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, got {type(recipe).__name__}: write Recipe.of('rtn', 4).")
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a causal language model of transformers, got {type(model).__name__}.")
    plan = plan_model(model, recipe)
    widths = [weight_of(model.get_submodule(name)).shape[1] for name, rule in plan.layers.items() if rule.calibrated]
    check_kernel(model, plan, recipe.kernel)
    tokens = check_calibration(calibration, model, widest=max(widths)) if widths else None
    if not in_place:
        model = share_tensors(model)
    with evaluating(model):
        if tokens is None:
            _without_data(model, plan, recipe.kernel, label)
        else:
            _block_by_block(model, plan, tokens, recipe.kernel, label)
    model.quantization = Quantization(recipe, plan.layers)
    return model


def share_tensors(model: nn.Module) -> nn.Module:
    """A copy of the module tree whose parameters and buffers are those of ``model``."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _without_data(model: nn.Module, plan: Plan, kernel: str, label: str) -> None:
    quantize_ends(model, plan, kernel)
    for block in progress(plan.blocks, label=label):
        for name, rule in plan.of_block(block).items():
            _quantize_one(model, name, rule, kernel)
        give_back_memory()
    for name in plan.outside:
        _quantize_one(model, name, plan.layers[name], kernel)


def _quantize_one(model: nn.Module, name: str, rule: LayerRecipe, kernel: str) -> None:
    found = quantize_layers({name: weight_of(model.get_submodule(name))}, {name: rule}, None)
    swap_layer(model, name, found[name], rule, kernel)


def _block_by_block(model: nn.Module, plan: Plan, tokens: Tensor, kernel: str, label: str) -> None:
    trace = trace_blocks(model, plan.blocks, plan.layers, tokens[:1])
    hidden = first_hidden(model, plan.blocks[0], tokens, trace.calls[0])
    give_back_memory()
    quantize_ends(model, plan, kernel)  # now: nothing reads the embedding again, and it is often the largest matrix
    give_back_memory()
    last = max(index for index, block in enumerate(plan.blocks) if _calibrated(plan.of_block(block)))
    for index, name in enumerate(progress(plan.blocks, label=label)):
        block, call, rules = model.get_submodule(name), trace.calls[index], plan.of_block(name)
        inputs = _observe(model, block, call, hidden, _calibrated(rules), trace.readers)
        weights = {layer: weight_of(model.get_submodule(layer)) for layer in rules}
        found = quantize_layers(weights, rules, inputs)
        del weights, inputs
        if index < last:
            # In float, whatever the kernel: what comes next must see the weights' error, not a product's.
            take_values(model, found)
            run_block(block, call, hidden)
        for layer in list(found):
            swap_layer(model, layer, found.pop(layer), rules[layer], kernel)
        give_back_memory()
    for name in plan.outside:
        _quantize_one(model, name, plan.layers[name], kernel)


def _calibrated(rules: Mapping[str, LayerRecipe]) -> dict[str, LayerRecipe]:
    return {name: rule for name, rule in rules.items() if rule.calibrated}


def _observe(
    model: nn.Module,
    block: nn.Module,
    call: BlockCall,
    hidden: Tensor,
    rules: Mapping[str, LayerRecipe],
    readers: Mapping[str, str],
) -> dict[str, LayerInputs]:
    """The inputs of each layer of ``rules``; layers that read one tensor get one object."""
    if missing := [name for name in rules if name not in readers]:
        raise ValueError(f"{missing[0]} was not reached by the calibration tokens: leave it out (None in the recipe).")
    sharing: dict[str, dict[str, LayerRecipe]] = {}
    for name in readers:  # in the order of the forward pass
        if name in rules:
            sharing.setdefault(readers[name], {})[name] = rules[name]
    gathered = {}
    for first, together in sharing.items():
        weight = weight_of(model.get_submodule(first))
        gathered[first] = LayerInputs(
            weight.shape[1],
            together.values(),
            tokens=hidden.shape[:2].numel(),
            layer=first,
            device=weight.device,
        )
    if gathered:
        observe_block(block, call, hidden, {model.get_submodule(first): one.add for first, one in gathered.items()})
    return {name: gathered[first] for first, together in sharing.items() for name in together}
