"""Small language models: their counts, their seeds, and the stack that computes many at once."""

import pytest
import torch

from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import (
    ModelSize,
    count_parameters,
    initial_weights,
    llama,
    size_for,
    size_of,
    small_lm,
)
from workbench.models.stacked_lm import LeanLM, StackedLM

SIZES = [ModelSize(16, 1, 1), ModelSize(32, 2, 2), ModelSize(24, 1, 3, feed_forward=20), ModelSize(32, 1, 1, None, 16)]


def test_the_count_by_hand_is_the_count_of_the_model():
    size = ModelSize(16, 1, 1, feed_forward=40)
    by_hand = 65 * 16 + 4 * 16 * 16 + 3 * 16 * 40 + 3 * 16
    model = small_lm(65, size, context=8, seed=0)
    assert size.parameters(65) == count_parameters(model) == by_hand
    assert size.parameters(65, embeddings=False) == count_parameters(model, embeddings=False) == by_hand - 65 * 16


@pytest.mark.parametrize("size", SIZES)
def test_every_size_counts_as_its_model_does_and_is_read_back_from_it(size):
    model = small_lm(31, size, context=8, seed=0)
    assert count_parameters(model) == size.parameters(31)
    assert size_of(model) == size


def test_an_untied_output_layer_counts_as_an_embedding():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 3))
    assert count_parameters(model) == 40 + 15
    assert count_parameters(model, embeddings=False) == 15


@pytest.mark.parametrize("wanted", [3_000, 10_000, 100_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("embeddings", [True, False])
def test_a_target_count_is_met_within_two_percent(wanted, embeddings):
    assert size_for(wanted, 65, embeddings=embeddings).parameters(65, embeddings=embeddings) == pytest.approx(
        wanted, rel=0.02
    )


def test_a_target_count_below_the_smallest_model_is_refused():
    with pytest.raises(ValueError, match="too few"):
        size_for(100, 65)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((30, 1, 4), "multiple of heads"), ((12, 1, 4), "even number"), ((0, 1, 1), "width"), ((16, 1, 1, 0), "feed")],
)
def test_sizes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModelSize(*arguments)


def test_the_weights_depend_on_the_seed_alone_and_the_callers_stream_stays():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = small_lm(31, SIZES[0], context=8, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = small_lm(31, SIZES[0], context=8, seed=3), small_lm(31, SIZES[0], context=8, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_a_fresh_model_knows_nothing():
    tokens = torch.randint(65, (8, 33), generator=torch.Generator().manual_seed(0))
    loss = next_token_loss(small_lm(65, SIZES[1], context=32, seed=0), tokens)
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item(), abs=0.3)


@pytest.mark.parametrize("size", SIZES)
def test_the_stack_gives_every_replica_the_logits_and_gradients_of_its_transformers_model(size):
    weights = [initial_weights(31, size, seed=seed) for seed in range(3)]
    stack = StackedLM(weights, size, context=16)
    tokens = torch.randint(31, (3, 2, 12), generator=torch.Generator().manual_seed(1))
    models = [llama(one, size, context=16) for one in weights]
    alone = torch.stack([model(input_ids=ids).logits for model, ids in zip(models, tokens, strict=True)])
    stacked = stack(tokens)
    torch.testing.assert_close(stacked, alone, atol=2e-6, rtol=1e-5)
    stacked.square().sum().backward()
    alone.square().sum().backward()
    for name, weight in zip(stack.names, stack.weights, strict=True):
        grads = torch.stack([dict(model.named_parameters())[name].grad for model in models])
        torch.testing.assert_close(weight.grad, grads, atol=1e-4, rtol=1e-4)


def test_one_batch_for_all_replicas_is_the_same_batch_for_each():
    stack = StackedLM([initial_weights(31, SIZES[0], seed=seed) for seed in range(2)], SIZES[0], context=16)
    tokens = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(stack(tokens), stack(torch.stack([tokens, tokens])))


def test_a_replicas_gradient_is_clipped_by_its_own_norm():
    weights = [initial_weights(31, SIZES[0], seed=0)] * 2
    stack = StackedLM(weights, SIZES[0], context=16)
    tokens = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(1))
    logits = stack(tokens)
    (100 * logits[0].square().mean() + 1e-6 * logits[1].square().mean()).backward()
    small = [weight.grad[1].clone() for weight in stack.weights]
    stack.clip_gradients(1.0)
    norm = sum(weight.grad[0].square().sum() for weight in stack.weights).sqrt()
    assert norm.item() == pytest.approx(1.0, abs=1e-4)
    assert all(torch.equal(weight.grad[1], kept) for weight, kept in zip(stack.weights, small, strict=True))


def test_replicas_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="stack each size by itself"):
        StackedLM([initial_weights(31, size, seed=0) for size in SIZES[:2]], SIZES[0], context=8)


def test_a_stack_of_one_without_its_axis_is_the_model():
    weights = initial_weights(31, SIZES[0], seed=0)
    lean = LeanLM(weights, SIZES[0], context=16)
    tokens = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(lean(tokens), StackedLM([weights], SIZES[0], context=16)(tokens)[0])
    assert all(torch.equal(lean.replica(0)[name], weights[name]) for name in weights)
