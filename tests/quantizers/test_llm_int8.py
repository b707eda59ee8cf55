"""LLM.int8() against an eager transcription of bitsandbytes' mixed product, and the shapes that trip torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workbench.quantizers.llm_int8 import (
    LLMInt8Linear,
    int8_product,
    llm_int8_linear,
    outlier_columns,
    quantize_llm_int8,
    quantize_rows,
)
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor


def eager(inputs: Tensor, weight: Tensor, threshold: float) -> Tensor:
    """The mixed product written down: outliers aside, rows and outputs in parts of their largest / 127."""
    outliers = inputs.abs() >= threshold if threshold > 0 else torch.zeros_like(inputs, dtype=torch.bool)
    columns = outliers.any(0)
    kept = torch.where(outliers, 0.0, inputs)
    row, output = kept.abs().amax(1, keepdim=True), weight.abs().amax(1, keepdim=True)
    codes = (kept * (127 / row)).round().nan_to_num()
    codes[:, columns] = 0
    weight_codes = (weight * (127 / output)).round()
    product = (codes.double() @ weight_codes.double().t()) * row * output.t() / 127**2
    return (product + inputs[:, columns].double() @ (weight_codes * output / 127)[:, columns].double().t()).float()


@pytest.fixture
def layer():
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(48, 128, generator=generator) * 0.05, torch.randn(17, 128, generator=generator)
    inputs[3, 7], inputs[5, 40] = 9.0, -30.0
    inputs[:, 99] *= 8
    return weight, inputs


@pytest.mark.parametrize("threshold", [0.0, 2.0, 6.0, 1000.0])
def test_it_agrees_with_the_mixed_product_written_down(layer, threshold):
    weight, inputs = layer
    got = llm_int8_linear(inputs, weight, threshold=threshold)
    torch.testing.assert_close(got, eager(inputs, weight, threshold), rtol=1e-5, atol=1e-5)


def test_setting_outliers_aside_is_what_keeps_the_result(layer):
    weight, inputs = layer
    exact = inputs @ weight.t()

    def error(threshold: float) -> float:
        return float((llm_int8_linear(inputs, weight, threshold=threshold) - exact).norm() / exact.norm())

    assert error(6.0) < error(0.0) / 2
    assert error(1e-6) < error(6.0)  # everything is an outlier: only the weight is rounded


def test_with_every_column_an_outlier_it_is_the_product_with_the_rounded_weight(layer):
    weight, inputs = layer
    exact = inputs @ quantize_llm_int8(weight).dequantize().t()
    torch.testing.assert_close(llm_int8_linear(inputs, weight, threshold=1e-9), exact)


def test_columns_are_found_by_any_of_their_entries(layer):
    _, inputs = layer
    assert {7, 40, 99} <= set(outlier_columns(inputs).nonzero()[:, 0].tolist())
    assert not outlier_columns(inputs, threshold=0).any()


def test_only_outliers_themselves_are_left_out_of_a_row_s_largest_magnitude():
    inputs = torch.tensor([[1.0, 5.0, 0.5], [9.0, 9.0, 2.0]])  # columns 0 and 1 hold outliers
    codes, largest = quantize_rows(inputs, threshold=6.0)
    assert largest[:, 0].tolist() == [5.0, 2.0]  # the paper's rule would give 0.5 and 2
    assert codes.tolist() == [[0, 0, 13], [0, 0, 127]]


def test_codes_of_the_weight_mirror_each_other(layer):
    weight, _ = layer
    codes, mirrored = quantize_llm_int8(weight).codes.int() - 128, quantize_llm_int8(-weight).codes.int() - 128
    assert torch.equal(codes, -mirrored)
    assert codes.abs().amax(1).tolist() == [127] * 48


@given(rows=st.integers(0, 5), columns=st.integers(1, 9), outputs=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_integer_product_is_exact_for_any_shape(rows, columns, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8)
    second = torch.randint(-128, 128, (outputs, columns), generator=generator, dtype=torch.int8)
    expected = first.long() @ second.long().t()
    assert torch.equal(int8_product(first, second).long(), expected)
    wide = torch.cat([first, first], 1)[:, ::2]  # no contiguous rows
    halves = torch.cat([second, second], 1)[:, ::2]
    assert torch.equal(int8_product(wide, halves).long(), wide.long() @ halves.long().t())


def test_sums_of_the_largest_codes_do_not_overflow():
    codes = torch.full((2, 4096), -128, dtype=torch.int8)
    assert int8_product(codes, codes).tolist() == [[128 * 128 * 4096] * 2] * 2


@pytest.mark.parametrize("shape", [(0, 128), (1, 128), (2, 3, 128), (128,), (2, 0, 128)])
def test_any_leading_axes_and_no_rows(layer, shape):
    weight, _ = layer
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    got = llm_int8_linear(inputs, weight)
    assert got.shape == (*shape[:-1], 48)
    torch.testing.assert_close(got.reshape(-1, 48), eager(inputs.reshape(-1, 128), weight, 6.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_computed_in_float32(layer, dtype):
    weight, inputs = layer
    got = llm_int8_linear(inputs.to(dtype), weight)
    assert got.dtype == dtype
    assert torch.equal(got, llm_int8_linear(inputs.to(dtype).float(), weight).to(dtype))


def test_the_largest_number_of_float16_does_not_overflow():
    inputs = torch.full((1, 4), 65504.0, dtype=torch.float16)
    weight = torch.tensor([[0.5, -0.5, 0.5, -0.25]])
    for threshold in (0.0, 6.0):
        got = llm_int8_linear(inputs, weight, threshold=threshold).item()
        assert got == pytest.approx(65504 * 0.25, rel=0.02)


def test_a_row_of_zeros_and_a_weight_of_zeros_give_zeros():
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    inputs = torch.cat([torch.zeros(1, 8), torch.ones(1, 8)])
    got = llm_int8_linear(inputs, weight)
    assert got[0].tolist() == [0, 0, 0]
    assert got[1, 1] == 0
    assert torch.equal(quantize_llm_int8(weight).dequantize()[1], torch.zeros(8))


def test_a_nan_stays_in_its_row(layer):
    weight, inputs = layer
    inputs[2, 0] = torch.nan
    got = llm_int8_linear(inputs, weight)
    assert bool(got[2].isnan().all())
    torch.testing.assert_close(got[3:], eager(inputs, weight, 6.0)[3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_module_computes_the_same_and_keeps_a_byte_per_weight(layer, bias):
    _, inputs = layer
    torch.manual_seed(0)
    linear = nn.Linear(128, 48, bias=bias)
    module = LLMInt8Linear.from_linear(linear, threshold=4.0)
    expected = llm_int8_linear(inputs, linear.weight.detach(), threshold=4.0, bias=linear.bias)
    torch.testing.assert_close(module(inputs), expected)
    stored = module.quantized
    assert stored.nbytes == 48 * 128 + 48 * 4
    assert torch.equal(stored.codes, quantize_llm_int8(linear.weight).codes)
    assert torch.equal(stored.dequantize(), quantize_llm_int8(linear.weight).dequantize())
    assert "threshold=4" in repr(module)


def test_the_module_takes_the_symmetric_grid_of_plain_rounding_too(layer):
    weight, inputs = layer
    quantized = quantize_rtn(weight, QuantSpec(8, symmetric=True))
    module = LLMInt8Linear(quantized, threshold=1e-9)
    torch.testing.assert_close(module(inputs), inputs @ quantized.dequantize().t())
    again = QuantizedTensor.restore(module.quantized.description(), module.quantized.tensors())
    assert torch.equal(again.dequantize(), quantized.dequantize())


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda w, x: llm_int8_linear(x, w, threshold=-1.0), ValueError, "threshold=-1"),
        (lambda w, x: llm_int8_linear(x, w, threshold=float("nan")), ValueError, "threshold=nan"),
        (lambda w, x: llm_int8_linear(x[:, :5], w, layer="q"), ValueError, "q: .*128 inputs"),
        (lambda w, x: llm_int8_linear(x.int(), w, layer="q"), TypeError, "q: expected a floating tensor"),
        (lambda w, x: llm_int8_linear(x, w / 0, layer="q"), ValueError, "q: .*NaN or infinite"),
        (lambda w, x: quantize_llm_int8(w, QuantSpec(4), layer="q"), ValueError, "q: LLM.int8"),
        (lambda w, x: LLMInt8Linear(quantize_rtn(w, QuantSpec(8, 32, symmetric=True))), ValueError, "one scale per"),
        (lambda w, x: LLMInt8Linear(quantize_rtn(w, QuantSpec(4))), ValueError, "8 bits, symmetric"),
    ],
)
def test_bad_input_is_told(layer, make, kind, words):
    with pytest.raises(kind, match=words):
        make(*layer)
