"""From a recipe to codes: every method called with what it needs, layers that share inputs together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from workbench.quantizers.awq import quantize_awq
from workbench.quantizers.gptq import quantize_gptq_together
from workbench.quantizers.hadamard import Hadamard
from workbench.quantizers.hqq import quantize_hqq
from workbench.quantizers.layer_inputs import LayerInputs
from workbench.quantizers.llm_int8 import quantize_llm_int8
from workbench.quantizers.recipes import LayerRecipe
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.smoothquant import quantize_smoothquant
from workbench.quantizers.spqr import quantize_spqr
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputTransform

ROTATION_SEED = 0


def quantize_layers(
    weights: Mapping[str, Tensor], rules: Mapping[str, LayerRecipe], inputs: Mapping[str, LayerInputs] | None
) -> dict[str, QuantizedTensor]:
    """Quantise ``weights [out, in]`` by their rules; layers of one GPTQ rule that share inputs go in one sweep.

    Args:
        inputs: by layer, for those whose method looks at inputs; equal objects mean shared inputs.

    Raises:
        ValueError: as the methods do, with the layer's name.
    """
    done: dict[str, QuantizedTensor] = {}
    for name, rule in rules.items():
        if name in done:
            continue
        if rule.method == "gptq":
            together = [
                other for other in rules if rules[other] == rule and inputs[other] is inputs[name] and other not in done
            ]
            done |= _gptq({other: weights[other] for other in together}, rule, inputs[name])
        else:
            done[name] = _one(name, weights[name], rule, None if inputs is None else inputs.get(name))
    return {name: done[name] for name in rules}


def _gptq(weights: Mapping[str, Tensor], rule: LayerRecipe, inputs: LayerInputs) -> dict[str, QuantizedTensor]:
    transform = _rotation(rule, next(iter(weights.values())))
    hessian = inputs.hessian.hessian
    if transform is not None:
        hessian = transform.apply_to_hessian(hessian)
    turned = [_turned(weight, transform) for weight in weights.values()]
    found = quantize_gptq_together(turned, hessian, rule.spec, **rule.options, layer=list(weights))
    return {name: _with(tensor, transform) for name, tensor in zip(weights, found, strict=True)}


def _one(name: str, weight: Tensor, rule: LayerRecipe, inputs: LayerInputs | None) -> QuantizedTensor:
    spec, options = rule.spec, rule.options
    transform = _rotation(rule, weight)
    weight = _turned(weight, transform)
    if rule.method == "hqq":
        found = quantize_hqq(weight, spec, **options, layer=name)
    elif rule.method == "spqr":
        hessian = inputs.hessian.hessian
        if transform is not None:
            hessian = transform.apply_to_hessian(hessian)
        found = quantize_spqr(weight, hessian, spec, **options, layer=name)
    elif rule.method == "awq":
        found = quantize_awq(weight, inputs.samples, spec, **options, layer=name)
    elif rule.method == "smoothquant":
        found = quantize_smoothquant(weight, inputs.absmax, spec, **options, layer=name)
    elif rule.method == "llm_int8":
        found = quantize_llm_int8(weight, spec, layer=name)  # its threshold counts when the layer runs
    else:
        found = quantize_rtn(weight, spec, layer=name)
    return _with(found, transform)


def _rotation(rule: LayerRecipe, weight: Tensor) -> Hadamard | None:
    return Hadamard(weight.shape[1], ROTATION_SEED) if rule.rotate else None


def _turned(weight: Tensor, transform: InputTransform | None) -> Tensor:
    weight = weight.float().contiguous()
    return weight if transform is None else transform.apply_to_weight(weight)


def _with(quantized: QuantizedTensor, transform: InputTransform | None) -> QuantizedTensor:
    return quantized if transform is None else replace(quantized, transform=transform)
