"""GPTQ against the column loop of its authors' code, at its limits, and under what must not change it."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quantizers.layer_problems import layer, output_error, share
from workbench.bench.quantizer_parts.gptq import measure
from workbench.bench.quantizer_parts.gptq_reference import reference_gptq
from workbench.quantizers.columns import round_columns, rounding
from workbench.quantizers.feedback import factorise, feedback, invert_upper
from workbench.quantizers.gptq import quantize_gptq, quantize_gptq_together
from workbench.quantizers.grid import decode, encode, fit_grid
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor

SPEC = QuantSpec(4, 32)
SPECS = [
    QuantSpec(4, 32),
    QuantSpec(2, None),
    QuantSpec(3, 16, symmetric=True),
    QuantSpec(3, 32, zero="float"),
    QuantSpec(4, "tensor"),
    QuantSpec(3, 32, clip="mse"),
    QuantSpec(4, 32, codebook="nf4"),
    QuantSpec(4, 64, codebook="fp4", double_quant=True),
    QuantSpec(4, 32, scale_dtype="float16"),
]
labels = [f"{spec.label}, {spec.scale_dtype}" for spec in SPECS]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [{}, {"act_order": True}, {"static_groups": False}, {"block_size": 48}])
def test_codes_are_those_of_the_reference(bits, how):
    weight, hessian = layer(96, 256)
    codes, values = reference_gptq(weight, hessian, bits=bits, group_size=32, **how)
    found = quantize_gptq(weight, hessian, QuantSpec(bits, 32), **how)
    assert share(found.codes, codes) >= 0.99
    assert output_error(weight, found.dequantize(), hessian) == pytest.approx(
        output_error(weight, values, hessian), rel=0.01
    )


@pytest.mark.parametrize(
    "how",
    [
        {"static_groups": False, "block_size": 40},  # groups begin within blocks and reach over their ends
        {"static_groups": False, "act_order": True},
        {"act_order": True, "group_size": None},
        {"symmetric": True},
        {"damping": 0.1, "block_size": 1000},
    ],
)
def test_codes_are_those_of_the_reference_in_odd_settings_too(how):
    weight, hessian = layer(96, 256, seed=3)
    how = {"group_size": 32} | how
    codes, _ = reference_gptq(weight, hessian, bits=3, **how)
    spec = QuantSpec(3, how.pop("group_size"), symmetric=how.pop("symmetric", False))
    assert share(quantize_gptq(weight, hessian, spec, **how).codes, codes) >= 0.99


@pytest.mark.parametrize("group_size", [None, 32])
def test_dead_inputs_get_weight_zero_and_codes_stay_those_of_the_reference(group_size):
    weight, hessian = layer(64, 128, seed=1)
    dead = [0, 5, 77]
    weight[:, 5] = 100  # would widen the range of its group, were it not dead
    hessian[dead] = 0
    hessian[:, dead] = 0
    codes, _ = reference_gptq(weight, hessian, bits=4, group_size=group_size)
    found = quantize_gptq(weight, hessian, QuantSpec(4, group_size))
    assert share(found.codes, codes) >= 0.99
    assert not found.dequantize()[:, dead].any()


@pytest.mark.parametrize("spec", SPECS, ids=labels)
def test_with_inputs_that_do_not_depend_on_each_other_it_rounds_to_nearest(spec):
    weight, _ = layer()
    found, nearest = quantize_gptq(weight, torch.eye(128), spec), quantize_rtn(weight, spec)
    if spec.double_quant:  # rounding to nearest takes the scales before they are compressed
        assert share(found.codes, nearest.codes) > 0.95
    else:
        assert torch.equal(found.codes, nearest.codes)
    assert torch.equal(found.scales, nearest.scales)


@pytest.mark.parametrize("spec", SPECS, ids=labels)
def test_outputs_are_nearer_than_with_rounding_to_nearest(spec):
    for seed in range(3):
        weight, hessian = layer(seed=seed)
        nearest = quantize_rtn(weight, spec).dequantize()
        found = quantize_gptq(weight, hessian, spec).dequantize()
        assert output_error(weight, found, hessian) < output_error(weight, nearest, hessian)


@pytest.mark.parametrize("spec", SPECS, ids=labels)
def test_block_size_does_not_change_static_groups(spec):
    weight, hessian = layer()
    some, others = (quantize_gptq(weight, hessian, spec, block_size=size) for size in (128, 24))
    assert share(some.codes, others.codes) > 0.995  # float32 sums in another order decide a tie now and then


@given(
    rows=st.integers(1, 12),
    groups=st.integers(1, 4),
    bits=st.integers(1, 8),
    seed=st.integers(0, 99),
    act_order=st.booleans(),
    power=st.integers(-12, 12),
)
@settings(max_examples=25, deadline=None)
def test_neither_the_size_of_the_hessian_nor_the_order_of_rows_matters(rows, groups, bits, seed, act_order, power):
    weight, hessian = layer(rows, 8 * groups, seed)
    spec = QuantSpec(bits, 8)
    codes = quantize_gptq(weight, hessian, spec, act_order=act_order).codes
    # A power of two scales float32 exactly.
    assert torch.equal(quantize_gptq(weight, 2.0**power * hessian, spec, act_order=act_order).codes, codes)
    mixed = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    assert share(quantize_gptq(weight[mixed], hessian, spec, act_order=act_order).codes, codes[mixed]) > 0.97


@given(rows=st.integers(1, 6), columns=st.integers(1, 70), bits=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_shape_gives_codes_of_the_grid(rows, columns, bits, seed):
    weight, hessian = layer(rows, columns, seed, tokens=5)  # fewer tokens than inputs: damping alone makes it definite
    found = quantize_gptq(weight, hessian, QuantSpec(bits))
    assert found.shape == (rows, columns)
    assert int(found.codes.max()) < 2**bits
    assert torch.isfinite(found.dequantize()).all()


def test_weights_that_lie_on_the_grid_stay_what_they_are():
    weight, hessian = layer()
    on_grid = quantize_rtn(weight, SPEC).dequantize()
    torch.testing.assert_close(quantize_gptq(on_grid, hessian, SPEC).dequantize(), on_grid, rtol=1e-5, atol=1e-6)


def test_two_inputs_by_hand():
    # Grid 0..3 by steps of 1; the first input is rounded from 1.4 to 1, and 0.4 * h12 / h22 goes to the second.
    weight, hessian = torch.tensor([[1.4, 2.3, 0.0, 3.0]]), torch.eye(4)
    hessian[0, 1] = hessian[1, 0] = 0.9
    found = quantize_gptq(weight, hessian, QuantSpec(2), damping=0.0)
    assert found.dequantize().tolist() == [[1.0, 3.0, 0.0, 3.0]]  # 2.3 + 0.36 is nearer to 3 than to 2


def test_weights_that_share_inputs_get_what_each_gets_alone():
    _, hessian = layer()
    weights = [layer(rows, seed=rows)[0] for rows in (48, 16, 1)]
    specs = [SPEC, QuantSpec(2, 16), SPEC]
    for how in ({}, {"static_groups": False, "act_order": True}):
        together = quantize_gptq_together(weights, hessian, specs, layer=["q", "k", "v"], **how)
        for found, weight, spec in zip(together, weights, specs, strict=True):
            alone = quantize_gptq(weight, hessian, spec, **how)
            assert found.shape == tuple(weight.shape)
            assert share(found.codes, alone.codes) > 0.99
            assert (found.permutation is None) == (alone.permutation is None)
            torch.testing.assert_close(found.scales, alone.scales, rtol=0.05, atol=1e-6)


def test_only_dynamic_groups_in_another_order_store_the_order():
    weight, hessian = layer()
    static = quantize_gptq(weight, hessian, SPEC, act_order=True)
    dynamic = quantize_gptq(weight, hessian, SPEC, act_order=True, static_groups=False)
    assert static.permutation is None
    assert dynamic.permutation.tolist() == hessian.diagonal().argsort(descending=True, stable=True).tolist()
    assert dynamic.nbytes == static.nbytes + 4 * 128
    _, values = reference_gptq(weight, hessian, group_size=32, act_order=True, static_groups=False)
    assert share(dynamic.dequantize().isclose(values, atol=1e-5), torch.tensor(True)) > 0.99


def test_static_groups_with_activation_order_take_the_scales_of_the_original_weight():
    weight, hessian = layer()
    assert torch.equal(quantize_gptq(weight, hessian, SPEC, act_order=True).scales, quantize_rtn(weight, SPEC).scales)


def test_what_is_stored_restores_to_the_same_weight():
    weight, hessian = layer()
    for spec in (*SPECS, SPEC):
        found = quantize_gptq(weight, hessian, spec, act_order=True, static_groups=spec is not SPEC)
        again = QuantizedTensor.restore(found.description(), found.tensors())
        assert torch.equal(again.dequantize(), found.dequantize())
        assert again.method == "gptq"


def test_neither_weight_nor_hessian_is_written_to():
    weight, hessian = layer()
    before = weight.clone(), hessian.clone()
    hessian[3] = hessian[:, 3] = 0
    before[1][3] = before[1][:, 3] = 0
    for how in ({}, {"static_groups": False}, {"act_order": True}):
        quantize_gptq(weight, hessian, SPEC, **how)
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


def test_half_precision_and_transposed_weights_are_taken_as_their_values():
    weight, hessian = layer()
    half = weight.bfloat16()
    expected = quantize_gptq(half.float(), hessian, SPEC).codes
    assert torch.equal(quantize_gptq(half, hessian, SPEC).codes, expected)
    assert torch.equal(quantize_gptq(half.t().contiguous().t(), hessian, SPEC).codes, expected)
    wide = quantize_gptq(weight, hessian.double(), SPEC).codes
    assert share(wide, quantize_gptq(weight, hessian, SPEC).codes) > 0.99


def indefinite(excess):
    """A matrix with the diagonal of a Hessian of independent inputs and the eigenvalue ``-excess``."""
    hessian = torch.eye(128)
    hessian[3, 7] = hessian[7, 3] = 1 + excess
    return hessian


def test_damping_is_raised_tenfold_until_there_is_a_factor_and_the_layer_is_named():
    weight, _ = layer()
    hessian = indefinite(0.05)
    with pytest.warns(RuntimeWarning, match=r"blocks\.1\.q: .*damping=0\.01; went on with damping=0\.1"):
        found = quantize_gptq(weight, hessian, SPEC, layer="blocks.1.q")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(quantize_gptq(weight, hessian, SPEC, damping=0.1).codes, found.codes)


def test_damping_of_zero_is_raised_where_inputs_repeat_each_other():
    weight, _ = layer()
    with pytest.warns(RuntimeWarning, match="went on with damping=0.01"):
        quantize_gptq(weight, torch.ones(128, 128), SPEC, damping=0.0)


def test_a_hopeless_hessian_is_an_error_that_names_layer_and_remedy():
    weight, _ = layer()
    with pytest.raises(ValueError, match=r"q: the Hessian is not positive definite even with damping=10.*Accumulator"):
        quantize_gptq(weight, indefinite(100.0), SPEC, layer="q")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"weight": torch.full((4, 128), torch.nan)}, ValueError, "q: 512 of 512 weights are NaN"),
        ({"weight": torch.zeros(4, 128, dtype=torch.int8)}, TypeError, "q: expected a floating matrix"),
        ({"weight": torch.zeros(128)}, ValueError, "q: expected a matrix"),
        ({"weight": torch.zeros(4, 96)}, ValueError, "q: the weight has 96 inputs and needs a Hessian"),
        ({"hessian": torch.full((128, 128), torch.nan)}, ValueError, "q: 16384 of 16384 entries of the Hessian"),
        ({"spec": QuantSpec(4, 48)}, ValueError, "q: 128 inputs cannot be divided into groups of 48"),
        ({"damping": -0.1}, ValueError, "q: damping=-0.1"),
        ({"block_size": 0}, ValueError, "q: block_size=0"),
    ],
)
def test_wrong_arguments_are_errors_that_name_the_layer(change, error, said):
    weight, hessian = layer()
    given = {"weight": weight, "hessian": hessian, "spec": SPEC} | change
    with pytest.raises(error, match=said):
        quantize_gptq(**given, layer="q")


def test_weights_go_together_only_if_they_read_the_same_inputs():
    weight, hessian = layer()
    with pytest.raises(ValueError, match="k: 64 inputs beside 128 of q"):
        quantize_gptq_together([weight, weight[:, :64]], hessian, SPEC, layer=["q", "k"])
    with pytest.raises(ValueError, match="no weights"):
        quantize_gptq_together([], hessian, SPEC)
    with pytest.raises(ValueError, match="1 of spec for 2 weights"):
        quantize_gptq_together([weight, weight], hessian, [SPEC])
    with pytest.raises(TypeError, match="spec must be a QuantSpec"):
        quantize_gptq_together([weight], hessian, [4])


def test_half_precision_scales_that_overflow_name_the_layer():
    weight, hessian = layer()
    with pytest.raises(ValueError, match="q: .*beyond float16.*float32"):
        quantize_gptq(weight * 1e8, hessian, replace(SPEC, scale_dtype="float16"), layer="q")


@pytest.mark.parametrize("spec", SPECS[:8], ids=labels[:8])
def test_rounding_in_a_buffer_is_encode_and_decode_bit_for_bit(spec):
    weight, _ = layer(rows=64, columns=16)
    grid = fit_grid(weight, replace(spec, group_size=None, double_quant=False))
    codes = torch.empty(16, 64, dtype=torch.uint8)
    scale, zero = grid.scale[:, 0].t(), None if grid.zero is None else grid.zero[:, 0].t()
    round_column = rounding(grid.spec, scale, zero, [0] * 16, codes)
    for column in range(16):
        target = 1.5 * weight[:, column]
        value = round_column(column, target)
        expected = encode(target, scale[0], None if zero is None else zero[0], grid.spec)
        assert torch.equal(codes[column], expected)
        assert torch.equal(value, decode(expected, scale[0], None if zero is None else zero[0], grid.spec))


def test_both_forms_of_feedback_give_the_same_targets():
    weight, hessian = layer()
    factor = factorise(hessian.double(), 128, damping=0.01)
    ends = []
    for errors, original in (("original", weight.t()), ("updated", None)):
        work = weight.t().clone()
        round_columns(work, feedback(factor, errors), lambda _, target: (64 * target).round() / 64, original=original)
        ends.append(work)
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_the_root_is_the_inverse_of_the_factor_that_the_authors_compute():
    _, hessian = layer()
    damped = hessian.double() + 0.01 * hessian.double().diagonal().mean() * torch.eye(128)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    root = factorise(hessian.double(), 128, damping=0.01).root
    torch.testing.assert_close(root @ root.t(), damped)
    torch.testing.assert_close(invert_upper(root), factor)


def test_the_bench_measures_equal_results():
    table = measure(quick=True, threads=1)
    assert {"section", "what", "peer", "threads", "wall_ms", "cpu_ms", "ratio", "goal", "reached"} <= set(table.columns)
    assert (table.codes_equal.dropna() >= 0.99).all()
    assert table.reached.isna().all()  # goals are those of the full shapes
    assert table.error_ratio.dropna().sub(1).abs().max() < 0.01
