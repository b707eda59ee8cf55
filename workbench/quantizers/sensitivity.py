"""What each layer costs when only it is quantised: measured, or estimated for all bits at once from gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.errors import check_choice, check_positive
from workbench.models.next_token import logits_of
from workbench.progress import progress
from workbench.quantizers.layer_choice import (
    BITS,
    FLOAT,
    Prediction,
    as_recipe,
    cheapest_recipe,
    predict_added_nats,
    rule_of,
)
from workbench.quantizers.layer_methods import quantize_layers
from workbench.quantizers.model_walk import plan_model, weight_of
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.taylor import taylor_rows
from workbench.quantizers.tensor import QuantizedTensor

__all__ = [
    "BITS", "FLOAT", "MEASURES", "Prediction", "added_nats_of", "as_recipe", "cheapest_recipe", "layer_sensitivity",
    "predict_added_nats",
]  # fmt: skip
MEASURES = ("loss", "fisher", "taylor", "output")
ORDERS = {"fisher": (2,), "taylor": (1, 2), "output": ()}  # terms of the series, one backward pass each
COLUMNS = [
    "layer", "bits", "group", "method", "measure", "added_nats", "standard_error", "output_error", "bytes",
    "bits_per_weight", "window_nats",
]  # fmt: skip


def layer_sensitivity(
    model: nn.Module,
    tokens: Tensor,
    recipes: Sequence[int | QuantSpec | LayerRecipe] = BITS,
    *,
    measure: str = "fisher",
    layers: Sequence[str] | None = None,
    calibration: Tensor | None = None,
    batch_tokens: int = 512,
    seed: int = 0,
    label: str = "sensitivity",
) -> pd.DataFrame:
    r"""How much the loss on ``tokens`` rises when one layer alone is quantised, for every layer of every block.

    ``loss`` quantises one layer at a time and measures: exact for this text, one pass of the whole model for each
    layer and recipe. The others read every window once, for all layers and recipes together. With the error of a
    layer's output :math:`e_t = (\hat W - W) x_t`:

    ``fisher`` is the mean over positions of :math:`(\tilde g_t \cdot e_t)^2 / 2`, with gradients of the
    loss with respect to that output for next tokens that the model draws itself: the Gauss-Newton matrix of the layer,
    which is the expected Fisher matrix (Martens 2020), without cross terms between positions. One backward pass. It is
    what is to be expected on text that the model fits, and varies little from window to window: choose bits by it.
    Where a layer reads huge inputs at a few tokens the series ends too early and overrates it by far (SmolLM2-135M,
    ``model.layers.11.mlp.down_proj``): a standard error of half the estimate is the mark of it. Measure such a layer,
    and measure the recipe (:func:`added_nats_of`) before it is believed.

    ``taylor`` adds the mean of :math:`g_t \cdot e_t`, the first order, with gradients for the text's own next tokens:
    two backward passes. It follows the loss on this very text closely, chance included, and so do choices made by it.

    ``output`` is the error of a layer's output in parts of it (of norms) and tells no nats: it compares recipes of one
    layer, not layers.

    Args:
        model: a causal language model; it is neither changed nor copied.
        tokens: ids ``[windows, time + 1]`` that the loss is taken on; two windows or more give a standard error.
        recipes: bits (rounded to nearest as ``Recipe.of("rtn", bits)``), grids, or rules with a method.
        layers: names of the layers wanted; None, all.
        calibration: ids ``[sequences, time]`` for methods that look at inputs.
        batch_tokens: positions in one pass; all measures but ``loss`` quantise every layer again for each batch.
        seed: of the tokens that the model draws.

    Returns:
        A row per layer and recipe, and one that leaves the layer as it is (method ``float``): ``layer, bits, group``
        (inputs that share a scale, 0 for none), ``method, measure, added_nats`` (per token), ``standard_error`` (over
        windows, NaN for one), ``output_error``, ``bytes, bits_per_weight`` (everything stored), ``window_nats`` (what
        the mean is of, so that a sum over layers has an error of its own).

    Raises:
        ValueError, TypeError, UnknownName: tokens or recipes that cannot work, each naming the remedy.
    """
    check_choice("measure", measure, MEASURES)
    check_positive(batch_tokens=batch_tokens)
    rules = [rule_of(recipe) for recipe in recipes]
    if not rules:
        raise ValueError("recipes is empty: give bits such as (2, 3, 4, 8), QuantSpecs or LayerRecipes.")
    for rule in rules:
        if rule.method == "llm_int8":
            raise ValueError("llm_int8 errs in the activations, not in the weight: measure it with added_nats_of.")
    plans = [plan_model(model, Recipe(rule)).layers for rule in rules]
    names = list(plans[0])
    for name in layers or ():
        check_choice("layers", name, names)
    names = names if layers is None else [name for name in names if name in set(layers)]
    windows = _checked(model, tokens)
    batch = max(1, batch_tokens // (windows.shape[1] - 1))
    made = _makers(model, rules, plans, names, calibration)
    twin = _twin(model)
    if measure == "loss":
        rows = _measured(twin, windows, names, made, batch, label)
    else:
        rows = taylor_rows(twin, windows, names, made, batch=batch, seed=seed, orders=ORDERS[measure], label=label)
    rows += [_untouched(name, weight_of(model.get_submodule(name)), len(windows)) for name in names]
    table = pd.DataFrame(rows).assign(measure=measure)
    table["place"] = table["layer"].map({name: place for place, name in enumerate(names)})
    return table.sort_values(["place", "bits"], kind="stable", ignore_index=True)[COLUMNS]


def added_nats_of(
    model: nn.Module, tokens: Tensor, recipe: Recipe, *, calibration: Tensor | None = None, batch_tokens: int = 512,
    label: str = "measuring the recipe",
) -> Prediction:  # fmt: skip
    """Nats per token that ``recipe`` really adds on ``tokens [windows, time + 1]``, with its error over windows.

    The model is quantised as ``recipe`` says, kernels included, beside the float one, which stays as it is.

    Raises:
        ValueError, TypeError: tokens that cannot work, or a recipe that does not fit the model.
    """
    from workbench.quantizers.model import quantize_model, quantized_layers

    windows = _checked(model, tokens)
    batch = max(1, batch_tokens // (windows.shape[1] - 1))
    before = window_nats(model, windows, batch=batch)
    quantised = quantize_model(model, recipe, calibration=calibration, in_place=False, label=label)
    difference = window_nats(quantised, windows, batch=batch, label=label) - before
    stored = quantized_layers(quantised)
    rest = sum(_bytes(weight_of(model.get_submodule(name))) for name in _layers_of(model) if name not in stored)
    held = sum(stored[name].nbytes for name in _layers_of(model) if name in stored)
    return Prediction(*mean_and_error(difference), bytes=held + rest)


@torch.no_grad()
def window_nats(model: nn.Module, tokens: Tensor, *, batch: int, label: str | None = None) -> Tensor:
    """Mean cross-entropy of every window of ``tokens [windows, time + 1]`` in nats per token, float64 ``[windows]``."""
    training = model.training
    model.eval()
    parts = tokens.split(batch)
    found = []
    for part in parts if label is None else progress(parts, label=label):
        logits = logits_of(model, part[:, :-1]).float()
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
        found.append(losses.view(len(part), -1).double().mean(1))
    model.train(training)
    return torch.cat(found)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over windows and its standard error, NaN for one window."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else float("nan")
    return float(values.mean()), error


def _makers(
    model: nn.Module,
    rules: list[LayerRecipe],
    plans: list[dict[str, LayerRecipe]],
    names: list[str],
    calibration: Tensor | None,
) -> list[Callable[[str], QuantizedTensor]]:
    """For each rule, what gives the quantised weight of a layer: made when asked for, or by one calibrated pass."""

    def at_once(plan: dict[str, LayerRecipe]) -> Callable[[str], QuantizedTensor]:
        return lambda name: quantize_layers({name: weight_of(model.get_submodule(name))}, {name: plan[name]}, None)[
            name
        ]

    def calibrated(rule: LayerRecipe) -> Callable[[str], QuantizedTensor]:
        from workbench.quantizers.model import quantize_model, quantized_layers

        # Unwanted layers stay as they are, which also is what the inputs of the wanted ones come from.
        only = Recipe(None, dict.fromkeys(names, rule), kernel="blocked")
        found = quantized_layers(quantize_model(model, only, calibration=calibration, in_place=False))
        return found.__getitem__

    return [calibrated(rule) if rule.calibrated else at_once(plan) for rule, plan in zip(rules, plans, strict=True)]


def _measured(
    twin: nn.Module,
    windows: Tensor,
    names: list[str],
    made: list[Callable[[str], QuantizedTensor]],
    batch: int,
    label: str,
) -> list[dict[str, Any]]:
    before = window_nats(twin, windows, batch=batch)
    rows = []
    for name in progress(names, label=label):
        module = twin.get_submodule(name)
        kept = module.weight
        for make in made:
            quantised = make(name)
            weight = quantised.dequantize(dtype=kept.dtype)
            weight = weight if isinstance(module, nn.Linear) else weight.t().contiguous()
            module.weight = nn.Parameter(weight, requires_grad=False)
            rows.append(describe(name, quantised) | told(window_nats(twin, windows, batch=batch) - before))
        module.weight = kept
    return [row | {"output_error": math.nan} for row in rows]


def describe(name: str, quantised: QuantizedTensor) -> dict[str, Any]:
    """What a row tells of how a layer is stored."""
    spec = quantised.spec
    return {
        "layer": name, "bits": spec.bits, "group": spec.group_length(quantised.shape[1]), "method": quantised.method,
        "bytes": quantised.nbytes, "bits_per_weight": quantised.bits_per_weight,
    }  # fmt: skip


def told(added: Tensor | None) -> dict[str, Any]:
    """The columns about nats of what was added in each window; NaN where none were looked at."""
    if added is None:
        return {"added_nats": math.nan, "standard_error": math.nan, "window_nats": []}
    mean, error = mean_and_error(added)
    return {"added_nats": mean, "standard_error": error, "window_nats": added.tolist()}


def _untouched(name: str, weight: Tensor, windows: int) -> dict[str, Any]:
    bits = 8 * weight.element_size()
    return {
        "layer": name, "bits": bits, "group": 0, "method": FLOAT, "bytes": _bytes(weight), "bits_per_weight": bits,
        "added_nats": 0.0, "standard_error": 0.0, "output_error": 0.0, "window_nats": [0.0] * windows,
    }  # fmt: skip


def _layers_of(model: nn.Module) -> list[str]:
    return list(plan_model(model, Recipe(rule_of(8))).layers)


def _bytes(weight: Tensor) -> int:
    return weight.numel() * weight.element_size()


def _twin(model: nn.Module) -> nn.Module:
    """Modules of their own over the same weights, which need no gradient: the caller's model is left alone."""
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared).eval()


def _checked(model: nn.Module, tokens: Tensor) -> Tensor:
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.dtype.is_floating_point:
        raise TypeError("tokens must be ids [windows, time + 1], a tensor of integers.")
    if not len(tokens) or tokens.shape[1] < 2:
        raise ValueError(f"tokens {tuple(tokens.shape)} hold no next token: give at least one window of two.")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary:
        raise ValueError(f"tokens reach {int(tokens.max())}, the model knows 0 to {vocabulary - 1}: use its tokenizer.")
    return tokens.to(model.get_input_embeddings().weight.device, torch.int64)
