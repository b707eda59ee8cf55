"""SpQR against its authors' column loop, its storage, and what outliers do and cost."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quantizers.layer_problems import layer, output_error, share
from workbench.bench.quantizer_parts.spqr_reference import leave_one_out_gain, reference_spqr
from workbench.quantizers.gptq import quantize_gptq
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.spqr import quantize_spqr
from workbench.quantizers.spqr_scales import fit_without_outliers, gain_of_leaving_out, two_levels
from workbench.quantizers.tables import BilevelTable
from workbench.quantizers.tensor import QuantizedTensor

SPEC = QuantSpec(3, 16, zero="float")


def outliers_of(found):
    return torch.zeros(found.shape, dtype=torch.bool) if found.outliers is None else found.outliers.mask()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(
    "how",
    [{}, {"act_order": True}, {"outlier_threshold": math.inf}, {"scale_bits": None}, {"outlier_threshold": 0.02},
     {"damping": 0.01}],
    ids=str,
)  # fmt: skip
def test_codes_and_outliers_are_those_of_the_reference(bits, how):
    weight, hessian = layer(96, 256)
    expected = reference_spqr(weight, hessian, bits=bits, **how)
    found = quantize_spqr(weight, hessian, QuantSpec(bits, 16, zero="float"), **how)
    assert share(found.codes, expected.codes) >= 0.99
    assert share(outliers_of(found), expected.outliers) >= 0.99
    assert output_error(weight, found.dequantize(), hessian) == pytest.approx(
        output_error(weight, expected.rounded, hessian), rel=0.01
    )


def test_statistics_in_float16_are_those_of_the_reference_with_the_paper_s_storage():
    weight, hessian = layer(96, 256, seed=2)
    expected = reference_spqr(weight, hessian, bits=3, half_statistics=True)
    found = quantize_spqr(weight, hessian, QuantSpec(3, 16, zero="float", scale_dtype="float16"))
    assert share(found.codes, expected.codes) >= 0.99
    assert share(outliers_of(found), expected.outliers) >= 0.99


@pytest.mark.parametrize("group_size", [None, 8, 64, 256])
def test_any_group_size_gives_the_codes_of_the_reference(group_size):
    weight, hessian = layer(32, 256, seed=4)
    expected = reference_spqr(weight, hessian, bits=3, group_size=group_size or 256)
    found = quantize_spqr(weight, hessian, QuantSpec(3, group_size, zero="float"))
    assert share(found.codes, expected.codes) >= 0.99


def test_bits_per_weight_are_those_of_the_paper_s_count_and_measured():
    weight, hessian = layer(64, 256)
    spec = QuantSpec(3, 16, zero="float", scale_dtype="float16")
    bare = quantize_spqr(weight, hessian, spec, outlier_threshold=math.inf)
    assert bare.outliers is None
    assert bare.bits_per_weight == 3 + 2 * 3 / 16 + 2 * 2 * 16 / (16 * 16)
    kept = quantize_spqr(weight, hessian, spec)
    # 16 bits of value and 16 of place for each outlier, besides the 65 pointers to where rows begin.
    assert 8 * (kept.nbytes - bare.nbytes) == 32 * kept.outliers.count + 32 * 65
    assert kept.nbytes == sum(part.numel() * part.element_size() for part in kept.tensors().values())


def test_fewer_outliers_are_kept_the_higher_the_threshold():
    weight, hessian = layer(64, 256)
    counts = [
        int(outliers_of(quantize_spqr(weight, hessian, SPEC, outlier_threshold=one)).sum())
        for one in (0.05, 0.2, 1.0, 5.0, math.inf)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 0


def test_outliers_rescue_two_bits():
    weight, hessian = layer(96, 256)
    spec = QuantSpec(2, 16, zero="float")
    kept, bare = (quantize_spqr(weight, hessian, spec, outlier_threshold=one) for one in (0.2, math.inf))
    assert output_error(weight, kept.dequantize(), hessian) < 0.5 * output_error(weight, bare.dequantize(), hessian)
    assert kept.bits_per_weight > bare.bits_per_weight


def test_an_outlier_keeps_its_weight_where_no_error_reaches_it():
    weight, _ = layer(32, 64)
    weight[3, 17] = 1.0
    found = quantize_spqr(weight, torch.eye(64), SPEC)
    assert outliers_of(found)[3, 17]
    torch.testing.assert_close(found.dequantize()[outliers_of(found)], weight[outliers_of(found)], rtol=1e-3, atol=1e-5)


def test_without_outliers_and_with_plain_scales_independent_inputs_are_rounded_to_nearest():
    weight, _ = layer(32, 64)
    for spec in (SPEC, QuantSpec(3, 16), QuantSpec(3, 16, symmetric=True)):
        found = quantize_spqr(weight, torch.eye(64), spec, outlier_threshold=math.inf, scale_bits=None)
        nearest = quantize_rtn(weight, spec)
        assert torch.equal(found.codes, nearest.codes)
        assert torch.equal(found.dequantize(), nearest.dequantize())


@pytest.mark.parametrize("spec", [QuantSpec(2, 16), QuantSpec(2, 16, symmetric=True)], ids=["integer", "symmetric"])
def test_other_zeros_work_and_are_stored_as_they_are(spec):
    weight, hessian = layer(96, 256)
    found = quantize_spqr(weight, hessian, spec)
    assert isinstance(found.scale_table, BilevelTable)
    assert (found.zero_table is None) == spec.symmetric
    plain = quantize_gptq(weight, hessian, spec).dequantize()
    assert output_error(weight, found.dequantize(), hessian) < output_error(weight, plain, hessian)


def test_with_activation_order_groups_lie_in_that_order_and_it_is_stored():
    weight, hessian = layer(64, 128)
    found = quantize_spqr(weight, hessian, SPEC, act_order=True)
    assert found.permutation.tolist() == hessian.diagonal().argsort(descending=True, stable=True).tolist()
    expected = reference_spqr(weight, hessian, bits=3, act_order=True)
    assert share(found.dequantize().isclose(expected.rounded, rtol=1e-2, atol=1e-4), torch.tensor(True)) > 0.99


def test_what_is_stored_restores_to_the_same_weight():
    weight, hessian = layer(32, 64)
    for how in ({}, {"act_order": True}, {"scale_bits": None}, {"outlier_threshold": math.inf}):
        found = quantize_spqr(weight, hessian, SPEC, **how)
        again = QuantizedTensor.restore(found.description(), found.tensors())
        assert torch.equal(again.dequantize(), found.dequantize())


@given(
    rows=st.integers(1, 12), groups=st.integers(1, 4), bits=st.integers(1, 5), seed=st.integers(0, 99),
    threshold=st.sampled_from([0.0, 0.2, 3.0, math.inf]), scale_bits=st.sampled_from([None, 1, 3, 8]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_any_shape_gives_finite_weights_and_the_size_of_the_hessian_does_not_matter(
    rows, groups, bits, seed, threshold, scale_bits
):
    weight, hessian = layer(rows, 8 * groups, seed, tokens=9)
    spec, how = (
        QuantSpec(bits, 8, zero="float", scale_dtype="float16"),
        {"outlier_threshold": threshold, "scale_bits": scale_bits, "scale_group": rows},
    )
    found = quantize_spqr(weight, hessian, spec, **how)
    assert torch.isfinite(found.dequantize()).all()
    assert torch.equal(quantize_spqr(weight, 1024 * hessian, spec, **how).codes, found.codes)


def test_only_the_extremes_of_a_group_change_its_range_so_their_gain_alone_needs_another():
    group, _ = layer(64, 16, seed=5)
    group[0] = 0.01  # equal weights
    group[1, :8] = group[1].max()  # the largest is there eight times
    pivots = torch.linspace(0.5, 2, 16)
    found = gain_of_leaving_out(group, pivots, SPEC)[1:]
    torch.testing.assert_close(found, leave_one_out_gain(group, pivots, 3)[1:], rtol=1e-3, atol=1e-6)


def test_dead_inputs_and_rows_of_zeros_do_not_spoil_their_neighbours():
    weight, hessian = layer(32, 64)
    hessian[:16] = hessian[:, :16] = 0  # a whole group
    weight[5] = 0.0
    found = quantize_spqr(weight, hessian, SPEC)
    assert not found.dequantize()[:, :16].any()
    others = torch.arange(32) != 5
    error = output_error(weight[others], found.dequantize()[others], hessian)
    alone = quantize_spqr(weight[16:], hessian, SPEC)
    relative = error / output_error(weight, torch.zeros_like(weight), hessian)
    undisturbed = output_error(weight[16:], alone.dequantize(), hessian) / output_error(weight[16:], 0.0, hessian)
    assert relative < 3 * undisturbed


def test_two_levels_store_scales_that_hardly_differ():
    values = torch.full((16,), 0.37)
    values[3] += 1e-6
    found = two_levels(values, 3, 16, "float16").values().flatten()
    torch.testing.assert_close(found, values, rtol=1e-3, atol=0)


def test_two_levels_by_hand():
    found = two_levels(torch.tensor([1.0, 2.0, 3.0, 8.0]), 3, 4, "float32")
    assert found.values().flatten().tolist() == [1.0, 2.0, 3.0, 8.0]  # eight levels, 1 apart, from 1 on
    assert found.scales.tolist() == [[1.0]]
    assert found.zeros.tolist() == [[-1.0]]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"weight": torch.full((32, 64), torch.inf)}, ValueError, "q: 2048 of 2048 weights are NaN or infinite"),
        ({"hessian": torch.full((64, 64), torch.nan)}, ValueError, "q: 4096 of 4096 entries of the Hessian"),
        ({"hessian": torch.eye(32)}, ValueError, "q: the weight has 64 inputs"),
        ({"spec": QuantSpec(3, 48, zero="float")}, ValueError, "q: 64 inputs cannot be divided into groups of 48"),
        ({"spec": QuantSpec(4, 16, codebook="nf4")}, ValueError, "q: SpQR fits a uniform min-max grid.*gptq"),
        ({"spec": QuantSpec(3, 16, clip="mse")}, ValueError, "q: SpQR fits a uniform min-max grid"),
        ({"scale_group": 24}, ValueError, r"q: 32 output rows cannot be divided into runs of 24.*\(16\)"),
        ({"scale_bits": 9}, ValueError, "q: scale_bits=9 must be a whole number from 1 to 8"),
        ({"outlier_threshold": math.nan}, ValueError, "q: outlier_threshold=nan"),
        ({"outlier_threshold": -1}, ValueError, "q: outlier_threshold=-1"),
        ({"damping": math.inf}, ValueError, "q: damping=inf"),
    ],
)
def test_wrong_arguments_are_errors_that_name_the_layer(change, error, said):
    weight, hessian = layer(32, 64)
    given_ = {"weight": weight, "hessian": hessian, "spec": SPEC} | change
    with pytest.raises(error, match=said):
        quantize_spqr(**given_, layer="q")


def test_weights_that_hardly_differ_are_one_value_and_keep_zeros_within_half_precision():
    group = 0.1 + 1e-8 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    scale, zero = fit_without_outliers(group, None, QuantSpec(3, 16, zero="float"), "")
    assert zero.abs().max() <= 1
    torch.testing.assert_close(-scale * zero, group.mean(1))
