"""A quantised linear layer is the linear layer of its dequantised weight, in every dtype and shape of inputs."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from workbench.errors import UnknownName
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.outliers import SparseOutliers
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputScale

OUT, IN = 96, 128
BYTES, HALVES = QuantSpec(8, symmetric=True), QuantSpec(4, 32)
# What a kernel rounds besides the weight: nothing, inputs to bfloat16, inputs to 8 bits.
TOLERANCE = {"blocked": 1e-6, "naive": 1e-6, "int8_weight": 6e-3, "int4": 8e-3, "int8_dynamic": 2e-2}


def make(spec: QuantSpec = HALVES, *, bias: bool = True, kernel: str = "auto", seed: int = 0) -> QuantizedLinear:
    torch.manual_seed(seed)
    linear = nn.Linear(IN, OUT, bias=bias)
    return QuantizedLinear.from_linear(linear, quantize_rtn(linear.weight, spec), kernel=kernel)


def exact(layer: QuantizedLinear, inputs: torch.Tensor) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(inputs.double(), layer.quantized.dequantize().double(), bias)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(IN,), (1, IN), (5, IN), (2, 3, IN), (200, IN)])
def test_outputs_have_the_dtype_and_leading_axes_of_the_inputs(dtype, shape):
    inputs = torch.randn(shape).to(dtype)
    for spec, kernel in ((BYTES, "int8_weight"), (BYTES, "int8_dynamic"), (HALVES, "int4"), (HALVES, "blocked")):
        layer = make(spec, kernel=kernel)
        found = layer(inputs)
        assert found.dtype == dtype
        assert found.shape == (*shape[:-1], OUT)
        rounding = {torch.bfloat16: 6e-3, torch.float16: 1e-3}.get(dtype, 0)
        assert distance(found, exact(layer, inputs)) < TOLERANCE[kernel] + rounding


@pytest.mark.parametrize("kernel", ["int8_weight", "int8_dynamic", "blocked", "naive"])
def test_no_tokens_give_no_outputs(kernel):
    layer = make(BYTES, kernel=kernel)
    assert layer(torch.zeros(0, IN)).shape == (0, OUT)
    assert layer(torch.zeros(2, 0, IN, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("spec", "kernel"), [(BYTES, "int8_weight"), (BYTES, "int8_dynamic"), (BYTES, "blocked"), (HALVES, "int4")]
)
def test_non_contiguous_inputs_are_multiplied_like_contiguous_ones(spec, kernel):
    layer = make(spec, kernel=kernel)
    turned = torch.randn(IN, 6).t()
    strided = torch.randn(3, 4, 2 * IN)[..., ::2]
    for inputs in (turned, strided, strided.bfloat16(), torch.randn(4, 3, IN).transpose(0, 1)):
        torch.testing.assert_close(layer(inputs), layer(inputs.contiguous()))


def test_inputs_are_not_written_to():
    inputs = torch.randn(4, IN)
    before = inputs.clone()
    for spec, kernel in ((BYTES, "int8_weight"), (BYTES, "int8_dynamic"), (HALVES, "int4"), (HALVES, "blocked")):
        make(spec, kernel=kernel)(inputs)
    assert torch.equal(inputs, before)


def test_the_weight_comes_back_exactly_from_every_layout():
    torch.manual_seed(0)
    linear = nn.Linear(IN, OUT)
    for spec in (BYTES, QuantSpec(8), QuantSpec(8, zero="float"), HALVES, QuantSpec(3, 32), QuantSpec(4)):
        stored = {k: t.clone() for k, t in quantize_rtn(linear.weight, spec).tensors().items()}
        for kernel in ("auto", "blocked", "naive", *(["int4"] if spec.bits < 8 else ["int8_weight", "int8_dynamic"])):
            # Nobody else keeps this quantised weight: the layer has to unpack its own.
            layer = QuantizedLinear.from_linear(linear, quantize_rtn(linear.weight, spec), kernel=kernel)
            found = layer.quantized.tensors()
            assert found.keys() == stored.keys()
            assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_the_gradient_of_the_inputs_is_that_of_the_dequantised_layer():
    torch.manual_seed(1)
    order = torch.randperm(IN)
    weight = torch.randn(OUT, IN)
    plain = quantize_rtn(weight, BYTES)
    outliers = SparseOutliers.from_dense(torch.rand(OUT, IN) < 0.05, torch.randn(OUT, IN))
    full = QuantizedTensor(
        plain.spec, plain.shape, plain.packed, plain.scale_table,
        outliers=outliers, transform=InputScale(torch.rand(IN) + 0.5), permutation=order.int(),
    )  # fmt: skip
    linear = nn.Linear(IN, OUT)
    for quantized in (plain, full):
        for kernel in ("int8_weight", "int8_dynamic", "blocked"):
            layer = QuantizedLinear.from_linear(linear, quantized, kernel=kernel)
            inputs = torch.randn(2, 3, IN, requires_grad=True)
            seed = torch.randn(2, 3, OUT)
            layer(inputs).backward(seed)
            expected = seed @ quantized.dequantize()
            torch.testing.assert_close(inputs.grad, expected, rtol=1e-4, atol=1e-4)
            assert layer.bias.grad is None


def test_outliers_transform_and_permutation_are_those_of_the_dequantised_weight():
    torch.manual_seed(2)
    weight, inputs = torch.randn(OUT, IN), torch.randn(5, IN)
    linear = nn.Linear(IN, OUT)
    outliers = SparseOutliers.from_dense(torch.rand(OUT, IN) < 0.05, 3 * torch.randn(OUT, IN))
    for spec, kernels in ((BYTES, ("int8_weight", "int8_dynamic", "blocked")), (HALVES, ("int4", "blocked", "naive"))):
        plain = quantize_rtn(weight, spec)
        for extra in (
            {"outliers": outliers}, {"transform": InputScale(torch.rand(IN) + 0.5)},
            {"permutation": torch.randperm(IN).int()},
            {"outliers": outliers, "permutation": torch.randperm(IN).int(),
             "transform": InputScale(torch.rand(IN) + 1)},
        ):  # fmt: skip
            quantized = QuantizedTensor(
                spec, plain.shape, plain.packed, plain.scale_table, zero_table=plain.zero_table, **extra
            )
            for kernel in kernels:
                layer = QuantizedLinear.from_linear(linear, quantized, kernel=kernel)
                assert distance(layer(inputs), exact(layer, inputs)) < TOLERANCE[kernel]


def test_a_conv1d_is_taken_transposed():
    torch.manual_seed(3)
    convolution = Conv1D(OUT, IN)
    nn.init.normal_(convolution.bias)
    quantized = quantize_rtn(convolution.weight.t(), BYTES)
    layer = QuantizedLinear.from_linear(convolution, quantized, kernel="blocked")
    inputs = torch.randn(2, 3, IN)
    assert distance(layer(inputs), convolution(inputs)) < 0.01
    assert (layer.in_features, layer.out_features) == (IN, OUT)


def test_a_square_conv1d_is_not_taken_for_a_linear_layer():
    convolution = Conv1D(IN, IN)
    layer = QuantizedLinear.from_linear(convolution, quantize_rtn(convolution.weight.t(), BYTES), kernel="blocked")
    inputs = torch.randn(4, IN)
    assert distance(layer(inputs), convolution(inputs)) < 0.01


@pytest.mark.parametrize(("spec", "kernel"), [(BYTES, "int8_dynamic"), (BYTES, "int8_weight"), (HALVES, "int4"),
                                              (QuantSpec(4, 32, codebook="nf4"), "blocked")])  # fmt: skip
def test_a_copy_a_pickle_and_a_state_dict_compute_the_same(spec, kernel):
    layer, inputs = make(spec, kernel=kernel), torch.randn(3, IN)
    expected = layer(inputs)
    assert torch.equal(copy.deepcopy(layer)(inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(inputs), expected)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = make(spec, kernel=kernel, seed=7)
    assert not torch.equal(other(inputs), expected)
    assert other.load_state_dict(torch.load(buffer, weights_only=True)).missing_keys == []
    assert torch.equal(other(inputs), expected)


def test_a_state_dict_of_another_format_is_refused():
    with pytest.raises(RuntimeError, match="another format"):
        make(BYTES).load_state_dict(make(HALVES).state_dict())


def test_a_change_of_dtype_leaves_the_weight_and_takes_the_bias_along():
    layer = make(BYTES)
    before = {name: tensor.clone() for name, tensor in layer.quantized.tensors().items()}
    layer.to(torch.bfloat16)
    assert layer.bias.dtype == torch.bfloat16
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.quantized.tensors().items())
    assert layer(torch.randn(2, IN).bfloat16()).dtype == torch.bfloat16


def test_only_the_bias_is_a_parameter_and_it_is_frozen():
    assert {name: part.requires_grad for name, part in make().named_parameters()} == {"bias": False}
    assert list(make(bias=False).parameters()) == []


def test_what_does_not_fit_is_refused_by_name():
    linear = nn.Linear(IN, OUT)
    quantized = quantize_rtn(linear.weight, HALVES)
    with pytest.raises(UnknownName, match="did you mean|Did you mean"):
        QuantizedLinear.from_linear(linear, quantized, kernel="int_4")
    with pytest.raises(ValueError, match=r"block\.0.*int8_weight.*4 scales in a row"):
        QuantizedLinear.from_linear(linear, quantized, kernel="int8_weight", layer="block.0")
    with pytest.raises(ValueError, match=r"maps 128 inputs to 96 outputs.*transposed"):
        QuantizedLinear.from_linear(linear, quantize_rtn(linear.weight.t(), QuantSpec(4)))
    with pytest.raises(TypeError, match="Conv1D, got Embedding"):
        QuantizedLinear.from_linear(nn.Embedding(OUT, IN), quantized)
    with pytest.raises(TypeError, match="QuantizedTensor, got Tensor"):
        QuantizedLinear.from_linear(linear, linear.weight.data)
    layer = make()
    with pytest.raises(ValueError, match=r"expected inputs \[\.\.\., 128\]"):
        layer(torch.randn(2, IN + 1))
    with pytest.raises(TypeError, match="floating inputs, got torch.int64"):
        layer(torch.ones(2, IN, dtype=torch.int64))


def test_its_description_says_which_kernel_runs():
    assert "kernel=int4" in repr(make())
    assert make().kernel == "int4"
    assert "kernel=blocked" in repr(make(QuantSpec(2, 32)))
