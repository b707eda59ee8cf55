"""What is told of one quantised layer agrees with sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.errors import UnknownName
from workbench.models.small_lm import ModelSize, small_lm
from workbench.quantizers.hadamard import Hadamard
from workbench.quantizers.layer_methods import quantize_layers
from workbench.quantizers.layer_report import inputs_of, layer_report
from workbench.quantizers.recipes import LayerRecipe
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec

SPECS = [
    QuantSpec(2, 32), QuantSpec(4, 32, symmetric=True), QuantSpec(3, None, zero="float"), QuantSpec(4, "tensor"),
    QuantSpec(8, 64), QuantSpec(4, 32, codebook="nf4"), QuantSpec(4, 32, codebook="fp4"), QuantSpec(3, 32, clip="mse"),
]  # fmt: skip


@pytest.fixture(scope="module")
def weight():
    return torch.randn(96, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(50, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@pytest.mark.parametrize("axis", ["steps", "weight"])
def test_the_histogram_holds_every_weight_and_the_levels_every_code(weight, inputs, spec, axis):
    report = layer_report(weight, quantize_rtn(weight, spec), inputs, axis=axis)
    bars = report.histogram
    assert (bars["density"] * bars["width"]).sum() == pytest.approx(1)
    assert report.levels["level"].is_monotonic_increasing
    assert len(report.levels) == (15 if spec.codebook == "fp4" else spec.levels)  # two codes of FP4 are 0
    assert bars["position"].min() <= report.levels["level"].min()
    assert bars["position"].max() >= report.levels["level"].max()


def test_in_steps_each_weight_lies_within_half_a_step_of_its_code(weight, inputs):
    """So bars and stems agree: the share of codes at a level is the area of the bars around it."""
    spec = QuantSpec(3, 32, zero="float")
    report = layer_report(weight, quantize_rtn(weight, spec), inputs)
    bars = report.histogram
    for level, density in report.levels.itertuples(index=False):
        around = bars[(bars["position"] - level).abs() < 0.5]
        # Bars need not end at exactly half a step.
        assert (around["density"] * around["width"]).sum() == pytest.approx(density, abs=0.03)


def test_errors_are_those_by_hand(weight, inputs):
    quantised = quantize_rtn(weight, QuantSpec(2, 32))
    report = layer_report(weight, quantised, inputs)
    error = quantised.dequantize() - weight
    assert report.weight_error == pytest.approx(float(error.norm() / weight.norm()))
    assert report.output_error == pytest.approx(float((inputs @ error.T).norm() / (inputs @ weight.T).norm()), rel=1e-5)
    by_output = (inputs @ error.T).square().sum(0).view(48, 2).sum(1) / (inputs @ weight.T).square().sum(0).view(
        48, 2
    ).sum(1)
    np.testing.assert_allclose(report.outputs["error"], by_output.sqrt(), rtol=1e-4)
    np.testing.assert_allclose(
        report.cells, error.square().view(48, 2, 64).mean(1).sqrt() / weight.square().mean().sqrt(), rtol=1e-4
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_the_parts_add_up_to_what_is_stored(weight, inputs, spec):
    quantised = quantize_rtn(weight, spec)
    report = layer_report(weight, quantised, inputs)
    assert sum(report.parts.values()) == pytest.approx(quantised.bits_per_weight)
    assert report.parts["codes"] == spec.bits
    assert report.nbytes == quantised.nbytes


def test_a_rotated_layer_shows_the_weights_that_were_rounded(inputs):
    weight = torch.zeros(16, 64)
    weight[:, 0] = 1.0  # an outlier in every row, which the rotation spreads evenly
    rule = LayerRecipe(QuantSpec(4), rotate=True)
    quantised = quantize_layers({"a": weight}, {"a": rule}, None)["a"]
    report = layer_report(weight, quantised, inputs, axis="weight")
    filled = report.histogram[report.histogram["density"] > 0]["position"].abs()
    assert filled.max() == pytest.approx(1 / 8, abs=0.01)
    assert Hadamard(64).apply_to_weight(weight).abs().max() == pytest.approx(1 / 8, rel=1e-5)


def test_the_inputs_of_a_layer_are_what_it_reads_and_nothing_behind_it_runs():
    model = small_lm(20, ModelSize(32, 2, 2), context=16, seed=0)
    tokens = torch.arange(20).view(2, 10)
    seen, later = [], []
    handles = [
        model.model.layers[1].mlp.up_proj.register_forward_pre_hook(lambda layer, args: seen.append(args[0])),
        model.lm_head.register_forward_pre_hook(lambda layer, args: later.append(args[0])),
    ]
    found = inputs_of(model, "model.layers.1.mlp.up_proj", tokens)
    assert not later
    with torch.no_grad():
        model(input_ids=tokens)
    assert torch.equal(found, seen[-1].flatten(0, 1))
    for handle in handles:
        handle.remove()
    assert not model.model.layers[1].mlp.up_proj._forward_pre_hooks
    assert model.training


def test_another_axis_is_refused(weight, inputs):
    with pytest.raises(UnknownName, match="Did you mean 'weight'"):
        layer_report(weight, quantize_rtn(weight, QuantSpec(4)), inputs, axis="weights")
