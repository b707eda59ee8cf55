"""The explorer of quantisation, driven as a hand would drive it; no kernel and no browser is needed."""

from __future__ import annotations

import types

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from workbench.errors import UnknownName
from workbench.models.small_lm import ModelSize, small_lm
from workbench.quantizers.grid import fit_grid
from workbench.quantizers.model import quantize_model, quantized_layers
from workbench.quantizers.recipes import Recipe
from workbench.quantizers.sensitivity import layer_sensitivity, predict_added_nats
from workbench.quantizers.spec import QuantSpec
from workbench.widgets.quantization_code import recipe_code
from workbench.widgets.quantization_explorer import QuantizationExplorer
from workbench.widgets.quantization_layers import METHODS, SCHEMES

UP = "model.layers.0.mlp.up_proj"
FIRST = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def model():
    return small_lm(40, ModelSize(64, 2, 4, feed_forward=160), context=40, seed=0).eval()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 40, (4, 33), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer(model, tokens):
    return QuantizationExplorer(model, tokens)


def test_the_numbers_shown_are_those_of_the_quantizer(explorer, model):
    explorer.view.layer.value = UP
    explorer.view.bits.value = 3
    explorer.view.group.value = 32
    weight = model.get_submodule(UP).weight.detach()
    error = fit_grid(weight, QuantSpec(3, 32)).round(weight) - weight
    assert explorer.view.report.weight_error == pytest.approx(float(error.norm() / weight.norm()))
    assert f"{100 * explorer.view.report.weight_error:.2f} %" in explorer.view.numbers.value
    assert f"{explorer.view.report.bits_per_weight:.2f}" in explorer.view.numbers.value
    assert "nominal 3" in explorer.view.numbers.value
    assert "3 bits: 8 levels on one grid for every 32 inputs of a row" in explorer.view.sentence.value


def test_fewer_bits_mean_fewer_levels_and_larger_errors(explorer):
    errors = []
    for bits in (8, 4, 3, 2):
        explorer.view.bits.value = bits
        ends = 1 if bits == 8 else 2  # a stem has two, of 256 levels only the heads are drawn
        assert np.isfinite(explorer.view.figure.data[1].y).sum() == ends * 2**bits
        errors.append((explorer.view.report.weight_error, explorer.view.report.output_error))
    assert errors == sorted(errors)


def test_only_groups_that_divide_the_inputs_can_be_chosen(explorer):
    assert explorer.view.group.options == (16, 32, "a row", "the tensor")
    explorer.view.group.value = 16
    explorer.view.layer.value = "model.layers.0.mlp.down_proj"  # 160 inputs
    assert explorer.view.group.options == (16, 32, "a row", "the tensor")
    assert explorer.view.group.value == 16  # it divides here too
    assert "of 40 in float32" in explorer.view.numbers.value
    explorer.view.group.value = "the tensor"
    assert "for the whole tensor" in explorer.view.sentence.value


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_scheme_with_every_method_is_drawn_or_answered_in_a_sentence(explorer, scheme, method):
    explorer.view.scheme.value = scheme
    explorer.view.method.value = method
    explorer.view.rotate.value = True
    said = explorer.view.sentence.value
    if "codebook" in scheme and METHODS[method] == "spqr":
        assert "Not drawn" in said
        assert "uniform grid" in said
    elif METHODS[method] == "spqr" and scheme == "symmetric":
        assert "Not drawn" in said or "drawn in" in said
    else:
        assert "drawn in" in said, said


def test_only_what_counts_can_be_moved(explorer):
    view = explorer.view
    assert view.threshold.disabled
    view.method.value = "SpQR"
    assert not view.threshold.disabled
    assert view.group.value == 16
    view.method.value = "LLM.int8()"
    assert not view.threshold.disabled
    assert all(control.disabled for control in (view.bits, view.group, view.scheme, view.mse, view.rotate))
    view.method.value = "round to nearest"
    assert not view.bits.disabled
    view.scheme.value = "NF4 codebook"
    assert view.bits.disabled
    assert "in parts of its group's largest" in view.figure.layout.xaxis.title.text


def test_the_threshold_of_spqr_moves_weights_beside_the_grid(explorer):
    explorer.view.method.value = "SpQR"
    explorer.view.bits.value = 2
    shares = []
    for threshold in (5.0, 0.2, 0.02):
        explorer.view.threshold.value = threshold
        shares.append((explorer.view.report.outliers, -explorer.view.report.output_error))
    assert shares == sorted(shares)
    assert shares[-1][0] > 0


def test_a_slow_method_waits_for_the_end_of_a_drag_and_is_made_once(explorer, monkeypatch):
    import workbench.widgets.quantization_layers as layers

    made = []
    real = layers.quantize_layers
    monkeypatch.setattr(layers, "quantize_layers", lambda *given: made.append(given) or real(*given))
    explorer.view.method.value = "GPTQ"
    assert not explorer.view.bits.continuous_update
    explorer.view.bits.value = 2
    explorer.view.bits.value = 4
    explorer.view.bits.value = 2
    assert len(made) == 2
    explorer.view.method.value = "round to nearest"
    assert explorer.view.bits.continuous_update


def test_gptq_errs_more_in_weights_and_less_in_outputs(explorer):
    explorer.view.bits.value = 3
    nearest = explorer.view.report
    explorer.view.method.value = "GPTQ"
    assert explorer.view.report.weight_error > nearest.weight_error
    assert explorer.view.report.output_error < nearest.output_error


def test_the_histogram_can_be_had_in_the_weights_own_unit(explorer, model):
    explorer.view.axis.value = "weight"
    weight = model.get_submodule(FIRST).weight.detach()
    positions = explorer.view.figure.data[0].x
    assert max(positions) == pytest.approx(float(weight.abs().max()), rel=0.05)
    assert "median step" in explorer.view.figure.layout.xaxis.title.text


def test_bits_given_to_a_layer_a_kind_a_block_or_all_reach_exactly_these(explorer):
    builder = explorer.builder
    builder.scope.value = "*.up_proj"
    builder.bits[2].click()
    assert {layer for layer, bits in builder.choice.items() if bits == 2} == {UP, UP.replace("0", "1")}
    builder.scope.value = "model.layers.1.*"
    builder.bits[8].click()
    assert sum(bits == 8 for bits in builder.choice.values()) == 7
    builder.scope.value = FIRST
    builder.bits[0].click()
    assert builder.choice[FIRST] == 32
    builder.scope.value = "all layers"
    builder.bits[3].click()
    assert set(builder.choice.values()) == {3}


def test_a_click_cycles_through_all_bits_and_back(explorer):
    builder = explorer.builder
    seen = []
    for _ in range(5):
        builder._clicked(None, types.SimpleNamespace(xs=[0]), None)
        seen.append(builder.choice[FIRST])
    assert seen == [8, 32, 2, 3, 4]
    assert builder.scope.value == FIRST
    builder._clicked(None, types.SimpleNamespace(xs=[]), None)  # a click beside everything
    assert builder.choice[FIRST] == 4


def test_the_strip_shows_the_choice_and_the_sentence_its_prediction(explorer):
    builder = explorer.builder
    builder.give(FIRST, 2)
    bars, strip = builder.figure.data[:2]
    assert strip.text[0][0] == "2"
    row = builder.sensitivity.query("layer == @FIRST and bits == 2").iloc[0]
    assert bars.y[0] == pytest.approx(row["added_nats"])
    predicted = predict_added_nats(builder.sensitivity, builder.choice)
    assert builder.prediction == predicted
    assert f"{predicted.added_nats:+.4f}" in builder.sentence.value
    assert "predicted" in builder.sentence.value
    assert "measured" not in builder.sentence.value


def test_the_best_within_a_size_is_within_it_and_predicted_no_worse(explorer):
    builder = explorer.builder
    equal = builder.prediction
    builder.size.value = equal.bytes / 2**20
    builder.best.click()
    assert builder.prediction.bytes <= builder.size.value * 2**20
    builder.give("all layers", 4)
    assert builder.prediction == equal


def test_a_recipe_is_measured_beside_and_the_float_model_stays(explorer, model, tokens):
    builder = explorer.builder
    builder.give("all layers", 2)
    builder.measure.click()
    builder.job.wait()
    assert builder.measured is not None, builder.status.value
    assert builder.measured.bytes == builder.prediction.bytes
    assert "measured" in builder.sentence.value
    assert not quantized_layers(model)
    builder.cycle(FIRST)
    assert builder.measured is None  # it was another recipe
    assert not builder.measure.disabled
    assert builder.stop.disabled


def test_the_recipe_and_its_code_quantise_every_layer_as_chosen(explorer, model):
    builder = explorer.builder
    builder.give("model.layers.1.*", 2)
    builder.give(FIRST, 8)
    builder.give(UP, 0)
    quantised = quantize_model(model, explorer.recipe, in_place=False)
    found = {name: tensor.spec.bits for name, tensor in quantized_layers(quantised).items()}
    assert found == {layer: bits for layer, bits in builder.choice.items() if bits < 32}
    space = {"model": model}
    exec(builder.code.value, space)  # as a user pastes it
    assert space["recipe"] == explorer.recipe
    assert {name: tensor.spec.bits for name, tensor in quantized_layers(space["quantised"]).items()} == found


def test_code_of_one_rule_for_all_is_one_line():
    assert "Recipe.of('rtn', 4)\n" in recipe_code({"a": 4, "b": 4}, (2, 4))
    space: dict[str, object] = {}
    exec(recipe_code({"a": 32, "b": 32, "c": 4}, (2, 4)).rpartition("\n")[0], space)
    assert space["recipe"] == Recipe(None, {"c": Recipe.of("rtn", 4).default})


def test_a_large_model_is_estimated_at_the_press_of_a_button(model, tokens, monkeypatch):
    monkeypatch.setattr("workbench.widgets.quantization_recipe.AT_ONCE", 0)
    explorer = QuantizationExplorer(model, tokens)
    builder = explorer.builder
    assert builder.sensitivity is None
    assert builder.measure.disabled
    assert builder.best.disabled
    with pytest.raises(ValueError, match="press Estimate all layers"):
        explorer.recipe  # noqa: B018
    builder.estimate.click()
    builder.job.wait()
    assert len(builder.figure.data[0].y) == 14, builder.status.value
    assert not builder.measure.disabled


def test_what_fails_beside_is_told_and_the_next_can_start(explorer, monkeypatch):
    builder = explorer.builder

    def fail(*_given, **_options):
        raise RuntimeError("no memory")

    monkeypatch.setattr("workbench.widgets.quantization_recipe.added_nats_of", fail)
    builder.measure.click()
    builder.job.wait()
    assert "Measuring failed: no memory" in builder.status.value
    assert not builder.job.running


def test_sensitivities_of_ones_own_are_taken_as_they_are(model, tokens):
    table = layer_sensitivity(model, tokens, (2, 4), measure="loss", layers=[UP, FIRST])
    builder = QuantizationExplorer(model, tokens, sensitivity=table).builder
    assert list(builder.choice) == [FIRST, UP]
    assert "each measured with only that layer quantised" in builder.heading.value
    builder.give("all layers", 3)  # not among the bits that were measured
    assert set(builder.choice.values()) == {4}


def test_every_control_is_in_the_box_and_none_is_out_of_reach_of_a_keyboard(explorer):
    shown = set()

    def walk(part):
        shown.add(id(part))
        for child in getattr(part, "children", ()):
            walk(child)

    walk(explorer)
    view, builder = explorer.view, explorer.builder
    controls = [
        view.layer, view.bits, view.group, view.scheme, view.method, view.threshold, view.mse, view.rotate, view.axis,
        view.figure, builder.scope, *builder.bits.values(), builder.size, builder.best, builder.estimate,
        builder.measure, builder.stop, builder.figure, builder.sentence, builder.code,
    ]  # fmt: skip
    assert all(id(control) in shown for control in controls)


def test_without_anybody_looking_the_figures_are_plain_ones(model, tokens, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    explorer = QuantizationExplorer(model, tokens)
    assert type(explorer.view.figure) is type(explorer.builder.figure) is go.Figure
    explorer.view.bits.value = 2
    explorer.builder.give("all layers", 2)
    explorer._ipython_display_()
    assert explorer.view.figure in explorer._parts
    assert explorer.builder.figure in explorer._parts


def test_a_model_without_text_or_an_unknown_layer_is_refused(model, tokens):
    with pytest.raises(TypeError, match="tokenizer or token ids"):
        QuantizationExplorer(model)
    with pytest.raises(TypeError, match="belongs to a model"):
        QuantizationExplorer(None, tokens)
    with pytest.raises(UnknownName, match="Did you mean 'model.layers.0.mlp.up_proj'"):
        QuantizationExplorer(model, tokens, layer="model.layers.0.mlp.up_prj")
    table = layer_sensitivity(model, tokens, (QuantSpec(4),), layers=[FIRST]).replace({"method": {"rtn": "gptq"}})
    with pytest.raises(ValueError, match="found with gptq"):
        QuantizationExplorer(model, tokens, sensitivity=table)
