"""AWQ against an eager transcription of its two searches, and on the real inputs of a layer of SmolLM2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workbench.quantizers.awq import quantize_awq
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec

SPEC = QuantSpec(3, 32)


def rounded(weight: Tensor, bits: int, group: int) -> Tensor:
    """Asymmetric, integer zero, written down."""
    w = weight.reshape(-1, group)
    low, high = w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    return (scale * (((w / scale).round() + zero).clamp(0, 2**bits - 1) - zero)).reshape(weight.shape)


def eager_scale(weight: Tensor, inputs: Tensor) -> Tensor:
    """Every exponent, its outputs computed in full (Lin et al. 2024)."""
    best, least, exact = None, float("inf"), inputs @ weight.t()
    for ratio in [i / 20 for i in range(20)]:
        scale = inputs.abs().mean(0).pow(ratio).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = ((inputs / scale) @ rounded(weight * scale, 3, 32).t() - exact).square().mean().item()
        if error < least:
            best, least = scale, error
    return best


def eager_clip(weight: Tensor, inputs: Tensor) -> Tensor:
    """Every range of every group, its part of the outputs computed in full."""
    result = weight.clone()
    for start in range(0, weight.shape[1], 32):
        part, seen = weight[:, start : start + 32], inputs[:, start : start + 32]
        least = torch.full((len(weight),), float("inf"))
        for step in range(10):
            limit = part.abs().amax(1, keepdim=True) * (1 - step / 20)
            cut = part.clamp(-limit, limit)
            error = (seen @ rounded(cut, 3, 32).t() - seen @ part.t()).square().mean(0)
            better = error < least
            result[better, start : start + 32] = cut[better]
            least = torch.where(better, error, least)
    return result


@pytest.fixture(params=[40, 300], ids=["fewer tokens than inputs", "more tokens than inputs"])
def layer(request):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 96, generator=generator) * 0.05
    inputs = torch.randn(request.param, 96, generator=generator) * torch.logspace(-1, 1, 96)
    return weight, inputs


def test_the_scale_is_the_best_of_twenty(layer):
    weight, inputs = layer
    found = quantize_awq(weight, inputs, SPEC, clip=False)
    torch.testing.assert_close(found.transform.scale, eager_scale(weight, inputs))
    assert found.method == "awq"


def test_ranges_are_the_best_of_ten(layer):
    weight, inputs = layer
    scale = eager_scale(weight, inputs)
    expected = rounded(eager_clip(weight * scale, inputs / scale), 3, 32) / scale
    torch.testing.assert_close(quantize_awq(weight, inputs, SPEC).dequantize(), expected)


def test_it_is_never_worse_than_plain_rounding(layer):
    weight, inputs = layer

    def error(quantized) -> float:
        return float((inputs @ (quantized.dequantize() - weight).t()).square().mean())

    assert error(quantize_awq(weight, inputs, SPEC, clip=False)) < error(quantize_rtn(weight, SPEC))


def test_one_exponent_without_clip_is_plain_rounding(layer):
    weight, inputs = layer
    found = quantize_awq(weight, inputs, SPEC, grid=1, clip=False)
    assert torch.equal(found.codes, quantize_rtn(weight, SPEC).codes)


def test_real_inputs_of_a_layer_of_smollm2_are_kept_better_than_by_rounding():
    from workbench.models.pretrained import load_pretrained

    model, tokenizer = load_pretrained("smollm2-135m")
    linear = model.get_submodule("model.layers.2.mlp.gate_proj")
    seen = []
    handle = linear.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0][0]))
    # Two texts: ranges and scales are searched on one and judged on the other.
    texts = [
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
        "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light.",
        "Photosynthesis turns the energy of light into chemical energy: plants take up water through their roots and "
        "carbon dioxide through their leaves, and give off oxygen; most life on Earth depends on it.",
    ]
    with torch.no_grad():
        for text in texts:
            model(tokenizer(text, return_tensors="pt").input_ids)
    handle.remove()
    weight, spec = linear.weight.detach(), QuantSpec(3, 64)

    def error(quantized) -> float:
        return float((seen[1] @ (quantized.dequantize() - weight).t()).square().mean())

    assert error(quantize_awq(weight, seen[0], spec)) < 0.9 * error(quantize_rtn(weight, spec))


def test_inputs_that_are_all_zero_leave_plain_rounding():
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    found = quantize_awq(weight, torch.zeros(5, 32), SPEC)
    torch.testing.assert_close(found.dequantize(), rounded(weight, 3, 32))


@pytest.mark.parametrize(
    ("inputs", "spec", "options", "kind", "words"),
    [
        (torch.ones(3, 33), SPEC, {}, ValueError, r"expected \[tokens, 96\]"),
        (torch.ones(0, 96), SPEC, {}, ValueError, "no inputs were given"),
        (torch.full((3, 96), torch.inf), SPEC, {}, ValueError, "3 of 3 inputs have NaN"),
        (torch.ones(3, 96, dtype=torch.int64), SPEC, {}, TypeError, "floating tensor"),
        (torch.ones(3, 96), QuantSpec(3, 36), {}, ValueError, "cannot be divided into groups of 36"),
        (torch.ones(3, 96), QuantSpec(3, "tensor"), {}, ValueError, "clip=False"),
        (torch.ones(3, 96), QuantSpec(3, 32, clip="mse"), {}, ValueError, "clip=False"),
    ],
)
def test_bad_input_names_the_layer(inputs, spec, options, kind, words):
    weight = torch.randn(4, 96, generator=torch.Generator().manual_seed(0))
    with pytest.raises(kind, match=words) as told:
        quantize_awq(weight, inputs, spec, **options, layer="mlp.up")
    assert "mlp.up" in str(told.value)


def test_the_grid_of_exponents_has_one_at_least():
    with pytest.raises(ValueError, match="grid=0"):
        quantize_awq(torch.ones(2, 32), torch.ones(2, 32), SPEC, grid=0)
