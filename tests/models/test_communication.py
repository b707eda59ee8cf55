"""Encoders and decoders of messages, and models cut into stages that compute what the whole model does."""

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaForCausalLM

from workbench.models.communication import CommunicationModule
from workbench.models.pretrained import load_pretrained
from workbench.models.splits import SplitModel, TransformerLayers, pooled_states, split_mlp
from workbench.runtime import generator, seeded


def test_a_linear_pair_has_the_parameters_that_one_counts():
    assert CommunicationModule(10, 4).parameter_count == (10 * 4 + 4) + (4 * 10 + 10)
    deep = CommunicationModule(10, 4, depth=2)
    assert deep.parameter_count == (10 * 10 + 10 + 10 * 4 + 4) + (4 * 10 + 10 + 10 * 10 + 10)


def test_decoded_states_of_a_relu_layer_are_never_negative():
    module = CommunicationModule(16, 8, nonnegative=True)
    decoded = module.decode(torch.randn(50, 8, generator=generator(0)))
    assert decoded.min() == 0
    assert decoded.max() > 0


def test_messages_are_the_same_whatever_the_scale_of_the_states():
    states = torch.randn(200, 12, generator=generator(1)) + 3
    with seeded(0):
        small = CommunicationModule(12, 5).calibrate(states)
    with seeded(0):
        large = CommunicationModule(12, 5).calibrate(1000 * states)
    torch.testing.assert_close(small.encode(states), large.encode(1000 * states), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(1000 * small.decode(small.encode(states)), large.decode(large.encode(1000 * states)),
                               rtol=1e-3, atol=1e-1)  # fmt: skip


def test_a_unit_that_never_moves_gives_finite_messages():
    states = torch.randn(20, 3, generator=generator(2)) * torch.tensor([1.0, 0.0, 1.0])
    module = CommunicationModule(3, 2).calibrate(states)
    assert module.encode(states).isfinite().all()
    assert CommunicationModule(3, 2).calibrate(torch.zeros(5, 3)).encode(torch.zeros(1, 3)).isfinite().all()


def test_a_state_of_another_width_is_refused_in_one_sentence():
    module = CommunicationModule(16, 8)
    with pytest.raises(ValueError, match="hidden has width 12, this module was made for 16"):
        module.encode(torch.zeros(2, 12))
    with pytest.raises(ValueError, match="message has width 16"):
        module.decode(torch.zeros(2, 16))
    with pytest.raises(ValueError, match="message_dim=0"):
        CommunicationModule(4, 0)


def test_stages_one_after_the_other_are_the_network():
    model = split_mlp(6, 5, 3, generator=generator(0))
    inputs = torch.randn(4, 6, generator=generator(1))
    lower, upper = model.states(inputs)
    torch.testing.assert_close(model.head(model.upper(lower)), model(inputs))
    assert lower.min() >= 0
    assert upper.min() >= 0


def test_stages_of_two_widths_are_refused():
    model = SplitModel(torch.nn.Linear(4, 8), torch.nn.Linear(8, 6), hidden_dim=8)
    with pytest.raises(ValueError, match=r"widths \(8, 6\), expected both to be hidden_dim=8"):
        model.states(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="without a head"):
        SplitModel(torch.nn.Identity(), torch.nn.Identity(), hidden_dim=4)(torch.zeros(1, 4))


@pytest.fixture(scope="module")
def small_models():
    with seeded(0):
        bert = BertModel(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                                    intermediate_size=32))  # fmt: skip
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
                                             num_key_value_heads=2, intermediate_size=32))  # fmt: skip
    return {"bert": bert.eval(), "llama": llama.eval()}


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3), (0, 3)])
def test_layers_run_by_hand_give_the_models_own_hidden_states(small_models, name, first, last):
    model = small_models[name]
    tokens = torch.randint(0, 50, (3, 7), generator=generator(1))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 5:] = False
    with torch.no_grad():
        states = model(tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        found = TransformerLayers(model, first, last)(states[first], mask)
    torch.testing.assert_close(found[mask], states[last][mask], rtol=1e-4, atol=1e-5)


def test_the_last_layers_of_minilm_give_its_last_states():
    model, tokenizer = load_pretrained("minilm", device="cpu")
    batch = tokenizer(["To be, or not to be", "Exit, pursued by a bear, and never seen again"], padding=True,
                      return_tensors="pt")  # fmt: skip
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
        found = TransformerLayers(model, 3, 6)(states[3], mask)
    torch.testing.assert_close(found[mask], states[6][mask], rtol=1e-4, atol=1e-5)


def test_a_single_state_is_a_text_of_one_token(small_models):
    layers = TransformerLayers(small_models["bert"], 1, 3)
    state = torch.randn(4, 16, generator=generator(3))
    torch.testing.assert_close(layers(state), layers(state.unsqueeze(1)).squeeze(1))


def test_only_models_whose_layers_are_known_are_run_by_hand(small_models):
    other = GPT2Model(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(TypeError, match="is a GPT2Model.*BertModel, LlamaModel, LlamaForCausalLM"):
        TransformerLayers(other, 0, 1)
    with pytest.raises(ValueError, match="first=2 must be below last=2"):
        TransformerLayers(small_models["bert"], 2, 2)
    with pytest.raises(ValueError, match="last"):
        TransformerLayers(small_models["bert"], 0, 9)


def test_pooled_states_are_means_over_a_texts_own_tokens():
    model, tokenizer = load_pretrained("minilm", device="cpu")
    texts = ["A plague on both your houses, and then some more words", "Words, words, words"]
    together = pooled_states(model, tokenizer, texts, layers=(3, 6))
    for place, text in enumerate(texts):  # alone there is no padding
        with torch.no_grad():
            states = model(**tokenizer([text], return_tensors="pt"), output_hidden_states=True).hidden_states
        for layer in (3, 6):
            torch.testing.assert_close(together[layer][place], states[layer][0].mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="one string"):
        pooled_states(model, tokenizer, "one text", layers=(1,))
