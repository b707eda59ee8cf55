"""Replicas: beside each other as alone, in answer, gradient and trajectory; what cannot be is refused by name."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, initial_weights, small_lm
from workbench.models.stacked_lm import LeanLM, StackedLM
from workbench.training.loop import TrainingDiverged, fit
from workbench.training.replicas import Replicas, fit_many

COUNT, BATCH = 3, 4
SIZE = ModelSize(16, 2, 2)
VOCABULARY, TIME = 40, 9


def mlp(seed, width=12):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 5)).double()


def convolutions(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3, stride=2, padding=1, padding_mode="reflect", groups=2), nn.GroupNorm(2, 4), nn.Flatten(),
        nn.Linear(16, 5),
    ).double()  # fmt: skip


def signals(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, momentum=None), nn.RMSNorm(4), nn.Flatten(), nn.Linear(12, 5)
    ).double()


def llama(seed):
    return small_lm(VOCABULARY, SIZE, context=16, seed=seed)


def noise(*shape, seed=0):
    return torch.randn(COUNT, BATCH, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(seed=0, time=TIME):
    return torch.randint(VOCABULARY, (COUNT, BATCH, time), generator=torch.Generator().manual_seed(seed))


KINDS = {
    "a perceptron with layer norm": (mlp, lambda: noise(6)),
    "convolutions with batch norm": (convolutions, lambda: noise(2, 8, 8)),
    "signals with a root-mean-square norm": (signals, lambda: noise(2, 6)),
    "a Llama with tied embeddings": (llama, tokens),
}


def logits(module, inputs):
    outputs = module(inputs)
    return getattr(outputs, "logits", outputs)


@pytest.fixture(params=list(KINDS), ids=list(KINDS))
def kind(request):
    make, inputs = KINDS[request.param]
    return [make(seed) for seed in range(COUNT)], inputs()


def test_answers_and_gradients_are_those_of_each_module_alone(kind):
    modules, inputs = kind
    stack = Replicas(modules)
    together = stack(inputs)
    assert together.shape[:2] == (COUNT, BATCH)
    together.square().mean(tuple(range(1, together.dim()))).sum().backward()
    found = {name: tensor.grad for name, tensor in stack.module.named_parameters()}
    for place, module in enumerate(modules):
        alone = logits(module, inputs[place])
        torch.testing.assert_close(together[place], alone, rtol=1e-5, atol=1e-6)
        alone.square().mean().backward()
        wanted = {name: tensor.grad for name, tensor in module.named_parameters()}
        assert wanted.keys() == found.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name][place], gradient, rtol=1e-4, atol=1e-6)


def test_a_replica_taken_out_is_the_module_that_was_put_in(kind):
    modules, inputs = kind
    before = copy.deepcopy(modules)
    stack = Replicas(modules)
    for place, module in enumerate(before):
        out = stack.replica(place)
        assert {name: value.shape for name, value in out.state_dict().items()} == {
            name: value.shape for name, value in module.state_dict().items()
        }
        assert torch.equal(logits(out.eval(), inputs[place]), logits(module.eval(), inputs[place]))


def test_the_first_comparison_leaves_batch_norms_statistics_alone():
    modules = [convolutions(seed) for seed in range(COUNT)]
    inputs = noise(2, 8, 8)
    stack = Replicas(modules)
    stack(inputs)
    for place, module in enumerate(modules):
        module(inputs[place])
        torch.testing.assert_close(stack.replica(place)[1].running_var, module[1].running_var)
        assert stack.replica(place)[1].num_batches_tracked == 1


def classify(module, batch):
    inputs, labels = batch
    return F.cross_entropy(module(inputs), labels)


def classify_all(stack, batch):
    inputs, labels = batch
    each = F.cross_entropy(stack(inputs).flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(stack.replicas, -1).mean(1)


def next_tokens(stack, batch):
    """``[replicas]`` means of the cross-entropy of windows ``[replicas, batch, time + 1]``."""
    answers = stack(batch[..., :-1])
    each = F.cross_entropy(answers.flatten(0, -2), batch[..., 1:].flatten(), reduction="none")
    return each.view(stack.replicas, -1).mean(1)


RECIPE = {"steps": 25, "lr": 0.02, "warmup": 0.1, "weight_decay": 0.3, "clip": 0.05, "label": None}


@pytest.mark.parametrize(
    ("make", "shape"), [(mlp, (6,)), (convolutions, (2, 8, 8))], ids=["perceptron", "convolutions"]
)
def test_every_trajectory_is_the_one_of_plain_fit_with_clipping_and_weight_decay(make, shape):
    batches = [(noise(*shape, seed=step), torch.randint(5, (COUNT, BATCH))) for step in range(7)]
    models, alone = ([make(seed) for seed in range(COUNT)] for _ in range(2))
    histories = fit_many(models, batches, classify_all, **RECIPE)
    for place, (model, other) in enumerate(zip(models, alone, strict=True)):
        history = fit(other, [(x[place], y[place]) for x, y in batches], classify, **RECIPE)
        for name, value in other.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-9)
        assert histories[place].steps == 25
        assert histories[place].table.step.tolist() == history.table.step.tolist()
        assert histories[place].table.value.tolist() == pytest.approx(history.table.value.tolist(), rel=1e-5)


def test_trajectories_of_language_models_are_those_of_plain_fit():
    batches = [tokens(seed=step, time=TIME + 1) for step in range(20)]
    models, alone = ([llama(seed) for seed in range(COUNT)] for _ in range(2))
    fit_many(models, batches, next_tokens, **{**RECIPE, "steps": 20})
    for place, (model, other) in enumerate(zip(models, alone, strict=True)):
        fit(other, [batch[place] for batch in batches], next_token_loss, **{**RECIPE, "steps": 20})
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        for one, wanted in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, wanted, rtol=0, atol=2e-4)


def test_a_ready_stack_of_language_models_is_trained_as_it_stands():
    starts = [initial_weights(VOCABULARY, SIZE, seed=seed) for seed in range(COUNT)]
    batches = [tokens(seed=step, time=TIME + 1) for step in range(20)]
    stack = StackedLM(starts, SIZE, context=16)
    fit_many(stack, batches, next_tokens, **{**RECIPE, "steps": 20})
    for place, start in enumerate(starts):
        other = LeanLM(start, SIZE, context=16)
        fit(other, [batch[place] for batch in batches], next_token_loss, **{**RECIPE, "steps": 20})
        for one, wanted in zip(stack.replica(place).values(), other.replica(0).values(), strict=True):
            torch.testing.assert_close(one, wanted, rtol=0, atol=2e-4)


def test_accumulated_batches_are_one_step_as_in_plain_fit():
    batches = [(noise(6, seed=step), torch.randint(5, (COUNT, BATCH))) for step in range(6)]
    models, alone = ([mlp(seed) for seed in range(COUNT)] for _ in range(2))
    histories = fit_many(models, batches, classify_all, accumulate=2, **{**RECIPE, "steps": 3})
    for place in range(COUNT):
        one = fit(alone[place], [(x[place], y[place]) for x, y in batches], classify, accumulate=2,
                  **{**RECIPE, "steps": 3})  # fmt: skip
        torch.testing.assert_close(models[place][0].weight, alone[place][0].weight, rtol=1e-9, atol=1e-9)
        assert histories[place].last("loss") == pytest.approx(one.last("loss"), rel=1e-6)


@pytest.mark.parametrize("how", ["the loss is infinite", "the output is not a number"])
def test_a_replica_that_diverges_stops_and_does_not_disturb_the_others(how):
    batches = [(noise(6, seed=step), torch.randint(5, (COUNT, BATCH))) for step in range(12)]
    lost = 1
    models, alone = ([mlp(seed) for seed in range(COUNT)] for _ in range(2))
    count, at_loss = [0], {}

    def loss(stack, batch):
        count[0] += 1
        values = classify_all(stack, batch)
        if count[0] == 5:
            at_loss["weights"] = stack.replica(lost)[0].weight.detach().clone()
            if how == "the loss is infinite":
                return torch.stack([value * math.inf if place == lost else value for place, value in enumerate(values)])
        return values

    if how == "the output is not a number":
        batches[4][0][lost] = math.nan
    known = []
    histories = fit_many(models, batches, loss, on_step=lambda step, one: known.append(one["loss"].tolist()),
                         **{**RECIPE, "steps": 12})  # fmt: skip
    assert [history.stopped for history in histories] == ["steps", "diverged", "steps"]
    assert [history.steps for history in histories] == [12, 4, 12]
    assert math.isfinite(known[3][lost])
    assert all(math.isnan(row[lost]) for row in known[4:])
    assert torch.equal(models[lost][0].weight, at_loss["weights"])
    for place in (0, 2):
        fit(alone[place], [(x[place], y[place]) for x, y in batches], classify, **{**RECIPE, "steps": 12})
        torch.testing.assert_close(models[place][0].weight, alone[place][0].weight, rtol=1e-9, atol=1e-9)


def test_a_lost_replica_has_the_weights_that_plain_fit_leaves():
    batches = [(noise(6, seed=step), torch.randint(5, (COUNT, BATCH))) for step in range(6)]
    batches[3][0][0] = math.nan
    models, alone = ([mlp(seed) for seed in range(COUNT)] for _ in range(2))
    fit_many(models, batches, classify_all, **{**RECIPE, "steps": 6})
    with pytest.raises(TrainingDiverged, match="at step 4 of 6"):
        fit(alone[0], [(x[0], y[0]) for x, y in batches], classify, **{**RECIPE, "steps": 6})
    for one, wanted in zip(models[0].parameters(), alone[0].parameters(), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-9)


def test_when_all_are_lost_the_run_ends():
    batches = [(noise(6), torch.randint(5, (COUNT, BATCH)))]
    histories = fit_many(
        [mlp(seed) for seed in range(COUNT)], batches, lambda stack, batch: classify_all(stack, batch) * math.nan,
        **{**RECIPE, "steps": 1000},
    )  # fmt: skip
    assert {(history.stopped, history.steps) for history in histories} == {("diverged", 0)}


def test_evaluations_are_recorded_for_each():
    batches = [(noise(6, seed=step), torch.randint(5, (COUNT, BATCH))) for step in range(4)]

    def evaluate(stack):
        assert not stack.training
        return {"held_out": classify_all(stack, batches[0])}

    histories = fit_many([mlp(seed) for seed in range(COUNT)], batches, classify_all, evaluate=evaluate,
                         evaluate_every=2, **{**RECIPE, "steps": 4})  # fmt: skip
    found = [history.table.query("quantity == 'held_out'") for history in histories]
    assert all(table.step.tolist() == [2, 4] for table in found)
    assert len({table.value.iloc[-1] for table in found}) == COUNT


def test_what_is_frozen_in_the_modules_stays_as_it_is():
    models = [mlp(seed) for seed in range(COUNT)]
    for model in models:
        model[0].requires_grad_(False)
    before = [model[0].weight.clone() for model in models]
    fit_many(models, [(noise(6), torch.randint(5, (COUNT, BATCH)))], classify_all, **{**RECIPE, "steps": 3})
    assert all(torch.equal(model[0].weight, kept) for model, kept in zip(models, before, strict=True))


class Mixing(nn.Module):
    """Looks over the whole batch: what one replica sees would be the others' too."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 5)

    def forward(self, rows):
        return self.inner(rows) - rows.mean()


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, rows):
        return rows + self.shift


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 6), Bare()), "^1 is a Bare with weights of its own .shift."),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.1)), "^1 drops with p=0.1"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU()), "^1 is a PReLU"),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))), "^0 is a Parametrized"),
        (Mixing, "mixes the rows of a batch"),
    ],
    ids=["a bare parameter", "dropout", "a layer without a form", "parametrised weights", "mixed rows"],
)
def test_what_cannot_be_a_replica_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        Replicas([make() for _ in range(COUNT)])(noise(6).float())


def test_dropout_is_no_hindrance_where_nothing_is_trained():
    modules = [nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)).eval() for _ in range(COUNT)]
    inputs = noise(6).float()
    torch.testing.assert_close(Replicas(modules)(inputs)[2], modules[2](inputs[2]))


def test_modules_of_different_build_and_inputs_of_other_shape_are_refused():
    with pytest.raises(ValueError, match="module 1 is built differently"):
        Replicas([mlp(0), mlp(0, width=8)])
    with pytest.raises(ValueError, match="modules is empty"):
        Replicas([])
    stack = Replicas([mlp(seed) for seed in range(COUNT)])
    with pytest.raises(ValueError, match="for 2 replicas, but there are 3"):
        stack(noise(6)[:2])
    with pytest.raises(ValueError, match=r"expected tensors \[replicas, batch"):
        stack(noise(6)[0, 0])
    with pytest.raises(ValueError, match="the loss must be a tensor .replicas."):
        fit_many([mlp(0)], [noise(6)[:1]], lambda stack, batch: stack(batch).mean(), **RECIPE)


def test_a_token_beyond_the_vocabulary_is_refused_and_not_looked_up_at_a_neighbours():
    inputs = tokens()
    inputs[0, 0, 0] = VOCABULARY
    with pytest.raises(IndexError, match="embed_tokens was given the entries"):
        Replicas([llama(seed) for seed in range(COUNT)])(inputs)
