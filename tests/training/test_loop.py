"""The training loop: same seed same bits, early stop, accumulation, and what it refuses."""

import math

import pytest
import torch

from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import LeanLM
from workbench.training import TrainingDiverged, fit, random_windows
from workbench.training.schedule import lr_factor

SIZE = ModelSize(16, 1, 1)


@pytest.fixture
def text(task):
    return task.prepare()


def fresh(text, seed=0):
    return LeanLM(initial_weights(text.vocab_size, SIZE, seed=seed), SIZE, context=text.context)


def windows(text, seed=0, batch_size=4):
    return random_windows(text.training, context=text.context, batch_size=batch_size, seed=seed)


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_the_loss_falls_on_real_text_and_two_runs_of_one_seed_are_equal_bit_for_bit(text):
    models = [fresh(text), fresh(text)]
    histories = [fit(model, windows(text), next_token_loss, steps=60, lr=0.02, label=None) for model in models]
    assert torch.equal(weights(models[0]), weights(models[1]))
    loss = histories[0].table.query("quantity == 'loss'").value
    assert loss.iloc[-1] < loss.iloc[0] - 0.7
    assert histories[0].table.equals(histories[1].table)


def test_another_seed_gives_other_batches():
    tokens = torch.arange(1000).numpy()
    one, same, other = (next(random_windows(tokens, context=4, batch_size=8, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_dropout_follows_the_seed_and_the_callers_stream_stays():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        torch.nn.init.ones_(model[1].weight)
        torch.nn.init.zeros_(model[1].bias)
        torch.random.set_rng_state(before)
        fit(model, [torch.ones(2, 4)], lambda m, x: m(x).square().mean(), steps=3, lr=0.1, seed=seed, label=None)
        assert torch.equal(torch.random.get_rng_state(), before)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_early_stop_gives_back_the_best_weights(text):
    model, values, seen = fresh(text), iter([3.0, 1.0, 2.0, 2.5, 0.0]), []

    def evaluate(current):
        seen.append(weights(current).clone())
        return next(values)

    history = fit(
        model, windows(text), next_token_loss, steps=50, lr=0.01, evaluate=evaluate, evaluate_every=5, patience=2,
        label=None,
    )  # fmt: skip
    assert (history.stopped, history.best_step, history.steps) == ("patience", 10, 20)
    assert torch.equal(weights(model), seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_accumulating_equal_batches_is_one_large_batch(text):
    large, small = fresh(text).double(), fresh(text).double()
    whole = [next(windows(text, batch_size=8)) for _ in range(1)]
    halves = [whole[0][:4], whole[0][4:]]
    fit(large, whole, next_token_loss_in_double, steps=5, lr=0.01, label=None)
    fit(small, halves, next_token_loss_in_double, steps=5, lr=0.01, accumulate=2, label=None)
    torch.testing.assert_close(weights(small), weights(large), atol=1e-9, rtol=0)


def next_token_loss_in_double(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def test_a_hook_sees_every_step_and_stop_keeps_what_is_done(text):
    seen = []
    history = fit(
        fresh(text), windows(text), next_token_loss, steps=100, lr=0.01,
        on_step=lambda step, known: seen.append((step, known["loss"])), stop=lambda: len(seen) == 7, label=None,
    )  # fmt: skip
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert (history.steps, history.stopped) == (7, "asked")


def test_a_loss_that_is_not_finite_ends_the_run_with_a_sentence(text):
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 1 of 5: lower lr"):
        fit(fresh(text), windows(text), lambda m, b: next_token_loss(m, b) * math.nan, steps=5, lr=0.01, label=None)


def test_batches_that_end_start_over_if_they_can_and_else_say_so(text):
    twice = [next(windows(text))] * 2
    assert fit(fresh(text), twice, next_token_loss, steps=5, lr=0.01, label=None).steps == 5
    with pytest.raises(ValueError, match="batches ended after 2 of the 5"):
        fit(fresh(text), iter(twice), next_token_loss, steps=5, lr=0.01, label=None)


def test_gradients_are_clipped(text):
    moved = {}
    for clip in (1e-9, None):
        model = fresh(text)
        before = weights(model)
        # Plain descent would not move at all; AdamW's division hides the size of small gradients but for its epsilon.
        fit(model, windows(text), next_token_loss, steps=1, lr=0.01, clip=clip, label=None)
        moved[clip] = (weights(model) - before).abs().max().item()
    assert moved[1e-9] < 0.2 * moved[None]


def test_bfloat16_keeps_the_weights_in_float32_and_still_learns(text):
    model = fresh(text)
    history = fit(model, windows(text), next_token_loss, steps=30, lr=0.02, precision="bfloat16", label=None)
    loss = history.table.query("quantity == 'loss'").value
    assert weights(model).dtype == torch.float32
    assert loss.iloc[-1] < loss.iloc[0] - 0.4


def test_the_schedule_rises_to_one_and_falls_towards_nothing():
    factors = [lr_factor(step, 100, warmup=0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[-1] < 0.001
    assert lr_factor(99, 100, schedule="constant") == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"lr": math.nan}, "lr"),
        ({"precision": "bf16"}, "precision"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"patience": 1}, "patience needs evaluate"),
    ],
)
def test_what_cannot_work_is_refused(text, options, message):
    with pytest.raises(ValueError, match=message):
        fit(fresh(text), windows(text), next_token_loss, **{"steps": 1, "lr": 0.1, "label": None, **options})


def test_a_model_without_anything_to_train_is_refused(text):
    with pytest.raises(ValueError, match="nothing to train"):
        fit(fresh(text).requires_grad_(False), windows(text), next_token_loss, steps=1, lr=0.1, label=None)
