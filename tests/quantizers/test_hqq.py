"""HQQ against an eager transcription of its steps, in both groupings, and at its limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workbench.quantizers.hqq import quantize_hqq
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor


def eager(weight: Tensor, bits: int, group: int, axis: int, *, kappa: float, iterations: int = 20) -> Tensor:
    """Badri & Shaji's half-quadratic solver written down step by step, with p = 0.7 and beta = 10."""
    w = weight.reshape(-1, group) if axis == 1 else weight.reshape(group, -1)
    top, beta, p = 2**bits - 1, 10.0, 0.7
    low, high = w.amin(axis, keepdim=True), w.amax(axis, keepdim=True)
    levels = torch.where(high - low <= 1e-4, 1.0, top / (high - low)).clamp(max=2e4)
    zero = -low * levels
    if bits == 4:
        zero = zero.round()
    best = math.inf
    for _ in range(iterations):
        q = (w * levels + zero).round().clamp(0, top)
        back = (q - zero) / levels
        error = w - back
        e = error.sign() * torch.relu(error.abs() - error.abs().pow(p - 1) / beta)
        zero = (q - (w - e) * levels).mean(axis, keepdim=True)
        now = error.abs().mean().item()
        if now >= best:
            break
        best = now
        beta *= kappa
    q = (w * levels + zero).round().clamp(0, top)
    return ((q - zero) * (1 / levels)).reshape(weight.shape)


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(64, 128, generator=generator) * 0.02
    wide = torch.randn(64, 128, generator=generator)
    outliers = torch.randn(64, 128, generator=generator) * 0.05
    outliers[3] *= 20
    outliers[:, 5] *= 20
    return {"ordinary": ordinary, "wide": wide, "with outliers": outliers}


@pytest.mark.parametrize("name", weights())
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kappa", [1.0, 1.01])
def test_it_agrees_with_the_steps_written_down(name, axis, bits, kappa):
    weight = weights()[name]
    got = quantize_hqq(weight, QuantSpec(bits, 32, zero="float"), axis=axis, kappa=kappa)
    torch.testing.assert_close(got.dequantize(), eager(weight, bits, 32, axis, kappa=kappa), rtol=0, atol=1e-5)


def test_the_growth_of_beta_does_not_matter_for_weights_of_ordinary_size():
    weight = weights()["ordinary"]
    spec = QuantSpec(2, 32, zero="float")
    assert torch.equal(quantize_hqq(weight, spec).codes, quantize_hqq(weight, spec, kappa=1).codes)


@pytest.mark.parametrize("axis", [0, 1])
def test_without_steps_it_is_the_min_max_grid(axis):
    weight = weights()["ordinary"]
    got = quantize_hqq(weight, QuantSpec(3, 32, zero="float"), axis=axis, iterations=0).dequantize()
    grouped, back = (x.reshape(-1, 32) if axis == 1 else x.reshape(32, -1) for x in (weight, got))
    torch.testing.assert_close(back.amin(axis), grouped.amin(axis))
    torch.testing.assert_close(back.amax(axis), grouped.amax(axis))


def test_at_2_bits_the_steps_lower_the_sparse_error():
    weight = weights()["with outliers"]
    spec = QuantSpec(2, 64, zero="float")

    def error(quantized: QuantizedTensor) -> float:
        return float((quantized.dequantize() - weight).abs().pow(0.7).mean())

    assert error(quantize_hqq(weight, spec)) < 0.9 * error(quantize_hqq(weight, spec, iterations=0))


def test_a_group_of_axis_0_is_every_so_manieth_output_of_one_input():
    weight = weights()["ordinary"][:8, :3].contiguous()
    moved = weight.clone()
    moved[1, 2] += 1.0  # groups of 4 among 8 outputs: 1 is with 3, 5 and 7
    spec = QuantSpec(2, 4, zero="float")
    # Without steps: their early stop looks at the mean error of all groups together.
    changed = (
        quantize_hqq(weight, spec, axis=0, iterations=0).dequantize()
        != quantize_hqq(moved, spec, axis=0, iterations=0).dequantize()
    )
    assert {tuple(place) for place in changed.nonzero().tolist()} <= {(1, 2), (3, 2), (5, 2), (7, 2)}
    assert changed[1, 2]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("group", [32, None])
def test_it_is_really_packed_and_restored(axis, group):
    weight = weights()["ordinary"]
    got = quantize_hqq(weight, QuantSpec(3, group, zero="float", scale_dtype="float16"), axis=axis)
    length = group or weight.shape[1 if axis == 1 else 0]
    assert got.nbytes == weight.numel() * 3 // 8 + weight.numel() // length * 4
    again = QuantizedTensor.restore(got.description(), got.tensors())
    assert torch.equal(again.dequantize(), got.dequantize())
    assert torch.equal(got.dequantize_rows(5, 9), got.dequantize()[5:9])
    assert got.codes.shape == weight.shape


def test_whatever_zero_was_asked_for_it_is_a_real_one():
    weight = weights()["ordinary"]
    asked, given = quantize_hqq(weight, QuantSpec(2, 32)), quantize_hqq(weight, QuantSpec(2, 32, zero="float"))
    assert asked.spec == given.spec
    assert asked.spec.zero == "float"
    assert torch.equal(asked.dequantize(), given.dequantize())


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0])
def test_a_constant_group_comes_back_exactly(value):
    weight = torch.full((4, 32), value)
    torch.testing.assert_close(quantize_hqq(weight, QuantSpec(4, 32), round_zero=False).dequantize(), weight)
    assert bool(torch.isfinite(quantize_hqq(weight, QuantSpec(4, 32)).dequantize()).all())


def test_codes_belong_to_scales_as_half_precision_keeps_them():
    weight = weights()["wide"]
    got = quantize_hqq(weight, QuantSpec(8, 32, zero="float", scale_dtype="float16"))
    inside = (got.codes > 0) & (got.codes < 255)
    error = (got.dequantize() - weight).abs().unflatten(1, (-1, 32))
    half_a_step = got.scales[..., None] / 2 * 1.001
    assert bool((error <= half_a_step)[inside.unflatten(1, (-1, 32))].all())


@pytest.mark.parametrize(
    ("spec", "options", "kind", "words"),
    [
        (QuantSpec(4, 32, symmetric=True), {}, ValueError, "moves the zeros"),
        (QuantSpec(4, 32, codebook="nf4"), {}, ValueError, "moves the zeros"),
        (QuantSpec(4, 48), {}, ValueError, "layer.7: 128 inputs cannot be divided into groups of 48"),
        (QuantSpec(4, 48), {"axis": 0}, ValueError, "layer.7: 64 outputs cannot be divided into groups of 48"),
        (QuantSpec(4, 32), {"axis": 2}, ValueError, "axis=2"),
        (QuantSpec(4, 32), {"p": 0.0}, ValueError, "p=0"),
        (QuantSpec(4, 32), {"p": 1.5}, ValueError, "p=1.5"),
        (QuantSpec(4, 32), {"beta": -1.0}, ValueError, "beta"),
        (QuantSpec(4, 32), {"kappa": 0.5}, ValueError, "kappa"),
        (QuantSpec(4, 32), {"iterations": -1}, ValueError, "iterations"),
    ],
)
def test_bad_arguments_are_told(spec, options, kind, words):
    with pytest.raises(kind, match=words):
        quantize_hqq(weights()["ordinary"], spec, **options, layer="layer.7")


def test_bad_weights_name_the_layer():
    weight = weights()["ordinary"]
    weight[1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"layer.7: 1 of 8192 weights are NaN"):
        quantize_hqq(weight, QuantSpec(4, 32), layer="layer.7")
    with pytest.raises(ValueError, match=r"layer.7: .* zero beyond float16.*float32"):
        quantize_hqq(torch.full((2, 32), 1e6), QuantSpec(4, 32, scale_dtype="float16"), layer="layer.7")
