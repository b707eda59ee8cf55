"""Grids by hand, against eager transcriptions of the reference formulas, and at their limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.quantizers.grid import fit_grid
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec


def weights(rows=16, columns=64, seed=0, heavy=False):
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return drawn.pow(3) if heavy else drawn


def reference_row(row, bits, symmetric, mse):
    """The published GPTQ code's quantizer on one group, written out for one row of numbers."""
    top = 2**bits - 1
    low, high = min(0.0, float(row.min())), max(0.0, float(row.max()))
    if symmetric:
        high = max(-low, high)
        low = -high
    if low == high == 0:
        low, high = -1.0, 1.0
    low, high = torch.tensor(low), torch.tensor(high)

    def at(low, high):
        scale = (high - low) / top
        zero = torch.tensor((top + 1) / 2) if symmetric else torch.round(-low / scale)
        codes = torch.clamp(torch.round(row / scale) + zero, 0, top)
        return scale, zero, codes

    chosen, least = at(low, high), None
    if mse:
        for step in range(80):
            part = 1 - step / 100
            scale, zero, codes = at(part * low, part * high)
            error = (scale * (codes - zero) - row).abs().pow(2.4).sum()
            if least is None or error < least:
                chosen, least = (scale, zero, codes), error
    return chosen


@pytest.mark.parametrize("mse", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_are_those_of_the_reference_on_every_group(bits, symmetric, mse):
    weight = weights(heavy=True)
    spec = QuantSpec(bits, 32, symmetric=symmetric, clip="mse" if mse else "minmax")
    quantized = quantize_rtn(weight, spec)
    values = quantized.dequantize()
    for row in range(16):
        for group in range(2):
            part = slice(32 * group, 32 * group + 32)
            scale, zero, codes = reference_row(weight[row, part], bits, symmetric, mse)
            assert torch.equal(quantized.codes[row, part].float(), codes)
            assert quantized.scales[row, group] == scale
            assert quantized.zeros[row, group] == zero
            assert torch.equal(values[row, part], scale * (codes - zero))


def test_a_float_zero_takes_the_range_as_it_is():
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    quantized = quantize_rtn(weight, QuantSpec(2, zero="float"))
    assert quantized.codes.tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(quantized.dequantize(), weight)


def test_an_integer_zero_keeps_zero_in_the_range():
    quantized = quantize_rtn(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), QuantSpec(2))
    assert quantized.scales.item() == pytest.approx(4 / 3)
    assert quantized.zeros.item() == 0


def test_halves_are_rounded_to_even():
    quantized = quantize_rtn(torch.tensor([[0.0, 0.5, 1.5, 2.5, 3.0]]), QuantSpec(2))
    assert quantized.codes.tolist() == [[0, 0, 2, 2, 3]]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "fields", [{}, {"symmetric": True}, {"zero": "float"}, {"clip": "mse"}, {"zero": "float", "clip": "mse"}]
)
def test_a_group_of_zeros_stays_zeros(bits, fields):
    weight = torch.zeros(2, 8)
    assert torch.equal(quantize_rtn(weight, QuantSpec(bits, 4, **fields)).dequantize(), weight)


def test_a_group_of_zeros_takes_the_range_from_minus_one_to_one():
    quantized = quantize_rtn(torch.zeros(1, 4), QuantSpec(4))
    assert quantized.scales.item() == pytest.approx(2 / 15)
    assert quantized.zeros.item() in (7, 8)  # 7.5 but for the rounding of 2 / 15


@pytest.mark.parametrize("value", [0.3, -7.0, 1e-6, -1e4])
@pytest.mark.parametrize("fields", [{}, {"zero": "float"}, {"zero": "float", "clip": "mse"}])
def test_a_constant_group_keeps_its_value(value, fields):
    weight = torch.full((1, 8), value)
    torch.testing.assert_close(quantize_rtn(weight, QuantSpec(3, **fields)).dequantize(), weight)


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_a_codebook_of_zeros_stays_zeros(name):
    weight = torch.zeros(2, 64)
    assert torch.equal(quantize_rtn(weight, QuantSpec(4, 32, codebook=name)).dequantize(), weight)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 8),
    group=st.sampled_from([4, 8, None, "tensor"]),
    kind=st.sampled_from(["asymmetric", "symmetric", "float"]),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
    seed=st.integers(0, 999),
)
def test_no_weight_moves_by_more_than_half_a_step(bits, group, kind, scale, shift, seed):
    weight = scale * (weights(3, 16, seed) + shift)
    spec = QuantSpec(bits, group, symmetric=kind == "symmetric", zero="float" if kind == "float" else "integer")
    grid = fit_grid(weight, spec)
    step, _ = grid.per_column(*weight.shape)
    # A rounded zero moves the whole range by up to half a step; float32 adds its own rounding of the zero.
    allowed = (0.5 if kind == "float" else 1.0) + 1e-3
    assert ((grid.round(weight) - weight).abs() <= allowed * step).all()


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from([2, 3, 4, 8]), kind=st.sampled_from(["integer", "float"]), seed=st.integers(0, 999))
def test_values_of_the_grid_are_rounded_to_themselves(bits, kind, seed):
    grid = fit_grid(weights(4, 16, seed), QuantSpec(bits, 8, zero=kind))
    once = grid.round(weights(4, 16, seed))
    torch.testing.assert_close(grid.round(once), once)


def test_more_bits_never_round_worse():
    weight = weights()
    for fields in ({}, {"symmetric": True}, {"zero": "float"}, {"clip": "mse"}):
        errors = [
            float((quantize_rtn(weight, QuantSpec(bits, 32, **fields)).dequantize() - weight).pow(2).sum())
            for bits in range(1, 9)
        ]
        assert errors == sorted(errors, reverse=True)


def test_clipping_for_the_error_is_never_worse_in_its_own_measure():
    weight = weights(heavy=True)
    for bits in (2, 3, 4):
        plain, clipped = (
            (quantize_rtn(weight, QuantSpec(bits, 32, clip=clip)).dequantize() - weight).abs().pow(2.4).sum()
            for clip in ("minmax", "mse")
        )
        assert clipped <= plain


def test_weights_that_do_not_count_do_not_widen_the_range():
    weight = torch.tensor([[0.0, 1.0, 2.0, 100.0]])
    grid = fit_grid(weight, QuantSpec(2), counted=weight < 50)
    assert grid.scale.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type_is_taken(dtype):
    weight = weights().to(dtype)
    assert quantize_rtn(weight, QuantSpec(4, 32)).codes.shape == weight.shape


def test_a_view_that_is_not_contiguous_is_rounded_like_its_copy():
    weight = weights(64, 64)
    view = weight.t()[::2]
    assert torch.equal(quantize_rtn(view, QuantSpec(4, 32)).codes, quantize_rtn(view.clone(), QuantSpec(4, 32)).codes)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_numbers_name_the_layer(bad):
    weight = weights()
    weight[3, 4] = bad
    with pytest.raises(ValueError, match=r"model.layers.3.down: 1 of 1024 weights are NaN or infinite"):
        quantize_rtn(weight, QuantSpec(4), layer="model.layers.3.down")


def test_what_is_no_floating_matrix_is_refused():
    with pytest.raises(TypeError, match=r"got torch.int64"):
        quantize_rtn(torch.ones(2, 2, dtype=torch.int64), QuantSpec(4))
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        quantize_rtn(torch.ones(4), QuantSpec(4))
    with pytest.raises(ValueError, match=r"with entries"):
        quantize_rtn(torch.ones(4, 0), QuantSpec(4))


def test_scales_that_half_precision_cannot_hold_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"lm_head: 2 groups have a scale beyond float16.*scale_dtype='float32'"):
        quantize_rtn(1e7 * weights(1, 8), QuantSpec(2, 4, scale_dtype="float16"), layer="lm_head")
    # A range of almost nothing far from zero: the real zero point is what overflows.
    narrow = 100.0 + 1e-4 * weights(1, 8)
    with pytest.raises(ValueError, match=r"a zero beyond float16"):
        quantize_rtn(narrow, QuantSpec(8, zero="float", scale_dtype="float16"))


def test_scales_that_half_precision_would_lose_do_not_divide_by_zero():
    weight = 1e-9 * weights(1, 8)
    values = quantize_rtn(weight, QuantSpec(4, scale_dtype="float16")).dequantize()
    assert torch.isfinite(values).all()
    assert (values - weight).abs().max() <= 2.0**-24


def test_codes_are_chosen_for_the_scale_as_it_is_stored():
    weight = weights(32, 64)
    quantized = quantize_rtn(weight, QuantSpec(8, 32, scale_dtype="bfloat16"))
    step = quantized.scales.repeat_interleave(32, dim=1)
    inside = (quantized.codes > 0) & (quantized.codes < 255)
    assert ((quantized.dequantize() - weight).abs() <= 0.5001 * step)[inside].all()
