"""What is timed is the model's own prefill and decoding; numbers agree with each other, whatever the machine does."""

import pytest
import torch

from workbench.metrics import generation_speed as module
from workbench.metrics.generation_speed import generation_speed
from workbench.models.small_lm import ModelSize, small_lm


@pytest.fixture(scope="module")
def models():
    return {name: small_lm(300, ModelSize(width, 1, 2), context=64, seed=0).eval() for name, width in
            (("narrow", 16), ("wide", 32))}  # fmt: skip


def test_each_model_has_a_row_of_reading_and_one_of_writing_whose_numbers_agree(models):
    table = generation_speed(models, prompt_tokens=20, new_tokens=6, repeats=3, batch_size=2)
    assert table[["model", "phase"]].to_numpy().tolist() == [
        ["narrow", "prefill"], ["narrow", "decode"], ["wide", "prefill"], ["wide", "decode"],
    ]  # fmt: skip
    assert table["tokens"].tolist() == [40, 12, 40, 12]
    assert (table["repeats"] == 3).all()
    assert table["tokens_per_second"].to_numpy() == pytest.approx(
        (1000 * table["tokens"] / table["wall_ms"]).to_numpy()
    )
    assert table["tokens_per_cpu_second"].to_numpy() == pytest.approx(
        (1000 * table["tokens"] / table["cpu_ms"]).to_numpy()
    )
    assert (table["wall_ms_low"] <= table["wall_ms"]).all()
    assert (table["wall_ms"] <= table["wall_ms_high"]).all()


def test_models_take_turns_and_are_fed_the_whole_prompt_once_and_then_one_token_at_a_time(models):
    fed = []
    hooks = [
        model.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: fed.append((name, kwargs["input_ids"].shape[1])), with_kwargs=True
        )
        for name, model in models.items()
    ]
    generation_speed(models, prompt_tokens=20, new_tokens=3, repeats=2)
    for hook in hooks:
        hook.remove()
    turn = [(name, [20, 1, 1, 1]) for _ in range(2) for name in models]
    wanted = [(name, length) for name, lengths in [(name, [20, 1, 1]) for name in models] + turn for length in lengths]
    assert fed == wanted  # first a round that warms up


def test_what_is_written_is_what_the_model_generates(models, monkeypatch):
    written = []
    argmax = torch.Tensor.argmax

    def kept(tensor, *args):
        token = argmax(tensor, *args)
        written.append(token.item())
        return token

    prompt = torch.arange(10)[None]
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "argmax", kept)
        module._timed(models["wide"], prompt, 5)
    found = models["wide"].generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False, use_cache=True
    )
    assert written == found[0, 10:].tolist()


def test_threads_are_set_inside_and_set_back(models):
    before, seen = torch.get_num_threads(), []
    hook = models["wide"].register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    generation_speed({"wide": models["wide"]}, prompt_tokens=4, new_tokens=1, repeats=1, threads=2)
    hook.remove()
    assert set(seen) == {2}
    assert torch.get_num_threads() == before


def test_what_cannot_be_timed_is_refused(models):
    with pytest.raises(ValueError, match=r"60 \+ 32 tokens are more than the 64 of the model 'narrow'"):
        generation_speed(models, prompt_tokens=60)
    with pytest.raises(ValueError, match="models is empty"):
        generation_speed({})
    with pytest.raises(ValueError, match="repeats=0"):
        generation_speed(models, repeats=0)
