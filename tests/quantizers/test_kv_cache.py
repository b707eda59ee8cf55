"""The packed cache: what it keeps, what it costs, and that transformers can generate with it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig
from transformers.cache_utils import QuantizedLayer

from workbench.quantizers.kv_cache import QuantizedKVCache
from workbench.quantizers.kv_packed import Packed

TEXT = (
    "The first railways drawn by steam were laid between mines and rivers. Their wagons carried coal, and later "
    "passengers who paid by the mile. Within thirty years every large town in England could be reached by rail, "
    "clocks were set to one time, and fish from the coast was sold inland on the day it was caught. Critics feared "
    "that cows beside the line would give no milk."
)


def states(batch: int, heads: int, tokens: int, channels: int, seed: int = 0) -> Tensor:
    values = torch.randn(batch, heads, tokens, channels, generator=torch.Generator().manual_seed(seed))
    return values * torch.logspace(-1, 1, channels) + torch.linspace(-3, 3, channels)  # channels with a mean, as keys


def kivi(old: Tensor, bits: int, axis: int, group: int) -> Tensor:
    """Asymmetric rounding by groups along one axis, with float16 ranges, written down (Liu et al. 2024)."""
    grouped = old.unflatten(axis, (-1, group))
    low, high = grouped.amin(axis, keepdim=True), grouped.amax(axis, keepdim=True)
    scale, low = ((high - low) / (2**bits - 1)).half().float(), low.half().float()
    return (((grouped - low) / scale).round().clamp(0, 2**bits - 1) * scale + low).flatten(axis - 1, axis)


def filled(cache: QuantizedKVCache, *chunks: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What the cache returns for the next token after these chunks, without that token."""
    for keys, values in chunks:
        cache.update(keys, values, 0)
    probe = copy.deepcopy(cache)
    keys, values = probe.update(chunks[0][0][..., :1, :], chunks[0][1][..., :1, :], 0)
    return keys[..., :-1, :], values[..., :-1, :]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_old_tokens_come_back_rounded_keys_by_channel_and_values_by_token(bits):
    keys, values = states(2, 3, 53, 16), states(2, 3, 53, 16, seed=1)
    got_keys, got_values = filled(QuantizedKVCache(bits=bits, group=8, residual=10), (keys, values))
    old = 40  # 43 tokens stand before the last ten: five whole groups of 8
    torch.testing.assert_close(got_keys[..., :old, :], kivi(keys[..., :old, :], bits, -2, 8), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got_values[..., :old, :], kivi(values[..., :old, :], bits, -1, 8), rtol=1e-6, atol=1e-6)
    assert torch.equal(got_keys[..., old:, :], keys[..., old:, :])
    assert torch.equal(got_values[..., old:, :], values[..., old:, :])


def test_however_the_tokens_come_the_cache_is_the_same():
    keys, values = states(1, 2, 60, 16), states(1, 2, 60, 16, seed=1)
    at_once, by_ones, mixed = (QuantizedKVCache(bits=4, group=8, residual=5) for _ in range(3))
    at_once.update(keys, values, 0)
    for start in range(60):
        by_ones.update(keys[..., start : start + 1, :], values[..., start : start + 1, :], 0)
    for start, stop in ((0, 1), (1, 29), (29, 33), (33, 60)):
        mixed.update(keys[..., start:stop, :], values[..., start:stop, :], 0)
    for other in (by_ones, mixed):
        assert other.nbytes == at_once.nbytes
        for one, two in zip(parts(at_once), parts(other), strict=True):
            assert torch.equal(one, two)


def parts(cache: QuantizedKVCache) -> list[Tensor]:
    layer = cache.layers[0]
    return [layer.keys, layer.values, *layer._old_keys.parts(), *layer._old_values.parts()]


def test_a_pass_sees_its_own_tokens_unrounded():
    keys, values = states(1, 2, 64, 16), states(1, 2, 64, 16, seed=1)
    got = QuantizedKVCache(bits=2, group=8, residual=0).update(keys, values, 0)
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)


@pytest.mark.parametrize(("bits", "expected"), [(2, 2 + 32 / 32), (4, 4 + 32 / 32), (8, 8 + 32 / 32)])
def test_bytes_are_codes_and_two_half_precision_numbers_per_group(bits, expected):
    cache = QuantizedKVCache(bits=bits, group=32, residual=0)
    cache.update(states(1, 3, 256, 64), states(1, 3, 256, 64), 0)
    assert cache.full_nbytes == 2 * 3 * 256 * 64 * 4
    assert cache.nbytes / cache.full_nbytes == expected / 32
    assert cache.nbytes == sum(part.numel() * part.element_size() for part in parts(cache))


def test_tokens_in_full_precision_hold_no_larger_storage_alive():
    cache = QuantizedKVCache(bits=4, group=32, residual=4)
    cache.update(states(1, 1, 128 + 4, 16), states(1, 1, 128 + 4, 16), 0)
    assert sum(part.untyped_storage().nbytes() for part in parts(cache)) == cache.nbytes


def test_a_head_that_groups_do_not_divide_has_one_range_per_token():
    keys, values = states(1, 1, 32, 24), states(1, 1, 32, 24, seed=1)
    _, got = filled(QuantizedKVCache(bits=4, group=16, residual=0), (keys, values))
    torch.testing.assert_close(got, kivi(values, 4, -1, 24), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("remove", [1, 5, 12, 13, 21, 43, 44, 500])
def test_crop_takes_off_the_last_tokens_wherever_they_are(remove):
    keys, values = states(1, 2, 44, 16), states(1, 2, 44, 16, seed=1)
    cache = QuantizedKVCache(bits=4, group=8, residual=8)
    before = filled(cache, (keys, values))
    cache.crop(-remove)
    left = max(0, 44 - remove)
    assert cache.get_seq_length() == left
    more = states(1, 2, 1, 16, seed=2)
    after = cache.update(more, more, 0)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(two[..., :-1, :], one[..., :left, :])
        assert torch.equal(two[..., -1:, :], more)


def test_beams_are_reordered_and_batches_repeated_and_selected_without_rounding_again():
    keys, values = states(3, 2, 40, 16), states(3, 2, 40, 16, seed=1)
    before = filled(QuantizedKVCache(bits=2, group=8, residual=8), (keys, values))
    order = torch.tensor([2, 0, 0])
    changes = {
        "reorder": (lambda cache: cache.reorder_cache(order), lambda tensor: tensor[order]),
        "repeat": (lambda cache: cache.batch_repeat_interleave(2), lambda tensor: tensor.repeat_interleave(2, 0)),
        "select": (lambda cache: cache.batch_select_indices(torch.tensor([1])), lambda tensor: tensor[[1]]),
    }
    for change, expected in changes.values():
        cache = QuantizedKVCache(bits=2, group=8, residual=8)
        cache.update(keys, values, 0)
        change(cache)
        more = expected(keys[..., :1, :])
        after = cache.update(more, more, 0)
        for one, two in zip(before, after, strict=True):
            assert torch.equal(two[..., :-1, :], expected(one))


def test_reset_forgets_everything_and_nothing_is_shared_between_caches():
    keys, values = states(1, 2, 40, 16), states(1, 2, 40, 16, seed=1)
    one, two = QuantizedKVCache(bits=4, group=8, residual=8), QuantizedKVCache(bits=4, group=8, residual=8)
    one.update(keys, values, 0)
    assert two.get_seq_length() == 0
    before = [part.clone() for part in parts(one)]
    two.update(keys, values, 0)
    two.reset()
    keys.zero_()  # the cache holds copies
    assert (two.get_seq_length(), two.nbytes, two.full_nbytes) == (0, 0, 0)
    assert all(torch.equal(*pair) for pair in zip(before, parts(one), strict=True))
    two.update(states(2, 2, 9, 16), states(2, 2, 9, 16), 0)  # another batch after the reset
    assert two.get_seq_length() == 9


def test_constant_and_tiny_ranges_come_back():
    constant = torch.full((1, 1, 8, 8), 2.5)
    tiny = torch.linspace(0, 1e-9, 64).view(1, 1, 8, 8)
    for value in (constant, tiny, torch.zeros(1, 1, 8, 8)):
        keys, _ = filled(QuantizedKVCache(bits=2, group=8, residual=0), (value, value))
        torch.testing.assert_close(keys, value, rtol=0, atol=1e-8)


class Eager(QuantizedLayer):
    """The cache layer of transformers with KIVI's rule for keys put in."""

    def _quantize(self, tensor: Tensor, axis: int) -> Tensor:
        return kivi(tensor, self.nbits, axis, self.q_group_size)

    def _dequantize(self, q_tensor: Tensor) -> Tensor:
        return q_tensor


def test_after_a_prompt_it_holds_what_the_cache_layer_of_transformers_holds():
    keys, values = states(2, 2, 32, 16), states(2, 2, 32, 16, seed=1)
    theirs = Eager(nbits=4, axis_key=-2, axis_value=-1, q_group_size=8, residual_length=100)
    ours = QuantizedKVCache(bits=4, group=8, residual=0)
    for start, stop in ((0, 32), (32, 33)):  # the prompt, which it packs whole, and a token
        chunk = states(2, 2, 1, 16, seed=2) if start else keys, states(2, 2, 1, 16, seed=3) if start else values
        expected, got = theirs.update(*chunk), ours.update(*chunk, 0)
        for one, two in zip(expected, got, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)
        assert ours.get_seq_length() == theirs.get_seq_length() == stop
        assert ours.get_mask_sizes(3, 0) == theirs.get_mask_sizes(3)


@pytest.fixture(scope="module")
def small() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}, {"prompt_lookup_num_tokens": 3}]
)
def test_transformers_generates_with_it_as_with_its_own(small, how):
    """Greedy, beams (reordered), samples (repeated) and looked-up drafts (cropped); residual keeps all unrounded."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7]])
    mask = torch.ones_like(ids)
    runs = []
    for cache in (DynamicCache(), QuantizedKVCache(bits=2, group=4, residual=500)):
        torch.manual_seed(0)
        runs.append(small.generate(ids, attention_mask=mask, max_new_tokens=20, past_key_values=cache, **how))
    assert torch.equal(*runs)
    packed = QuantizedKVCache(bits=8, group=4, residual=4)
    torch.manual_seed(0)
    got = small.generate(ids, attention_mask=mask, max_new_tokens=20, past_key_values=packed, **how)
    assert got.shape[1] > ids.shape[1]
    assert packed.nbytes < packed.full_nbytes


def test_padded_prompts_of_a_batch_generate_what_each_does_alone(small):
    short, long = torch.tensor([[5, 6, 7]]), torch.tensor([[9, 8, 7, 6, 5, 4]])
    both = torch.cat([torch.nn.functional.pad(short, (3, 0)), long])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6])
    with torch.no_grad():
        together = small.generate(
            both, attention_mask=mask, max_new_tokens=12, past_key_values=QuantizedKVCache(bits=8, residual=500)
        )
        alone = small.generate(
            long, attention_mask=torch.ones_like(long), max_new_tokens=12,
            past_key_values=QuantizedKVCache(bits=8, residual=500),
        )  # fmt: skip
    assert torch.equal(together[1, 6 : alone.shape[1]], alone[0, 6:])


def test_gpt2_generates_with_it_too():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=97, n_embd=48, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    ).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    cache = QuantizedKVCache(bits=4, group=8, residual=0, config=model.config)
    got = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, past_key_values=cache,
        pad_token_id=0,
    )  # fmt: skip
    assert cache.get_seq_length() == got.shape[1] - 1
    assert cache.layers[0]._old_keys.length >= 8


def test_smollm2_keeps_its_words_at_8_bits_and_drifts_as_bits_fall():
    from workbench.models.pretrained import load_pretrained

    model, tokenizer = load_pretrained("smollm2-135m")
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    prompt, steps = ids[:, :64], ids[:, 64:72]

    def log_probabilities(cache) -> Tensor:
        with torch.no_grad():
            model(prompt, past_key_values=cache)
            return model(steps, past_key_values=cache).logits[0].log_softmax(-1)

    exact, drift = log_probabilities(DynamicCache()), {}
    for bits in (8, 4, 2):
        cache = QuantizedKVCache(bits=bits, group=32, residual=0, config=model.config)
        got = log_probabilities(cache)
        drift[bits] = float((exact.exp() * (exact - got)).sum(-1).mean())
        if bits == 8:
            assert torch.equal(got.argmax(-1), exact.argmax(-1))
        # 72 tokens in 3 heads of 64 channels in 30 layers, keys and values; two groups of 32 are packed.
        numbers = 2 * 30 * 3 * 64
        assert cache.full_nbytes == numbers * 72 * 4
        assert cache.nbytes == numbers * (64 * (bits + 1) / 8 + 8 * 4)
    assert drift[8] < 1e-4 < drift[2]
    assert drift[8] < drift[4] < drift[2]
    cache = QuantizedKVCache(bits=4, group=8, residual=8, config=model.config)
    words = model.generate(prompt, max_new_tokens=8, do_sample=False, past_key_values=cache)
    assert words.shape[1] == cache.get_seq_length() + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 3}, "bits=3"),
        ({"bits": True}, "bits=True"),
        ({"group": 0}, "group=0"),
        ({"residual": -1}, "residual=-1"),
        ({"scale_dtype": "float64"}, "scale_dtype"),
        ({"config": MistralConfig(sliding_window=16)}, "sliding_attention"),
    ],
)
def test_bad_arguments_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        QuantizedKVCache(**options)


def test_ranges_beyond_half_precision_name_the_remedy():
    wide = torch.full((1, 1, 8, 8), 1e6)
    with pytest.raises(ValueError, match="keys hold NaN or numbers beyond float16.*scale_dtype='float32'"):
        QuantizedKVCache(group=8, residual=0).update(wide, wide, 0)
    keys, _ = filled(QuantizedKVCache(group=8, residual=0, scale_dtype="float32"), (wide, wide))
    assert torch.equal(keys, wide)


def test_crop_wants_the_number_of_tokens_to_remove():
    cache = QuantizedKVCache()
    cache.update(states(1, 1, 4, 8), states(1, 1, 4, 8), 0)
    with pytest.raises(ValueError, match="negative number"):
        cache.crop(2)


def test_half_precision_states_come_back_in_their_dtype():
    keys = states(1, 1, 16, 8).bfloat16()
    packed = Packed.of(keys, 8, (8, 1), torch.float16, "keys")
    assert packed.unpack(torch.bfloat16).dtype == torch.bfloat16
    cache = QuantizedKVCache(bits=8, group=8, residual=0)
    cache.update(keys, keys, 0)
    assert cache.update(keys[..., :1, :], keys[..., :1, :], 0)[0].dtype == torch.bfloat16
