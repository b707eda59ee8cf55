"""A teacher's answers on disk are what it would say, survive a kill, and are never taken for another's."""

import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.errors import AssetError
from workbench.losses import chunked_linear_distillation, forward_kl, topk_kl
from workbench.models.next_token import logits_of
from workbench.models.small_lm import ModelSize, initial_weights, small_lm
from workbench.models.stacked_lm import LeanLM
from workbench.training import TeacherCache
from workbench.training.batches import fixed_windows
from workbench.training.teacher_cache import teacher_fingerprint

SIZE = ModelSize(32, 1, 2)


def transformers_model(kind, vocab):
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = {"vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
    return {
        "tied": lambda: small_lm(vocab, SIZE, context=32, seed=0),
        "untied": lambda: LlamaForCausalLM(LlamaConfig(**small, tie_word_embeddings=False)),
        "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**small, final_logit_softcapping=3.0, sliding_window=8)),
        "GPT-2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=32, n_layer=1, n_head=2)),
        "lean": lambda: LeanLM(initial_weights(vocab, SIZE, seed=0), SIZE, context=32),
    }[kind]()


@pytest.fixture
def windows(task):
    text = task.prepare()
    return fixed_windows(text.held_out, context=16, count=9)


@pytest.fixture
def vocab(task):
    return task.prepare().vocab_size


def expected(teacher, windows):
    teacher.eval()
    with torch.no_grad():
        return torch.log_softmax(logits_of(teacher, windows[:, :-1]).float(), -1)


@pytest.mark.parametrize("kind", ["tied", "untied", "capped", "GPT-2", "lean"])
def test_what_is_read_is_what_the_teacher_says(kind, windows, vocab, tmp_path):
    teacher = transformers_model(kind, vocab)
    cache = TeacherCache(tmp_path / "answers").fill(
        teacher, windows, top_k=5, hidden_states=True, dtype="float32", hidden_dtype="float32", batch_size=4, label=None
    )
    wanted = expected(teacher, windows)
    values, indices = TeacherCache(tmp_path / "answers").top_k([7, 0])
    top = wanted[[7, 0]].topk(5, dim=-1)
    torch.testing.assert_close(values, top.values, rtol=1e-4, atol=1e-5)
    assert (indices == top.indices).float().mean() > 0.98  # two tokens may be as likely as each other
    logits = cache.head.logits(cache.hidden_states(torch.tensor([3, 3, 8])))
    torch.testing.assert_close(torch.log_softmax(logits, -1), wanted[[3, 3, 8]], rtol=1e-4, atol=1e-4)


def test_the_losses_are_fed_as_they_want_it(windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    student = small_lm(vocab, ModelSize(16, 1, 1), context=32, seed=1)
    cache = TeacherCache(tmp_path).fill(teacher, windows, top_k=vocab, hidden_states=True, dtype="float32",
                                        hidden_dtype="float32", label=None)  # fmt: skip
    numbers = [1, 4, 2]
    inputs = windows[numbers, :-1]
    exact = forward_kl(student(inputs).logits, logits_of(teacher, inputs))
    assert topk_kl(student(inputs).logits, *cache.top_k(numbers)).item() == pytest.approx(exact.item(), rel=1e-4)
    hidden = student.model(inputs).last_hidden_state
    through = chunked_linear_distillation(
        hidden,
        student.lm_head.weight,
        cache.hidden_states(numbers),
        cache.head.weight,
        softcap=(None, cache.head.softcap),
    )
    assert through.item() == pytest.approx(exact.item(), rel=1e-4)


def test_half_the_bytes_cost_little(windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    cache = TeacherCache(tmp_path).fill(teacher, windows, top_k=vocab, hidden_states=True, label=None)
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.bin")}
    rows = len(windows) * 16
    assert sizes == {"top_log_probs.bin": rows * vocab * 2, "top_indices.bin": rows * vocab * 2,
                     "hidden_states.bin": rows * 32 * 2}  # fmt: skip
    wanted = expected(teacher, windows)
    values, indices = cache.top_k(range(9))
    assert (values - wanted.gather(-1, indices)).abs().max() < 0.005
    logits = cache.head.logits(cache.hidden_states(range(9)))
    assert (torch.log_softmax(logits, -1) - wanted).abs().max() < 0.1


class Killed(Exception):
    pass


@pytest.mark.parametrize("cut", [0, 3])
def test_a_fill_that_was_killed_goes_on_where_it_was_and_ends_with_the_same_bytes(cut, windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    options = {"top_k": 4, "hidden_states": True, "batch_size": 2, "label": None}
    whole = TeacherCache(tmp_path / "whole").fill(teacher, windows, **options)
    asked = []
    half, before = TeacherCache(tmp_path / "half"), teacher.model.forward

    def count(*args, **named):
        tokens = args[0] if args else named["input_ids"]
        if tokens.shape[1] > 2:  # not the first question, how many tokens the teacher knows
            asked.append(len(tokens))
        if len(asked) == 3:
            raise Killed
        return before(*args, **named)

    teacher.model.forward = count
    with pytest.raises(Killed):
        half.fill(teacher, windows, **options)
    assert len(half) == 4
    with pytest.raises(ValueError, match="answers about 4 of 9 windows: call fill"):
        half.top_k([0])
    if cut:  # killed in the middle of a write
        with (half.folder / "top_indices.bin").open("r+b") as file:
            file.truncate(file.seek(0, 2) - cut)
        assert len(half) == 3
    asked[:] = [0] * 10
    half.fill(teacher, windows, **options)
    assert sum(asked[10:]) == 9 - (3 if cut else 4)
    for path in whole.folder.glob("*.bin"):
        assert path.read_bytes() == (half.folder / path.name).read_bytes()


def test_a_full_cache_asks_no_more_and_stop_keeps_what_is_done(windows, vocab, tmp_path):
    teacher = transformers_model("lean", vocab)
    turns = iter([False, False, True])
    cache = TeacherCache(tmp_path).fill(teacher, windows, top_k=2, batch_size=2, stop=lambda: next(turns), label=None)
    assert len(cache) == 4
    assert len(cache.fill(teacher, windows, top_k=2, label=None)) == 9
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.bin")}
    cache.fill(teacher, windows, top_k=2, stop=lambda: 1 / 0, label=None)
    assert before.keys() == {"top_log_probs.bin", "top_indices.bin"}


def test_answers_of_another_teacher_other_windows_or_another_form_are_refused(windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    cache = TeacherCache(tmp_path).fill(teacher, windows, top_k=4, label=None)
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-3
    with pytest.raises(ValueError, match="holds answers of another teacher: take another folder"):
        cache.fill(other, windows, top_k=4, label=None)
    with pytest.raises(ValueError, match="holds answers about other windows"):
        cache.fill(teacher, windows.flip(0), top_k=4, label=None)
    with pytest.raises(ValueError, match="with top_k=4, not 5"):
        cache.fill(teacher, windows, top_k=5, label=None)
    with pytest.raises(ValueError, match="filled without hidden_states=True"):
        cache.hidden_states([0])
    with pytest.raises(ValueError, match="holds no hidden states"):
        _ = cache.head
    with pytest.raises(IndexError, match="windows 0 to 9 were asked for, but 0 to 8"):
        cache.top_k([0, 9])
    assert cache.top_k([8])[0].shape == (1, 16, 4)


def test_a_fingerprint_sees_weights_and_configuration_but_not_where_they_lie(vocab, tmp_path):
    teacher = transformers_model("untied", vocab)
    teacher.save_pretrained(tmp_path)
    again = type(teacher).from_pretrained(tmp_path)
    assert teacher_fingerprint(again) == teacher_fingerprint(teacher)
    again.config.rms_norm_eps = 1e-3
    assert teacher_fingerprint(again) != teacher_fingerprint(teacher)


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked(windows, vocab, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(total=2**30, used=2**30, free=2**20))
    with pytest.raises(AssetError, match="would take 0 MiB in .*where 1 MiB are free"):
        TeacherCache(tmp_path / "answers").fill(transformers_model("tied", vocab), windows, top_k=4, label=None)
    assert not list((tmp_path / "answers").glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to store"),
        ({"top_k": 10_000}, "top_k=10000 must lie between 1 and"),
        ({"top_k": 4, "dtype": "float15"}, "Did you mean 'float16'"),
        ({"top_k": 4, "batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_work_is_refused(options, message, windows, vocab, tmp_path):
    with pytest.raises(ValueError, match=message):
        TeacherCache(tmp_path).fill(transformers_model("tied", vocab), windows, **options)


def test_windows_of_another_vocabulary_or_form_are_refused(windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    with pytest.raises(ValueError, match="vocabulary ends at"):
        TeacherCache(tmp_path).fill(teacher, windows + vocab, top_k=4)
    with pytest.raises(ValueError, match="integer tokens"):
        TeacherCache(tmp_path).fill(teacher, np.zeros(5), top_k=4)
    with pytest.raises(ValueError, match="no teacher's answers yet"):
        TeacherCache(tmp_path / "nothing").top_k([0])


def test_a_model_that_does_more_than_its_last_layer_says_cannot_give_hidden_states(windows, vocab, tmp_path):
    teacher = transformers_model("tied", vocab)
    teacher.lm_head.register_forward_hook(lambda _layer, _inputs, logits: logits * 0.5)
    with pytest.raises(ValueError, match="does more to its logits"):
        TeacherCache(tmp_path).fill(teacher, windows, hidden_states=True)
