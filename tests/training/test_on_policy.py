"""Data that the student writes: who writes how often, from which distribution, and what of it counts."""

import pytest
import torch

from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import OnPolicyBatches, distil, generate_with_transformers, random_windows

STUDENT, TEACHER = ModelSize(16, 1, 1), ModelSize(32, 1, 2)
CONTEXT = 24


@pytest.fixture
def text(task):
    return task.prepare()


@pytest.fixture
def student(text):
    return small_lm(text.vocab_size, STUDENT, context=CONTEXT, seed=0)


@pytest.fixture
def teacher(text):
    return small_lm(text.vocab_size, TEACHER, context=CONTEXT, seed=1)


def windows(text, seed=0, batch_size=3):
    return random_windows(text.training, context=11, batch_size=batch_size, seed=seed)


def take(batches, count):
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def prompts_with_labels(text, lengths):
    """One batch as a collator makes it: prompts of these lengths, eleven tokens at most, padded on the right."""
    tokens = next(windows(text, batch_size=len(lengths)))
    labels, mask = tokens.clone(), torch.ones_like(tokens)
    for row, length in enumerate(lengths):
        labels[row, :length] = -100
        labels[row, 10:], mask[row, 10:], tokens[row, 10:] = -100, 0, 0
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_student_writes_its_share_of_the_batches(text, student, share):
    batches = OnPolicyBatches(
        student, windows(text), on_policy_share=share, prompt_tokens=9, max_new_tokens=1, seed=3
    )  # fmt: skip
    take(batches, 60)
    assert sum(batches.counts.values()) in (60, 61)  # zip asks for one more than it takes
    assert batches.counts["student"] == pytest.approx(60 * share, abs=9)
    assert set(batches.counts) <= {"student", "data"}


def test_the_teacher_writes_its_share_of_what_the_student_does_not(text, student, teacher):
    batches = OnPolicyBatches(
        student, windows(text), on_policy_share=0.0, teacher=teacher, seq_kd_share=1.0, prompt_tokens=9,
    )  # fmt: skip
    sizes = []
    teacher.register_forward_hook(lambda module, *_: sizes.append(module.training))
    take(batches, 3)
    assert set(batches.counts) == {"teacher"}
    assert batches.source == "teacher"
    assert set(sizes) == {False}
    assert teacher.training


def test_data_comes_through_as_it_was(text, student):
    ours = take(OnPolicyBatches(student, windows(text), on_policy_share=0.0, prompt_tokens=4), 3)
    for batch, tokens in zip(ours, windows(text), strict=False):
        assert torch.equal(batch["input_ids"], tokens)
        assert (batch["labels"][:, :4] == -100).all()
        assert torch.equal(batch["labels"][:, 4:], tokens[:, 4:])


def test_only_the_continuation_counts_and_prompts_of_different_length_stay_whole(text, student):
    data = prompts_with_labels(text, [2, 7, 4])
    (batch,) = OnPolicyBatches(student, [data], on_policy_share=1.0, max_new_tokens=5)
    for row, length in enumerate([2, 7, 4]):
        assert torch.equal(batch["input_ids"][row, :length], data["input_ids"][row, :length])
        assert (batch["labels"][row, :length] == -100).all()
        written = slice(length, length + 5)
        assert torch.equal(batch["labels"][row, written], batch["input_ids"][row, written])
        assert (batch["labels"][row, length + 5 :] == -100).all()
        assert batch["attention_mask"][row].tolist() == [1] * (length + 5) + [0] * (7 - length)


def test_a_short_prompt_is_continued_as_if_it_were_alone(text, student):
    """At a temperature near 0 sampling is greedy, and the padding on the left must not be seen."""
    data = prompts_with_labels(text, [2, 7])
    (both,) = OnPolicyBatches(student, [data], on_policy_share=1.0, max_new_tokens=5, sampling_temperature=1e-4)
    alone = {name: value[:1] for name, value in data.items()}
    (one,) = OnPolicyBatches(student, [alone], on_policy_share=1.0, max_new_tokens=5, sampling_temperature=1e-4)
    assert torch.equal(both["input_ids"][0, :7], one["input_ids"][0])
    tokens = one["input_ids"][:, :2]
    student.eval()
    for _ in range(5):
        tokens = torch.cat([tokens, student(input_ids=tokens).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(tokens, one["input_ids"])


def test_samples_come_from_the_whole_distribution_at_the_temperature_whatever_the_model_prefers(text, student):
    student.eval()
    prompt = next(windows(text))[:1, :6]
    with torch.no_grad():
        wanted = (student(input_ids=prompt).logits[0, -1] / 0.7).softmax(-1)
    prompts, count = prompt.expand(6000, 6), 6000
    student.generation_config.top_k, student.generation_config.repetition_penalty = 1, 3.0
    student.generation_config.do_sample = False
    tokens, written = generate_with_transformers(
        student, prompts, torch.ones_like(prompts, dtype=torch.bool), max_new_tokens=1, temperature=0.7, seed=0
    )
    assert written.all()
    found = torch.bincount(tokens[:, 0], minlength=len(wanted)) / count
    # What sampling alone gives: the mean absolute error of a share is at most sqrt(2 p (1 - p) / (pi n)).
    expected = 0.5 * (2 * wanted * (1 - wanted) / torch.pi / count).sqrt().sum()
    assert 0.5 * (found - wanted).abs().sum() < 1.5 * expected


def test_text_ends_at_its_end_and_what_comes_after_does_not_count(text, student):
    end = 5
    student.generation_config.eos_token_id = end
    prompts = next(windows(text, batch_size=64))[:, :6]
    tokens, written = generate_with_transformers(
        student.eval(), prompts, torch.ones_like(prompts, dtype=torch.bool), max_new_tokens=12, temperature=3.0, seed=0
    )
    lengths = written.sum(-1)
    assert lengths.min() < 12
    for row, length in enumerate(lengths.tolist()):
        assert end not in tokens[row, : length - 1]
        assert length == tokens.shape[1] or tokens[row, length - 1] == end
        assert written[row].tolist() == [True] * length + [False] * (tokens.shape[1] - length)


def test_one_seed_is_one_text_and_the_callers_random_stream_is_left_alone(text, student):
    def made(seed):
        return take(OnPolicyBatches(student, windows(text), prompt_tokens=6, seed=seed), 6)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = made(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    second, other = made(0), made(1)
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one["input_ids"], two["input_ids"]) for one, two in zip(first, other, strict=True))


def test_the_student_writes_with_the_weights_it_has_at_that_moment(text, student):
    data = prompts_with_labels(text, [3, 3])
    batches = iter(OnPolicyBatches(student, [data] * 2, on_policy_share=1.0, sampling_temperature=1e-4))
    before = next(batches)["input_ids"]
    with torch.no_grad():
        for weight in student.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)) * 0.3)
    assert not torch.equal(before, next(batches)["input_ids"])
    assert student.training


def test_rows_without_an_answer_are_left_out_of_what_is_written(text, student):
    data = prompts_with_labels(text, [3, 11, 5])  # the second prompt was cut before its answer
    (batch,) = OnPolicyBatches(student, [data], on_policy_share=1.0)
    assert len(batch["input_ids"]) == 2
    assert torch.equal(batch["input_ids"][1, :5], data["input_ids"][2, :5])
    nothing = prompts_with_labels(text, [11, 11])
    (same,) = OnPolicyBatches(student, [nothing], on_policy_share=1.0)
    assert torch.equal(same["input_ids"], nothing["input_ids"])


def test_distil_learns_from_what_the_student_writes(text, student, teacher):
    batches = OnPolicyBatches(
        student, windows(text, batch_size=8), on_policy_share=1.0, prompt_tokens=4, seed=0
    )  # fmt: skip
    history = distil(
        student, teacher, batches, "generalized_jsd", steps=30, lr=0.02, schedule="constant", label=None, record_every=1
    )
    losses = history.table.query("quantity == 'loss'").value
    assert losses.iloc[-5:].mean() < 0.7 * losses.iloc[:5].mean()
    assert batches.counts["student"] == 30


def test_another_engine_can_write(text, student):
    seen = {}

    def engine(model, prompts, prompt_mask, *, max_new_tokens, temperature, seed):
        seen.update(prompts=prompts, mask=prompt_mask, temperature=temperature)
        new = torch.full((len(prompts), max_new_tokens), 4)
        return new, torch.arange(max_new_tokens).expand_as(new) < 2

    data = prompts_with_labels(text, [2, 3])
    (batch,) = OnPolicyBatches(student, [data], on_policy_share=1.0, generate=engine)
    assert seen["temperature"] == 0.9
    assert seen["mask"].tolist() == [[False, True, True], [True, True, True]]
    assert batch["labels"].tolist() == [[-100, -100, 4, 4, -100], [-100, -100, -100, 4, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_policy_share": 1.5}, "on_policy_share"),
        ({"seq_kd_share": 0.5}, "needs teacher="),
        ({"sampling_temperature": 0.0}, "sampling_temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
    ],
)
def test_what_cannot_be_is_refused(student, options, message):
    with pytest.raises(ValueError, match=message):
        OnPolicyBatches(student, [], **options)


def test_batches_that_do_not_tell_where_prompts_end_are_refused(text, student):
    with pytest.raises(ValueError, match="no prompt"):
        next(iter(OnPolicyBatches(student, windows(text), on_policy_share=1.0)))
    with pytest.raises(ValueError, match="leaves nothing"):
        next(iter(OnPolicyBatches(student, windows(text), prompt_tokens=12)))
    with pytest.raises(ValueError, match="24 positions"):
        next(iter(OnPolicyBatches(student, windows(text), on_policy_share=1.0, prompt_tokens=4, max_new_tokens=30)))
