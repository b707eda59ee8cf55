"""SmoothQuant against its formula, and what it is for: products in 8 bits with inputs that have outlier channels."""

from __future__ import annotations

import pytest
import torch

from workbench.quantizers.llm_int8 import llm_int8_linear
from workbench.quantizers.smoothquant import quantize_smoothquant, smoothquant_scales
from workbench.quantizers.spec import QuantSpec


@pytest.fixture
def layer():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator) * 0.05
    inputs = torch.randn(100, 64, generator=generator)
    inputs[:, 5] *= 60
    return weight, inputs, inputs.abs().amax(0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_a_scale_is_what_the_formula_says(layer, alpha):
    weight, _, largest = layer
    expected = largest**alpha / weight.abs().amax(0) ** (1 - alpha)
    torch.testing.assert_close(smoothquant_scales(largest, weight, alpha=alpha), expected)


def test_at_one_half_inputs_and_weights_have_equal_ranges_afterwards(layer):
    weight, inputs, largest = layer
    scale = smoothquant_scales(largest, weight)
    torch.testing.assert_close((inputs / scale).abs().amax(0), (weight * scale).abs().amax(0))


def test_weights_of_the_same_inputs_get_one_scale_from_their_largest(layer):
    weight, _, largest = layer
    parts = [weight[:16], weight[16:20], weight[20:]]
    assert torch.equal(smoothquant_scales(largest, parts), smoothquant_scales(largest, weight))
    alone = quantize_smoothquant(parts[1], largest, scales=smoothquant_scales(largest, parts))
    assert torch.equal(alone.codes, quantize_smoothquant(weight, largest).codes[16:20])


def test_the_value_of_the_codes_is_the_weight_in_its_own_basis(layer):
    weight, _, largest = layer
    quantized = quantize_smoothquant(weight, largest)
    assert quantized.method == "smoothquant"
    assert quantized.spec == QuantSpec(8, symmetric=True)
    step = quantized.scales / smoothquant_scales(largest, weight)
    assert bool(((quantized.dequantize() - weight).abs() <= step / 2 * 1.001 + 1e-9).all())


def test_products_of_8_bits_lose_less_after_smoothing(layer):
    weight, inputs, largest = layer
    scale = smoothquant_scales(largest, weight)
    exact = inputs @ weight.t()
    plain = llm_int8_linear(inputs, weight, threshold=0)
    smooth = llm_int8_linear(inputs / scale, weight * scale, threshold=0)
    assert (smooth - exact).norm() < (plain - exact).norm() / 3


def test_an_input_that_never_came_is_left_alone(layer):
    weight, _, largest = layer
    largest[3] = 0
    weight[:, 9] = 0
    scale = smoothquant_scales(largest, weight)
    assert scale[3] == 1
    assert bool(torch.isfinite(scale).all())
    assert bool((scale > 0).all())


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda w, a: (w, a[:-1]), ValueError, r"mlp.up: input_absmax has shape \(63,\), expected \(64,\)"),
        (lambda w, a: (w, -a), ValueError, "calibration"),
        (lambda w, a: (w, a * float("nan")), ValueError, "calibration"),
        (lambda w, a: (w, a.int()), TypeError, "floating vector"),
        (lambda w, a: (w * float("inf"), a), ValueError, "NaN or infinite"),
    ],
)
def test_bad_input_names_the_layer(layer, change, kind, words):
    weight, _, largest = layer
    with pytest.raises(kind, match=words) as told:
        quantize_smoothquant(*change(weight, largest), layer="mlp.up")
    assert "mlp.up" in str(told.value)


def test_alpha_lies_from_0_to_1(layer):
    weight, _, largest = layer
    with pytest.raises(ValueError, match="alpha"):
        smoothquant_scales(largest, weight, alpha=1.5)
