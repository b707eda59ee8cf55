"""What layers cost alone: the estimates follow what is measured, and choices made by them hold on other text."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from workbench.errors import UnknownName
from workbench.models.small_lm import ModelSize, small_lm
from workbench.quantizers.model import quantized_layers
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.sensitivity import (
    FLOAT,
    added_nats_of,
    as_recipe,
    cheapest_recipe,
    layer_sensitivity,
    predict_added_nats,
)
from workbench.quantizers.spec import QuantSpec
from workbench.training.batches import fixed_windows
from workbench.training.ladder import train_ladder
from workbench.training.text_task import TextTask


@pytest.fixture(scope="module")
def trained():
    """A language model of 14 layers, trained for a few seconds on Shakespeare's characters, and held-out windows."""
    torch.set_num_threads(1)
    task = TextTask()
    model = train_ladder([ModelSize(64, 2, 4)], task, steps=300, cores=1)[0].load()
    return model, fixed_windows(task.prepare().held_out, context=task.context, count=512)


@pytest.fixture(scope="module")
def few(trained):
    """32 windows: what a user would calibrate on."""
    return trained[1][::16]


@pytest.fixture(scope="module")
def others(trained):
    """256 windows that calibration did not see."""
    return trained[1][1::2]


@pytest.fixture(scope="module")
def fisher(trained, few):
    return layer_sensitivity(trained[0], few, batch_tokens=2048)


def nats(table: pd.DataFrame, bits: int) -> pd.Series:
    return table[table["bits"] == bits].set_index("layer")["added_nats"]


def uniform(table: pd.DataFrame, bits: int) -> dict[str, int]:
    return dict.fromkeys(table["layer"], bits)


def test_the_series_ranks_layers_as_the_measurement_on_the_same_text_does(trained, few, record_property):
    estimated = layer_sensitivity(trained[0], few, (2, 3, 4), measure="taylor", batch_tokens=2048)
    measured = layer_sensitivity(trained[0], few, (2, 3, 4), measure="loss", batch_tokens=2048)
    for bits in (2, 3, 4):
        rank = float(spearmanr(nats(estimated, bits), nats(measured, bits)).statistic)
        record_property(f"spearman_taylor_{bits}_bits", rank)
        assert rank > 0.9, bits


def test_the_fisher_estimate_of_few_windows_ranks_layers_as_the_loss_on_other_text(
    trained, fisher, others, record_property
):
    measured = layer_sensitivity(trained[0], others[::2], (2, 3), measure="loss", batch_tokens=4096)
    for bits in (2, 3):
        rank = float(spearmanr(nats(fisher, bits), nats(measured, bits)).statistic)
        record_property(f"spearman_fisher_{bits}_bits", rank)
        assert rank > 0.7, bits


def test_the_sum_over_layers_is_near_what_all_layers_together_add(trained, fisher, others, record_property):
    for bits in (3, 4):
        choice = uniform(fisher, bits)
        predicted = predict_added_nats(fisher, choice)
        joint = added_nats_of(trained[0], others, as_recipe(choice, kernel="blocked"), batch_tokens=4096)
        record_property(f"predicted_and_joint_{bits}_bits", (predicted.added_nats, joint.added_nats))
        assert predicted.bytes == joint.bytes
        assert 0.5 < predicted.added_nats / joint.added_nats < 2, bits


def test_bits_chosen_by_the_estimate_beat_equal_bits_at_equal_size_on_other_text(trained, fisher, others):
    equal = uniform(fisher, 3)
    size = predict_added_nats(fisher, equal).bytes
    chosen = cheapest_recipe(fisher, size)
    assert predict_added_nats(fisher, chosen).bytes <= size
    losses = [
        added_nats_of(trained[0], others, as_recipe(choice, kernel="blocked"), batch_tokens=4096).added_nats
        for choice in (chosen, equal)
    ]
    assert losses[0] < losses[1]


def test_more_bits_never_add_more_in_the_fisher_estimate(fisher):
    wide = fisher.pivot(index="layer", columns="bits", values="added_nats")
    assert (wide.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)
    assert (fisher["standard_error"] >= 0).all()


def test_every_layer_has_a_row_for_each_recipe_and_one_as_it_is(trained, fisher):
    assert list(fisher["bits"][:5]) == [2, 3, 4, 8, 32]
    assert fisher["layer"].nunique() == 14
    assert list(fisher["layer"].unique())[:2] == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]
    left = fisher[fisher["method"] == FLOAT]
    assert left["bytes"].sum() == sum(
        4 * module.weight.numel() for name, module in trained[0].named_modules() if name in set(left["layer"])
    )
    assert (left["added_nats"] == 0).all()


def test_the_model_is_left_as_it_was(trained, few):
    model = trained[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for measure in ("taylor", "loss"):
        layer_sensitivity(model, few[:2], (2,), measure=measure, layers=["model.layers.0.mlp.up_proj"])
    added_nats_of(model, few[:2], Recipe.of("rtn", 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())
    assert not quantized_layers(model)


def test_batches_change_nothing_but_the_rounding_of_sums(trained, few):
    whole, parts = (
        layer_sensitivity(trained[0], few[:6], (3,), measure="taylor", batch_tokens=tokens, seed=3)
        for tokens in (6 * 64, 2 * 64)
    )
    torch.testing.assert_close(
        torch.tensor(whole["output_error"].to_numpy()), torch.tensor(parts["output_error"].to_numpy())
    )
    first, second = (torch.tensor(table["added_nats"].to_numpy()) for table in (whole, parts))
    assert torch.allclose(first, second, rtol=1e-3, atol=1e-7)


def test_a_seed_means_the_same_numbers_again(trained, few):
    tables = [layer_sensitivity(trained[0], few[:2], (2,), seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["added_nats"].equals(tables[2]["added_nats"])


def test_the_second_order_is_that_of_the_softmax_where_the_layer_gives_the_logits_themselves():
    """A model that is one layer on one position: the Gauss-Newton matrix is diag(p) - p p', exactly."""
    torch.manual_seed(0)
    model = small_lm(11, ModelSize(32, 1, 2), context=8, seed=0).eval()
    tokens = torch.randint(0, 11, (400, 2))
    tokens[:, 0] = 3  # one context, so that only the drawn token varies
    table = layer_sensitivity(model, tokens, (2,), layers=["model.layers.0.mlp.down_proj"], batch_tokens=400)
    module = model.get_submodule("model.layers.0.mlp.down_proj")
    kept, found = {}, quantized_layers(_copy_at(model, 2))["model.layers.0.mlp.down_proj"]
    handle = module.register_forward_hook(lambda layer, args, output: kept.update(x=args[0], y=output))
    logits = model(input_ids=tokens[:1, :1]).logits[0, 0]
    handle.remove()
    error = (kept["x"] @ (found.dequantize() - module.weight).T).detach()
    slope = torch.stack([torch.autograd.grad(one, kept["y"], retain_graph=True)[0][0, 0] for one in logits])
    p = logits.detach().softmax(-1)
    moved = slope @ error[0, 0]
    exact = float((p * moved.square()).sum() - (p * moved).sum().square()) / 2
    row = table.iloc[0]
    assert row["added_nats"] == pytest.approx(exact, abs=4 * row["standard_error"])
    assert row["standard_error"] < 0.2 * exact


def _copy_at(model: nn.Module, bits: int) -> nn.Module:
    from workbench.quantizers.model import quantize_model

    return quantize_model(model, Recipe.of("rtn", bits), in_place=False)


def test_the_output_error_is_that_of_a_product_by_hand(trained, few):
    name = "model.layers.1.mlp.up_proj"
    table = layer_sensitivity(trained[0], few[:2], (4,), measure="output", layers=[name])
    kept = []
    module = trained[0].get_submodule(name)
    handle = module.register_forward_pre_hook(lambda layer, args: kept.append(args[0]))
    with torch.no_grad():
        trained[0](input_ids=few[:2, :-1])
        rounded = quantized_layers(_copy_at(trained[0], 4))[name].dequantize()
        by_hand = (kept[0] @ (rounded - module.weight).T).norm() / (kept[0] @ module.weight.T).norm()
    handle.remove()
    assert table["output_error"][0] == pytest.approx(float(by_hand), rel=1e-5)
    assert table["added_nats"].isna()[0]
    with pytest.raises(ValueError, match="no nats"):
        cheapest_recipe(table, 1e9)


def test_methods_that_look_at_inputs_are_made_by_one_calibrated_pass(trained, few):
    names = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"]
    rules = [LayerRecipe(QuantSpec(2), method) for method in ("rtn", "gptq")]
    table = layer_sensitivity(trained[0], few, rules, layers=names, calibration=few[:, :-1])
    errors = table.pivot(index="layer", columns="method", values="output_error")
    assert (errors["gptq"] < errors["rtn"]).all()


TABLE = pd.DataFrame(
    [
        {"layer": layer, "bits": bits, "method": "rtn" if bits < 32 else FLOAT, "added_nats": value,
         "standard_error": 0.01, "bytes": 10 * bits}
        for layer, values in {"a": (0.9, 0.2, 0.0), "b": (0.1, 0.09, 0.0), "c": (-0.5, 0.3, 0.0)}.items()
        for bits, value in zip((2, 4, 32), values, strict=True)
    ]
)  # fmt: skip


def test_a_prediction_is_the_sum_by_hand_and_layers_left_out_stay_as_they_are():
    found = predict_added_nats(TABLE, {"a": 2, "b": 4})
    assert found.added_nats == pytest.approx(0.99)
    assert found.bytes == 20 + 40 + 320
    assert found.standard_error == pytest.approx(0.03)


def test_with_windows_the_error_is_that_of_the_sum_and_not_the_sum_of_errors():
    table = TABLE.assign(window_nats=[[1.0, -1.0] if layer == "a" else [-1.0, 1.0] for layer in TABLE["layer"]])
    table.loc[table["layer"] == "c", "window_nats"] = pd.Series([[0.0, 0.0]] * 9)
    assert predict_added_nats(table, {"a": 2, "b": 2}).standard_error == 0.0


def test_the_cheapest_recipe_is_the_best_of_all_choices():
    def cost(choice):
        told = {("a", 2): 0.9, ("a", 4): 0.2, ("b", 2): 0.1, ("b", 4): 0.09, ("c", 2): 0.3, ("c", 4): 0.3}
        return sum(told.get(item, 0.0) for item in choice.items())

    every = [
        dict(zip("abc", bits, strict=True)) for bits in torch.cartesian_prod(*[torch.tensor([2, 4, 32])] * 3).tolist()
    ]
    for limit in (60, 80, 100, 380, 400, 700, 960):
        best = min(cost(choice) for choice in every if 10 * sum(choice.values()) <= limit)
        found = cheapest_recipe(TABLE, limit)
        assert 10 * sum(found.values()) <= limit
        assert cost(found) == pytest.approx(best), limit


def test_a_limit_below_the_fewest_bits_names_the_least_size():
    with pytest.raises(ValueError, match="below 60"):
        cheapest_recipe(TABLE, 59)


def test_a_choice_becomes_a_recipe_with_the_commonest_rule_as_default():
    recipe = as_recipe({"a": 4, "b": 4, "c": 2, "d": 32})
    four, two = (Recipe.of("rtn", bits).default for bits in (4, 2))
    assert recipe.default == four
    assert recipe.overrides == {"c": two, "d": None}
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert as_recipe({"a": 32, "b": 32, "c": 2}).default is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda model, ids: layer_sensitivity(model, ids, ()), ValueError, "recipes is empty"),
        (lambda model, ids: layer_sensitivity(model, ids, measure="los"), UnknownName, "Did you mean 'loss'"),
        (lambda model, ids: layer_sensitivity(model, ids, layers=["model.layers.0.mlp.up"]), UnknownName, "up_proj"),
        (lambda model, ids: layer_sensitivity(model, ids[:0]), ValueError, "at least one window"),
        (lambda model, ids: layer_sensitivity(model, ids.float()), TypeError, "integers"),
        (lambda model, ids: layer_sensitivity(model, ids + 9999), ValueError, "use its tokenizer"),
        (lambda model, ids: layer_sensitivity(model, ids, (QuantSpec(4, 48),)), ValueError, "q_proj"),
        (lambda model, ids: layer_sensitivity(model, ids, ("4",)), TypeError, "bits, a QuantSpec"),
        (
            lambda model, ids: layer_sensitivity(model, ids, (LayerRecipe(QuantSpec(4), "gptq"),)),
            ValueError,
            "calibration",
        ),
        (lambda model, ids: as_recipe({}), ValueError, "choice is empty"),
        (lambda model, ids: as_recipe({"a": 4}, (4, QuantSpec(4))), ValueError, "same bits"),
        (lambda model, ids: predict_added_nats(TABLE, {"a": 3}), UnknownName, "not one of 2, 4, 32"),
        (lambda model, ids: predict_added_nats(TABLE, {"e": 2}), UnknownName, "layer='e'"),
        (lambda model, ids: predict_added_nats(pd.concat([TABLE, TABLE]), {}), ValueError, "twice"),
    ],
)
def test_what_cannot_work_is_refused_in_words(trained, few, call, error, words):
    with pytest.raises(error, match=words):
        call(trained[0], few)
