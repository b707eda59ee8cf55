"""Scores are the model's own log-likelihoods, whatever is batched, padded or shared; SmolLM2 knows some facts."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from tests.metrics.scoring_models import TEXT, indifferent, untrained, vocabulary
from workbench.datasets.alignment import Pair, truth_pairs
from workbench.datasets.multiple_choice import Question
from workbench.errors import UnknownName
from workbench.metrics.choice_scores import score_choices, score_pairs
from workbench.metrics.continuations import encode_continuations
from workbench.models.pretrained import load_pretrained
from workbench.runtime import seeded


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return vocabulary()


@pytest.fixture(scope="module")
def model(tokenizer):
    return untrained(tokenizer)


@pytest.fixture(scope="module")
def smollm2():
    return load_pretrained("smollm2-135m", device="cpu")


@pytest.fixture(scope="module")
def questions():
    """Contexts from none to long, two to five choices of different lengths, one of them over two lines."""
    words = TEXT.split()
    rng = random.Random(0)
    made = []
    for length in (0, 1, 2, 5, 9, 14, 30, 60):
        context = " ".join((words * 5)[:length])
        choices = {f" {' '.join(rng.sample(words, size))}" for size in range(1, 2 + length % 4)} | {" Öl\nund mehr"}
        made.append(Question(context, (*sorted(choices), " sleep"), len(choices) // 2, "made", "hamlet"))
    return made


def alone(model, tokenizer, context, choice):
    """Log-likelihood of a choice in one pass over one unpadded text."""
    context = context or "\n"
    before, whole = tokenizer([context, context + choice], add_special_tokens=False)["input_ids"]
    assert whole[: len(before)] == before  # these texts are cut between context and choice
    with torch.no_grad():
        log_probs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(log_probs[place - 1, whole[place]].item() for place in range(len(before), len(whole)))


@pytest.mark.parametrize("share_context", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_log_likelihoods_are_those_of_each_text_alone(model, tokenizer, questions, batch_size, share_context):
    table = score_choices(model, tokenizer, questions, batch_size=batch_size, share_context=share_context)
    for question, found in zip(questions, table["log_likelihoods"], strict=True):
        wanted = [alone(model, tokenizer, question.context, choice) for choice in question.choices]
        assert found == pytest.approx(wanted, abs=1e-4)


def test_a_model_with_absolute_positions_is_scored_alike(tokenizer, questions):
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2)
    with seeded(0):
        gpt2 = GPT2LMHeadModel(config).eval()
        nn.init.normal_(gpt2.transformer.wpe.weight)  # a wrong position would show
    table = score_choices(gpt2, tokenizer, questions, batch_size=4)
    for question, found in zip(questions, table["log_likelihoods"], strict=True):
        assert found == pytest.approx([alone(gpt2, tokenizer, question.context, c) for c in question.choices], abs=1e-4)


def test_the_choice_is_the_likeliest_by_its_length(model, tokenizer, questions):
    for normalise, size in (("none", lambda choice: 1), ("bytes", lambda choice: len(choice.encode()))):
        table = score_choices(model, tokenizer, questions, normalise=normalise)
        for question, (_, row) in zip(questions, table.iterrows(), strict=True):
            scores = np.array(row["log_likelihoods"]) / [size(choice) for choice in question.choices]
            assert row["chosen"] == scores.argmax()
            assert row["correct"] == (scores.argmax() == question.answer)
            assert row["margin"] == pytest.approx(scores[question.answer] - np.delete(scores, question.answer).max())
            assert row["chance"] == 1 / len(question.choices)


def test_a_model_to_which_all_tokens_are_equal_scores_chance(tokenizer, questions):
    table = score_choices(indifferent(tokenizer), tokenizer, questions, normalise="tokens")
    assert table["correct"].tolist() == pytest.approx(table["chance"].tolist())
    assert table["margin"].abs().max() < 1e-6
    lengths = [len(tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in questions[3].choices]
    wanted = [-length * math.log(len(tokenizer)) for length in lengths]
    assert table["log_likelihoods"][3] == pytest.approx(wanted, rel=1e-5)


def test_a_model_is_left_as_it_was_and_no_gradient_is_kept(model, tokenizer, questions):
    model.train()
    score_choices(model, tokenizer, questions[:2])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_a_context_that_is_too_long_loses_its_beginning(tokenizer, questions):
    small = untrained(tokenizer, context=24)
    long = questions[-1]
    (found,) = score_choices(small, tokenizer, [long])["log_likelihoods"]
    for choice, nats in zip(long.choices, found, strict=True):
        encoded = encode_continuations(tokenizer, [long.context], [long.choices], max_length=24)[0]
        rest = tokenizer(choice, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([encoded.shared + rest])
        assert whole.shape[1] - 1 <= 24
        log_probs = small(whole).logits[0].log_softmax(-1)
        start = len(encoded.shared)
        wanted = sum(log_probs[place - 1, whole[0, place]].item() for place in range(start, whole.shape[1]))
        assert nats == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(ValueError, match="tokens, more than the 3 that the model may be fed"):
        score_choices(small, tokenizer, [long], max_length=3)


def test_where_context_and_choice_melt_into_one_token_all_choices_still_spell_the_same_text(smollm2):
    _, tokenizer = smollm2
    # "to" + "morrow" and "to" + "ward" are single tokens; "to" + " be" is two.
    (encoded,) = encode_continuations(tokenizer, ["I will come to"], [("morrow", "ward", " be")])
    spelled = [tokenizer.decode(encoded.shared + rest) for rest in encoded.rest]
    assert spelled == ["I will come tomorrow", "I will come toward", "I will come to be"]
    assert tokenizer.decode(encoded.shared) == "I will come"


def test_the_context_is_read_once_for_all_choices(model, tokenizer):
    question = Question("To be, or not to be, that is the", (" question", " mind", " suffer"), 0, "made", "")
    (row,) = score_choices(model, tokenizer, [question]).to_dict("records")
    lengths = [
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (question.context, *question.choices)
    ]
    assert row["tokens"] == lengths[0] - 1 + sum(lengths[1:])


def test_preferring_is_having_the_higher_likelihood_of_the_whole_sentence(model, tokenizer):
    pairs = [
        Pair("To be that is the question.", "To suffer that is the question.", "made", "a"),
        Pair("Whether 'tis nobler in the mind", "Whether 'tis nobler in the question", "made", "a"),
        Pair("Nobler is the mind.", "Be the mind.", "made", "b"),
    ]
    table = score_pairs(model, tokenizer, pairs, batch_size=2)
    for pair, (_, row) in zip(pairs, table.iterrows(), strict=True):
        gap = alone(model, tokenizer, "", pair.first) - alone(model, tokenizer, "", pair.second)
        assert row["gap"] == pytest.approx(gap, abs=1e-4)
        assert row["prefers_first"] == (gap > 0)
        assert row["gap_per_byte"] == pytest.approx(gap * 2 / (len(pair.first) + len(pair.second)), abs=1e-5)


def test_turning_pairs_round_turns_preference_and_gap_round(model, tokenizer):
    pairs = [Pair("To be is nobler.", "To suffer is nobler.", "made", ""), Pair("be it", "be or", "made", "")]
    there = score_pairs(model, tokenizer, pairs)
    back = score_pairs(model, tokenizer, [Pair(pair.second, pair.first, "made", "") for pair in pairs])
    assert back["prefers_first"].tolist() == (1 - there["prefers_first"]).tolist()
    assert back["gap"].tolist() == pytest.approx((-there["gap"]).tolist(), abs=1e-5)


def test_equal_likelihoods_are_half_a_preference(tokenizer):
    pair = Pair("the mind 1", "the mind 2", "made", "")
    first, second = tokenizer([pair.first, pair.second], add_special_tokens=False)["input_ids"]
    assert len(first) == len(second)
    assert score_pairs(indifferent(tokenizer), tokenizer, [pair])["prefers_first"].tolist() == [0.5]


def test_smollm2_knows_more_of_geography_and_biology_than_chance(smollm2):
    model, tokenizer = smollm2
    pairs = [pair for pair in truth_pairs() if pair.group in ("geography", "biology")]
    table = score_pairs(model, tokenizer, pairs)
    assert table["prefers_first"].mean() > 0.8  # 40 of 50 by guessing: once in 100,000 times


def test_padding_does_not_move_smollm2s_scores(smollm2):
    model, tokenizer = smollm2
    questions = [
        Question("The capital of France is", (" Paris", " Rome"), 0, "made", ""),
        Question("Roses are red, violets are", (" blue and sweet", " green", " a kind of very old car"), 0, "made", ""),
    ]
    table = score_choices(model, tokenizer, questions, batch_size=2)
    assert table["chosen"][0] == 0  # Paris
    for question, found in zip(questions, table["log_likelihoods"], strict=True):
        wanted = [alone(model, tokenizer, question.context, choice) for choice in question.choices]
        assert found == pytest.approx(wanted, abs=1e-4)


def test_what_cannot_be_scored_is_refused(model, tokenizer, questions):
    with pytest.raises(ValueError, match="questions is empty"):
        score_choices(model, tokenizer, [])
    with pytest.raises(ValueError, match="pairs is empty"):
        score_pairs(model, tokenizer, [])
    with pytest.raises(UnknownName, match="Did you mean 'bytes'"):
        score_choices(model, tokenizer, questions, normalise="byte")
    with pytest.raises(ValueError, match="batch_size=0"):
        score_choices(model, tokenizer, questions, batch_size=0)
