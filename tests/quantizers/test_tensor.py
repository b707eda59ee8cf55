"""A quantised weight counts what it stores, and is the same after a round trip."""

import dataclasses

import pytest
import torch

from workbench.quantizers.codebooks import FP4, NF4, dynamic_levels, nearest_code
from workbench.quantizers.grid import fit_grid
from workbench.quantizers.layout import back_to_outputs, grouped_along_outputs
from workbench.quantizers.outliers import SparseOutliers
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.spqr_scales import together, two_levels
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputScale

WEIGHT = torch.randn(48, 128, generator=torch.Generator().manual_seed(0))
SPECS = [
    QuantSpec(2, 32), QuantSpec(3, 64, symmetric=True), QuantSpec(4, "tensor"), QuantSpec(8, zero="float"),
    QuantSpec(3, 32, zero="float", scale_dtype="float16"), QuantSpec(4, 64, codebook="nf4", double_quant=True),
    QuantSpec(4, 32, codebook="fp4", scale_dtype="bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_a_weight_is_the_same_after_its_parts_are_stored_and_read(spec):
    quantized = quantize_rtn(WEIGHT, spec)
    again = QuantizedTensor.restore(quantized.description(), quantized.tensors())
    assert torch.equal(again.dequantize(), quantized.dequantize())
    assert again.nbytes == quantized.nbytes
    assert again.spec == spec


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (QuantSpec(4, 32, scale_dtype="float16"), 48 * (128 // 2 + 4 * 2 + 2)),  # four zeros of 4 bits
        (QuantSpec(4, 32, symmetric=True, scale_dtype="float16"), 48 * (128 // 2 + 4 * 2)),
        (QuantSpec(3, 64, zero="float", scale_dtype="float16"), 48 * (48 + 2 * 2 + 2 * 2)),
        (QuantSpec(8, symmetric=True), 48 * (128 + 4)),
        (QuantSpec(2, "tensor", symmetric=True), 48 * 32 + 4),
        (QuantSpec(4, 64, codebook="nf4", double_quant=True), 48 * (64 + 2) + 4 + 4),  # one block and its offset
    ],
    ids=lambda value: getattr(value, "label", value),
)
def test_bytes_are_those_of_codes_scales_and_zeros(spec, size):
    quantized = quantize_rtn(WEIGHT, spec)
    assert quantized.nbytes == size
    assert quantized.bits_per_weight == pytest.approx(8 * size / WEIGHT.numel())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_rows_can_be_had_without_the_rest(spec):
    quantized = quantize_rtn(WEIGHT, spec)
    assert torch.equal(quantized.dequantize_rows(5, 17), quantized.dequantize()[5:17])


def everything():
    """A weight with outliers, a permutation, an input scale and bilevel tables at once."""
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(128, generator=generator)
    transform = InputScale(torch.rand(128, generator=generator) + 0.5)
    scaled = transform.apply_to_weight(WEIGHT)
    spec = QuantSpec(3, 16, zero="float")
    grid = fit_grid(scaled[:, order], spec)
    scales, zeros = (
        together([two_levels(part, 3, 16, "float16") for part in table[..., 0].unbind(1)])
        for table in (grid.scale, grid.zero)
    )
    grid = dataclasses.replace(grid, scale=scales.values()[..., None], zero=zeros.values()[..., None])
    codes = grid.encode(scaled[:, order])
    lost = torch.empty_like(scaled)
    lost[:, order] = scaled[:, order] - grid.decode(codes)
    outliers = SparseOutliers.from_dense(lost.abs() > 0.4, lost)
    return QuantizedTensor.from_codes(
        codes, grid, method="spqr", outliers=outliers, transform=transform, permutation=order,
        scale_table=scales, zero_table=zeros,
    ), lost.abs() > 0.4  # fmt: skip


def test_outliers_permutation_scale_and_bilevel_tables_work_together():
    quantized, kept = everything()
    again = QuantizedTensor.restore(quantized.description(), quantized.tensors())
    assert torch.equal(again.dequantize(), quantized.dequantize())
    assert 0 < quantized.outliers.count == int(kept.sum())
    torch.testing.assert_close(quantized.dequantize()[kept], WEIGHT[kept], rtol=1e-2, atol=1e-2)
    parts = quantized.tensors()
    assert quantized.nbytes == sum(tensor.nbytes for tensor in parts.values())
    assert {"packed", "permutation", "transform.scale", "outliers.values", "scales.packed"} <= set(parts)


def test_a_part_that_lacks_or_is_too_many_is_another_recipes():
    quantized, _ = everything()
    parts = quantized.tensors()
    fewer = {name: tensor for name, tensor in parts.items() if name != "permutation"}
    with pytest.raises(ValueError, match=r"lacks 'permutation'.*another recipe"):
        QuantizedTensor.restore(quantized.description(), fewer)
    with pytest.raises(ValueError, match=r"'permutation'\] too many"):
        QuantizedTensor.restore({**quantized.description(), "permuted": False}, parts)


def test_sparse_outliers_are_their_dense_matrix():
    mask = torch.rand(9, 12, generator=torch.Generator().manual_seed(2)) > 0.8
    values = torch.randn(9, 12, generator=torch.Generator().manual_seed(3))
    sparse = SparseOutliers.from_dense(mask, values, dtype=torch.float32)
    assert torch.equal(sparse.dense(), values * mask)
    assert torch.equal(sparse.mask(), mask)
    assert torch.equal(sparse.add_to(torch.zeros(4, 12), 3), (values * mask)[3:7])
    inputs = torch.randn(5, 12, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(sparse.matmul(inputs), inputs @ (values * mask).t())
    assert sparse.nbytes == 4 * 10 + 2 * sparse.count + 4 * sparse.count


def test_an_outlier_beyond_half_precision_is_refused():
    with pytest.raises(ValueError, match="keep outliers in torch.float32"):
        SparseOutliers.from_dense(torch.tensor([[True]]), torch.tensor([[1e6]]))


def test_groups_along_the_outputs_hold_one_input_each():
    weight = torch.arange(24.0).view(6, 4)
    matrix = grouped_along_outputs(weight, QuantSpec(4, 3))
    assert matrix.shape == (2, 12)
    assert matrix[0, :3].tolist() == [0.0, 8.0, 16.0]  # input 0 of outputs 0, 2 and 4
    assert torch.equal(back_to_outputs(matrix, (6, 4)), weight)


def test_a_weight_grouped_along_its_outputs_comes_back_in_place():
    spec = QuantSpec(8, 16, zero="float")
    matrix = grouped_along_outputs(WEIGHT, spec)
    grid = fit_grid(matrix, spec)
    quantized = QuantizedTensor.from_codes(grid.encode(matrix), grid, method="hqq", shape=(48, 128))
    torch.testing.assert_close(quantized.dequantize(), WEIGHT, atol=0.02, rtol=0)
    assert quantized.codes.shape == WEIGHT.shape
    assert torch.equal(quantized.dequantize_rows(3, 9), quantized.dequantize()[3:9])
    again = QuantizedTensor.restore(quantized.description(), quantized.tensors())
    assert torch.equal(again.dequantize(), quantized.dequantize())


@pytest.mark.parametrize(("name", "levels"), [("nf4", NF4), ("fp4", FP4)])
def test_every_level_of_a_codebook_is_its_own_nearest(name, levels):
    values = torch.tensor(levels)
    assert torch.equal(values[nearest_code(values, name).long()], values)


@pytest.mark.parametrize(("name", "levels"), [("nf4", NF4), ("fp4", FP4)])
def test_no_level_of_a_codebook_is_nearer_than_the_one_taken(name, levels):
    values = torch.linspace(-1, 1, 2001)
    taken = (torch.tensor(levels)[nearest_code(values, name).long()] - values).abs()
    assert torch.equal(taken, (torch.tensor(levels)[:, None] - values).abs().amin(0))


def test_the_dynamic_code_has_256_levels_over_seven_decades():
    levels = dynamic_levels(torch.device("cpu"))
    assert levels.numel() == 256 == levels.unique().numel()
    assert levels.max() == 1
    assert levels[levels > 0].min() == pytest.approx(0.55e-6)


def test_double_quantised_scales_are_near_the_plain_ones():
    plain, double = (quantize_rtn(WEIGHT, QuantSpec(4, 64, codebook="nf4", double_quant=on)) for on in (False, True))
    assert torch.equal(plain.codes, double.codes)
    torch.testing.assert_close(double.scales, plain.scales, rtol=0.02, atol=0)
