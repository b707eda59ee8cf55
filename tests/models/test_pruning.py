"""Structured pruning: what is kept, what is refused, and that nothing changes when nothing is taken."""

import pytest
import torch

from workbench.models.pruning import axis_sparsity, importance, sparser, structured_prune
from workbench.models.small_lm import ModelSize, size_of, small_lm

SIZE = ModelSize(32, 2, 4, feed_forward=40)
BATCHES = [torch.randint(31, (4, 13), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


@pytest.fixture
def model():
    return small_lm(31, SIZE, context=16, seed=0)


def test_pruning_to_the_full_size_gives_the_same_logits(model):
    pruned = structured_prune(model, SIZE, BATCHES)
    assert torch.equal(pruned(input_ids=BATCHES[0]).logits, model(input_ids=BATCHES[0]).logits)
    assert structured_prune(model, 0.0, BATCHES) is not model


def test_the_model_stays_as_it_was(model):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    structured_prune(model, ModelSize(16, 1, 2, 24, 8), BATCHES)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_pruned_model_has_the_size_asked_for_and_answers(model):
    wanted = ModelSize(16, 1, 2, 24, 8)
    pruned = structured_prune(model, wanted, BATCHES)
    assert size_of(pruned) == wanted
    assert torch.isfinite(pruned(input_ids=BATCHES[0]).logits).all()


def test_a_head_and_a_neuron_that_do_nothing_are_the_first_to_go(model):
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight[:, 8:16] = 0  # the second head writes nothing
            block.mlp.down_proj.weight[:, 7] = 0
    found = importance(model, BATCHES)
    assert torch.equal(found.heads.argmin(1), torch.tensor([1, 1]))
    assert torch.equal(found.neurons.argmin(1), torch.tensor([7, 7]))
    pruned = structured_prune(model, ModelSize(32, 2, 3, 39, 8), BATCHES)
    torch.testing.assert_close(pruned(input_ids=BATCHES[0]).logits, model(input_ids=BATCHES[0]).logits)


def test_head_importance_has_norm_one_in_every_layer(model):
    assert torch.allclose(importance(model, BATCHES).heads.norm(dim=1), torch.ones(2))


def test_a_block_that_adds_nothing_is_dropped_without_loss(model):
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
    pruned = structured_prune(model, ModelSize(32, 1, 4, 40, 8), BATCHES)
    torch.testing.assert_close(pruned(input_ids=BATCHES[0]).logits, model(input_ids=BATCHES[0]).logits)


@pytest.mark.parametrize(("sparsity", "per_axis"), [(0, 0), (75, 50), (60, 37), (99, 90)])
def test_two_axes_share_the_sparsity_by_the_square_root(sparsity, per_axis):
    assert axis_sparsity(sparsity) == per_axis


def test_three_quarters_of_the_weights_are_half_of_every_axis():
    assert sparser(SIZE, 75) == ModelSize(16, 2, 2, 20, 8)


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ValueError, match="larger than the model"):
        structured_prune(model, ModelSize(64, 2, 4, 40, 8), BATCHES)
    with pytest.raises(ValueError, match="head_width"):
        structured_prune(model, ModelSize(32, 2, 2), BATCHES)
    with pytest.raises(ValueError, match="no batch"):
        structured_prune(model, SIZE, [])
    with pytest.raises(ValueError, match="sparsity"):
        structured_prune(model, 100.0, BATCHES)


def test_heads_that_share_keys_are_kept_whole_and_the_rest_is_pruned():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shared = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    whole = structured_prune(shared, ModelSize(32, 2, 4, 40, 8), BATCHES)
    assert torch.equal(whole(input_ids=BATCHES[0]).logits, shared(input_ids=BATCHES[0]).logits)
    smaller = structured_prune(shared, ModelSize(16, 1, 4, 24, 8), BATCHES)
    assert (smaller.config.num_attention_heads, smaller.config.num_key_value_heads) == (4, 2)
    assert torch.isfinite(smaller(input_ids=BATCHES[0]).logits).all()
    with pytest.raises(ValueError, match="heads share keys and values .*heads=4"):
        structured_prune(shared, ModelSize(16, 1, 2, 24, 8), BATCHES)


def test_only_a_llama_can_be_pruned():
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=1, n_head=2, n_positions=16))
    with pytest.raises(ValueError, match="gpt2 model has another build than the Llama"):
        structured_prune(other, SIZE, BATCHES)
