"""Answers are the model's own greedy ones, also in a batch; what heeding means is the difference of odds."""

import pytest
import torch

from tests.metrics.scoring_models import indifferent, untrained, vocabulary
from workbench.datasets.alignment import Instruction, instructions
from workbench.datasets.multiple_choice import Question
from workbench.errors import UnknownName
from workbench.metrics.choice_scores import score_choices
from workbench.metrics.instructions import follow_instructions, heed_instructions
from workbench.models.pretrained import load_pretrained

OWN = [
    Instruction("To be?", "capitals", "", "a", "Be?", "BE", "be"),
    Instruction("Whether 'tis nobler in the mind", "yes or no", "", "a", "Whether", "yes", "no or yes"),
    Instruction("the question", "at most words", "40", "b", "question", "mind", "mind mind mind"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return vocabulary()


@pytest.fixture(scope="module")
def smollm2():
    return load_pretrained("smollm2-135m", device="cpu")


def greedy(model, ids, ends, most):
    """One token after the other without a cache."""
    written = []
    while len(written) < most:
        with torch.no_grad():
            token = model(torch.tensor([ids + written]), use_cache=False).logits[0, -1].argmax().item()
        if token in ends:
            break
        written.append(token)
    return written


def test_a_small_model_without_a_template_answers_as_it_would_alone(tokenizer):
    model = untrained(tokenizer)
    table = follow_instructions(model, tokenizer, OWN, max_tokens=12, batch_size=3)
    for prompt, answer in zip(OWN, table["answer"], strict=True):
        ids = tokenizer(f"{prompt.prompt}\n", add_special_tokens=False)["input_ids"]
        assert answer == tokenizer.decode(greedy(model, ids, {0}, 12), skip_special_tokens=True).strip()
    assert table[["prompt", "group", "rule", "argument"]].to_numpy().tolist() == [
        [place, one.group, one.rule, one.argument] for place, one in enumerate(OWN)
    ]


def test_smollm2_answers_in_a_batch_as_it_does_alone_and_ends_by_itself(smollm2):
    model, tokenizer = smollm2
    prompts = [one for one in instructions() if one.rule == "number"]
    together = follow_instructions(model, tokenizer, prompts, max_tokens=16, batch_size=3)
    asked = [{"role": "user", "content": prompts[0].prompt}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    written = greedy(model, ids, {tokenizer.eos_token_id}, 16)
    assert together["answer"][0] == tokenizer.decode(written)
    assert together["finished"].tolist() == [True] * 3
    assert together["tokens"][0] == len(ids) + len(written)


def test_heeding_is_that_the_rule_raises_the_odds_of_the_answer_that_follows_it(tokenizer):
    model = untrained(tokenizer)
    table = heed_instructions(model, tokenizer, OWN)
    for prompt, (_, row) in zip(OWN, table.iterrows(), strict=True):
        odds = []
        for text in (prompt.prompt, prompt.plain):
            question = Question(f"{text}\n", (prompt.complying, prompt.violating), 0, "", "")
            odds.append(score_choices(model, tokenizer, [question], normalise="none")["margin"][0])
        assert row["shift"] == pytest.approx(odds[0] - odds[1], abs=1e-4)
        assert row["heeded"] == (odds[0] > odds[1])


def test_a_model_that_does_not_look_at_the_prompt_heeds_nothing(tokenizer):
    table = heed_instructions(indifferent(tokenizer), tokenizer, OWN)
    assert table["heeded"].tolist() == [0.5] * 3
    assert table["shift"].tolist() == [0] * 3


def test_smollm2_heeds_what_form_is_asked_for(smollm2):
    model, tokenizer = smollm2
    prompts = [one for one in instructions() if one.rule in ("number", "json", "one word")]
    assert heed_instructions(model, tokenizer, prompts)["heeded"].mean() > 0.75  # 0.5 by chance


def test_what_cannot_be_answered_is_refused(tokenizer):
    model = untrained(tokenizer)
    with pytest.raises(ValueError, match="prompts is empty"):
        follow_instructions(model, tokenizer, [])
    with pytest.raises(UnknownName, match="Did you mean 'capitals'"):
        follow_instructions(model, tokenizer, [Instruction("a", "capital", "", "")])
    with pytest.raises(ValueError, match="'a' comes without a plain request"):
        heed_instructions(model, tokenizer, [Instruction("a", "capitals", "", "")])
