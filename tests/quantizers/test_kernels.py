"""Kernels multiply by the same weight whatever their layout, round only what they say, and hold nothing twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from workbench.errors import UnknownName
from workbench.quantizers.grid import Grid
from workbench.quantizers.hqq import quantize_hqq
from workbench.quantizers.kernels import KERNELS, automatic, blocked, int4, int8_weight, make_kernel
from workbench.quantizers.kernels.int4_layout import block_rows, pack_layout, read_rows, unpack_layout
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor

BYTES = QuantSpec(8, symmetric=True)
BF16 = 2.0**-8  # what rounding inputs, tables and outputs to bfloat16 costs at most together, relative


def weight(out: int = 96, width: int = 256, *, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, width, generator=torch.Generator().manual_seed(seed)) + shift


def tokens(count: int, width: int = 256, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def exact(quantized: QuantizedTensor, inputs: torch.Tensor) -> torch.Tensor:
    return F.linear(inputs.double(), quantized.dequantize().double())


@given(
    out=st.integers(1, 200), width=st.sampled_from([32, 64, 96]), start=st.integers(0, 3), seed=st.integers(0, 9)
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_codes_are_read_back_from_torchs_own_layout_of_this_cpu(out, width, start, seed):
    assert block_rows() in (16, 32, 64)
    codes = torch.randint(16, (out, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    layout, start = pack_layout(codes), min(64 * start, (out - 1) // 64 * 64)
    assert torch.equal(unpack_layout(layout, width, start, out).t(), codes[start:])
    index = torch.randint(out, (5,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(read_rows(layout, width, out, index), codes[index])
    with pytest.raises(IndexError, match="numbered 0 to"):
        read_rows(layout, width, out, torch.tensor([out]))


def test_a_tall_matrix_is_laid_out_in_parts_as_if_at_once():
    codes = torch.randint(16, (2500, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    filled = F.pad(codes, (0, 0, 0, -2500 % 64))
    assert torch.equal(pack_layout(codes), torch.ops.aten._convert_weight_to_int4pack_for_cpu(filled.int(), 1))
    assert torch.equal(unpack_layout(pack_layout(codes), 32, 0, 2500).t(), codes)


@pytest.mark.parametrize("group", [32, 64, 128, 256, None, "tensor"])
@pytest.mark.parametrize(
    "scheme", [{}, {"symmetric": True}, {"zero": "float"}, {"scale_dtype": "bfloat16"}], ids=str
)  # fmt: skip
def test_int4_runs_every_uniform_scheme_in_every_group_it_knows(group, scheme):
    for bits in (4, 3, 2):
        quantized = quantize_rtn(weight(), QuantSpec(bits, group, **scheme))
        assert distance(make_kernel(quantized, "int4").multiply(tokens(3)), exact(quantized, tokens(3))) < 3 * BF16


def test_a_group_that_is_a_multiple_of_one_that_torch_knows_has_its_scale_repeated():
    quantized = quantize_rtn(weight(64, 384), QuantSpec(4, 192, symmetric=True))
    kernel = make_kernel(quantized)
    assert kernel.name == "int4"
    assert kernel.group == 64
    assert distance(kernel.multiply(tokens(4, 384)), exact(quantized, tokens(4, 384))) < 2 * BF16


@pytest.mark.parametrize("out", [1, 50, 64, 65, 130])
def test_outputs_that_fill_no_block_are_padded_and_cut(out):
    quantized = quantize_rtn(weight(out, 64), QuantSpec(4, 32, symmetric=True))
    found = make_kernel(quantized, "int4").multiply(tokens(3, 64))
    assert found.shape == (3, out)
    assert found.is_contiguous()
    assert distance(found, exact(quantized, tokens(3, 64))) < 2 * BF16


@pytest.mark.parametrize("name", ["int4", "int8_weight"])
def test_many_float32_tokens_are_multiplied_exactly(name, monkeypatch):
    spec = QuantSpec(4, 64) if name == "int4" else QuantSpec(8)
    quantized = quantize_rtn(weight(130, shift=0.3), spec)
    kernel, inputs = make_kernel(quantized, name), tokens(7)
    few = kernel.multiply(inputs)
    module = int4 if name == "int4" else int8_weight
    monkeypatch.setitem(module.FLOAT_TOKENS, torch.float32, 7)
    monkeypatch.setitem(module.FLOAT_TOKENS, torch.bfloat16, 7)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 64 * 256)  # several blocks, the last one shorter
    many = kernel.multiply(inputs)
    assert distance(many, exact(quantized, inputs)) < 1e-6 < distance(few, many) < 4 * BF16
    assert distance(kernel.multiply(inputs.bfloat16()), many) < 2 * BF16


@pytest.mark.parametrize("spec", [QuantSpec(8), QuantSpec(8, zero="float"), BYTES, QuantSpec(8, "tensor")], ids=str)
def test_zeros_of_the_weight_are_folded_into_the_product(spec):
    quantized = quantize_rtn(weight(shift=2.0), spec)  # all weights to one side: the zero is far from the middle
    inputs = tokens(5) + 1.0
    assert distance(make_kernel(quantized, "int8_weight").multiply(inputs), exact(quantized, inputs)) < BF16
    assert distance(make_kernel(quantized, "int8_dynamic").multiply(inputs), exact(quantized, inputs)) < 1e-2


def test_scales_of_bytes_are_not_rounded_to_bfloat16():
    # One input has an exact product in bfloat16, so that all that is left is the scale.
    quantized = quantize_rtn(torch.full((4, 32), 1.003), BYTES)
    inputs = torch.zeros(1, 32).index_fill_(1, torch.tensor([0]), 1.0)
    assert distance(make_kernel(quantized, "int8_weight").multiply(inputs), exact(quantized, inputs)) < 1e-7


def test_int8_dynamic_rounds_every_token_by_its_own_size():
    quantized = quantize_rtn(weight(), BYTES)
    kernel, inputs = make_kernel(quantized, "int8_dynamic"), tokens(4)
    alone = torch.cat([kernel.multiply(inputs[i : i + 1]) for i in range(4)])
    inputs[2] *= 1000
    found = kernel.multiply(inputs)
    calm = [0, 1, 3]
    assert distance(found[calm], alone[calm]) < 2e-2
    bare = kernel._operation(inputs, kernel._weight, kernel._narrow)
    assert distance(bare[calm], alone[calm]) > 0.5  # torch's operation alone rounds them all to next to nothing


def test_tokens_of_zeros_and_unusable_tokens_leave_the_others_alone():
    kernel, inputs = make_kernel(quantize_rtn(weight(), BYTES), "int8_dynamic"), tokens(6)
    usable = [0, 2, 5]
    expected = kernel.multiply(inputs[usable])
    inputs[1], inputs[3, 7], inputs[4, 0] = 0.0, torch.nan, torch.inf
    found = kernel.multiply(inputs)
    assert (found[1] == 0).all()
    assert found[3:5].isnan().all()
    assert distance(found[usable], expected) < 1e-2
    assert (kernel.multiply(torch.zeros(1, 256)) == 0).all()
    assert kernel.multiply(torch.full((1, 256), torch.nan)).isnan().all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_blocked_multiplies_every_width_of_code_without_the_whole_weight(bits, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_BYTES", 4 * 256 * 10)
    quantized = quantize_rtn(weight(33), QuantSpec(bits, 32))
    sizes, decode_packed = [], Grid.decode_packed

    def watched(*arguments):
        values = decode_packed(*arguments)
        sizes.append(values.numel())
        return values

    monkeypatch.setattr(Grid, "decode_packed", watched)
    found = make_kernel(quantized, "blocked").multiply(tokens(3))
    assert sizes == [2560, 2560, 2560, 3 * 256]
    torch.testing.assert_close(found.double(), exact(quantized, tokens(3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["blocked", "naive"])
@pytest.mark.parametrize("codebook", ["nf4", "fp4"])
def test_codebooks_are_multiplied_with_and_without_double_quantisation(name, codebook):
    for double in (False, True):
        quantized = quantize_rtn(weight(), QuantSpec(4, 64, codebook=codebook, double_quant=double))
        found = make_kernel(quantized, name).multiply(tokens(3))
        torch.testing.assert_close(found.double(), exact(quantized, tokens(3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["blocked", "naive"])
def test_groups_along_the_outputs_are_multiplied_in_their_own_order(name, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK_BYTES", 4 * 64 * 32 * 2)
    quantized = quantize_hqq(weight(96, 64), QuantSpec(4, 32, zero="float"), axis=0)
    found = make_kernel(quantized, name).multiply(tokens(3, 64))
    torch.testing.assert_close(found.double(), exact(quantized, tokens(3, 64)), rtol=1e-5, atol=1e-4)
    gradient = tokens(3, 96)
    expected = gradient.double() @ quantized.dequantize().double()
    found = blocked.multiply_transposed(make_kernel(quantized, name), gradient)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "method", "name"),
    [
        (BYTES, "rtn", "int8_weight"), (QuantSpec(8), "gptq", "int8_weight"), (BYTES, "smoothquant", "int8_dynamic"),
        (QuantSpec(8, 32), "rtn", "blocked"), (QuantSpec(4, 64), "gptq", "int4"), (QuantSpec(4), "awq", "int4"),
        (QuantSpec(4, 16), "rtn", "blocked"), (QuantSpec(4, 64, codebook="nf4"), "rtn", "blocked"),
        (QuantSpec(3, 64), "gptq", "blocked"), (QuantSpec(2, 32), "rtn", "blocked"),
    ],
)  # fmt: skip
def test_the_automatic_kernel_follows_from_the_format(spec, method, name):
    made = quantize_rtn(weight(64), spec)
    quantized = QuantizedTensor(made.spec, made.shape, made.packed, made.scale_table, made.zero_table, method=method)
    assert automatic(quantized) == name
    assert make_kernel(quantized).name == name


def test_rows_are_those_of_the_dequantised_weight_in_every_layout():
    index = torch.tensor([3, 0, 95, 3])
    for spec in (
        BYTES,
        QuantSpec(8),
        QuantSpec(8, zero="float"),
        QuantSpec(4, 64),
        QuantSpec(4),
        QuantSpec(4, "tensor"),
    ):
        quantized = quantize_rtn(weight(), spec)
        for kernel in KERNELS.values():
            if not kernel.refusal(quantized):
                torch.testing.assert_close(kernel(quantized).rows(index), quantized.dequantize()[index])


def test_a_refusal_names_layer_kernel_and_reason():
    nf4 = quantize_rtn(weight(), QuantSpec(4, 64, codebook="nf4"))
    with pytest.raises(ValueError, match=r"h\.0\.mlp: kernel='int4' cannot run NF4.*not of equal steps"):
        make_kernel(nf4, "int4", layer="h.0.mlp")
    with pytest.raises(ValueError, match="one scale per row"):
        make_kernel(quantize_rtn(weight(), QuantSpec(8, 32)), "int8_dynamic")
    with pytest.raises(ValueError, match="no multiple of 32"):
        make_kernel(quantize_rtn(weight(), QuantSpec(4, 16)), "int4")
    with pytest.raises(ValueError, match="its codes have 8 bits"):
        make_kernel(quantize_rtn(weight(), BYTES), "int4")
    with pytest.raises(UnknownName, match="Did you mean 'blocked'"):
        make_kernel(nf4, "block")


def test_bytes_held_are_counted_and_close_to_what_the_format_needs():
    halves, whole = quantize_rtn(weight(256, 512), QuantSpec(4, 64)), quantize_rtn(weight(256, 512), BYTES)
    assert make_kernel(halves, "blocked").nbytes == halves.nbytes == make_kernel(halves, "naive").nbytes
    # The kernel's own tables are a scale and an offset in bfloat16 per group.
    assert make_kernel(halves, "int4").nbytes == halves.nbytes + 256 * (512 // 64) * 4
    for name in ("int8_weight", "int8_dynamic"):
        assert whole.nbytes <= make_kernel(whole, name).nbytes <= 1.05 * whole.nbytes


def test_a_kernel_does_not_keep_what_it_was_made_from():
    import weakref

    for spec, name in ((QuantSpec(4, 64), "int4"), (BYTES, "int8_weight"), (BYTES, "int8_dynamic")):
        quantized = quantize_rtn(weight(), spec)
        packed, kernel = weakref.ref(quantized.packed), make_kernel(quantized, name)
        assert kernel.quantized is quantized  # as long as someone else has it
        del quantized
        assert packed() is None
        assert kernel.quantized.packed.numel() == quantize_rtn(weight(), spec).packed.numel()
