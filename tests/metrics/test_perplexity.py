"""Perplexity is the exponential of the model's own loss over every token but the first, in whatever windows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.metrics.scoring_models import TEXT, indifferent, untrained, vocabulary
from workbench.metrics.perplexity import perplexity_by_kind, summarise_perplexity
from workbench.metrics.reading import read_text

TEXTS = {"verse": TEXT * 3, "other": "Öl and ☃ snow, to be\n" * 5}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return vocabulary()


@pytest.fixture(scope="module")
def model(tokenizer):
    return untrained(tokenizer)


def loss(model, ids, window, stride):
    """Sum of nats, token by token: each from the tokens of the first window that holds it."""
    total = 0.0
    for place in range(1, len(ids)):
        first = max(0, math.ceil((place - window) / stride)) * stride
        with torch.no_grad():
            logits = model(torch.tensor([ids[first:place]])).logits[0, -1]
        total += F.cross_entropy(logits.double(), torch.tensor(ids[place])).item()
    return total


@pytest.mark.parametrize(("window", "stride"), [(16, None), (16, 5), (16, 1), (7, 7), (200, None)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_token_but_the_first_is_predicted_once(model, tokenizer, window, stride, batch_size):
    table = perplexity_by_kind(model, tokenizer, TEXTS, window=window, stride=stride, batch_size=batch_size)
    for kind, text in TEXTS.items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows = table[table["kind"] == kind]
        assert rows["tokens"].sum() == len(ids) - 1
        assert rows["nats"].sum() == pytest.approx(loss(model, ids, window, stride or window), abs=1e-3)
        first = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"][0][1]
        assert rows["bytes"].sum() == len(text[first:].encode())
        assert rows["window"].tolist() == list(range(len(rows)))


def test_one_window_is_what_reading_the_text_says(model, tokenizer):
    (row,) = perplexity_by_kind(model, tokenizer, {"verse": TEXT}, window=250).to_dict("records")
    assert row["nats_per_byte"] == pytest.approx(read_text(model, tokenizer, TEXT).nats_per_byte, rel=1e-5)
    assert row["perplexity"] == pytest.approx(math.exp(row["nats"] / row["tokens"]))


def test_the_summary_weighs_every_token_alike(model, tokenizer):
    windows = perplexity_by_kind(model, tokenizer, TEXTS, window=16)
    table = summarise_perplexity(windows).set_index("kind")
    assert table.index.tolist() == list(TEXTS)
    for kind, rows in windows.groupby("kind"):
        assert table.loc[kind, "windows"] == len(rows)
        weighted = np.average(rows["nats_per_token"], weights=rows["tokens"])
        assert table.loc[kind, "nats_per_token"] == pytest.approx(weighted)
        assert table.loc[kind, "perplexity"] == pytest.approx(math.exp(weighted))
        assert table.loc[kind, "nats_per_byte"] == pytest.approx(rows["nats"].sum() / rows["bytes"].sum())


def test_a_model_to_which_all_tokens_are_equal_has_the_vocabulary_as_perplexity(tokenizer):
    table = perplexity_by_kind(indifferent(tokenizer), tokenizer, TEXTS, window=32)
    assert table["perplexity"].to_numpy() == pytest.approx(len(tokenizer), rel=1e-4)


def test_a_limit_takes_the_first_windows_of_each_text(model, tokenizer):
    whole = perplexity_by_kind(model, tokenizer, TEXTS, window=16)
    part = perplexity_by_kind(model, tokenizer, TEXTS, window=16, limit=2)
    wanted = whole[whole["window"] < 2].reset_index(drop=True)
    assert part[["kind", "window", "tokens", "bytes"]].equals(wanted[["kind", "window", "tokens", "bytes"]])
    assert part["nats"].to_numpy() == pytest.approx(wanted["nats"].to_numpy(), abs=1e-3)


def test_what_cannot_be_read_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="kind 'a' has 1 tokens: two are needed"):
        perplexity_by_kind(model, tokenizer, {"a": "t"})
    with pytest.raises(ValueError, match="texts is empty"):
        perplexity_by_kind(model, tokenizer, {})
    with pytest.raises(ValueError, match="stride=20 is beyond window=16"):
        perplexity_by_kind(model, tokenizer, TEXTS, window=16, stride=20)
    with pytest.raises(ValueError, match="limit=0"):
        perplexity_by_kind(model, tokenizer, TEXTS, limit=0)
