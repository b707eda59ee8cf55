"""A model reads texts: each layer's numbers are those of its hidden states, whatever the batch."""

import math

import pytest
import torch

from workbench.errors import UnknownName
from workbench.metrics.nuclear_norm import (
    matrix_entropy,
    matrix_nuclear_norm,
    mnn_bound,
    normalize_hidden,
    nuclear_norm,
)
from workbench.metrics.text_metrics import describe_hidden, evaluate_texts
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import TextTask

TEXTS = ["To be, or not to be", "Now is the winter of our discontent made glorious summer", "", "A", "aaaaaaaa"]


@pytest.fixture(scope="module")
def reader():
    text = TextTask().prepare()
    return small_lm(text.vocab_size, ModelSize(32, 2, 2), context=64, seed=0).eval(), text.tokenizer


def test_the_last_layer_is_what_the_model_gives_after_its_norm(reader):
    model, tokenizer = reader
    row = evaluate_texts(model, tokenizer, TEXTS[:1]).iloc[0]
    with torch.no_grad():
        hidden = model.model(torch.tensor([tokenizer(TEXTS[0])["input_ids"]]))[0][0]
    assert (row["text"], row["layer"], row["tokens"]) == (0, 2, len(TEXTS[0]))
    assert row["mnn"] == pytest.approx(float(matrix_nuclear_norm(hidden)))
    assert row["entropy"] == pytest.approx(float(matrix_entropy(hidden)), abs=1e-6)
    assert row["nuclear_norm"] == pytest.approx(float(nuclear_norm(normalize_hidden(hidden))) / len(hidden), rel=1e-5)
    assert row["effective_rank"] == pytest.approx(32 ** row["entropy"], rel=1e-4)
    assert row["mnn_over_bound"] == pytest.approx(row["mnn"] / mnn_bound(len(hidden), 32))


def test_batches_and_padding_do_not_show(reader):
    alone = evaluate_texts(*reader, TEXTS, layers="all", loss=True)
    together = evaluate_texts(*reader, TEXTS, layers="all", loss=True, batch_size=3)
    assert len(alone) == len(TEXTS) * 3
    for name in alone.columns:
        assert together[name].tolist() == pytest.approx(alone[name].tolist(), rel=1e-4, nan_ok=True), name


def test_texts_without_a_direction_have_nan_and_the_others_their_numbers(reader):
    table = evaluate_texts(*reader, TEXTS, batch_size=5).set_index("text")
    # One letter over and over is equal tokens: attention mixes equal values, wherever it looks.
    assert table["mnn"].isna().tolist() == [False, False, True, True, True]
    assert table["tokens"].tolist() == [len(text) for text in TEXTS]
    assert evaluate_texts(*reader, [""])["mnn"].isna().all()


def test_the_loss_is_that_of_the_model_on_the_text(reader):
    model, tokenizer = reader
    ids = torch.tensor([tokenizer(TEXTS[1])["input_ids"]])
    table = evaluate_texts(model, tokenizer, TEXTS, loss=True, batch_size=2)
    with torch.no_grad():
        assert table["loss"][1] == pytest.approx(float(model(ids, labels=ids).loss), rel=1e-5)
    assert math.isnan(table["loss"][3])


def test_layers_are_counted_from_either_end_and_first_tokens_can_be_dropped(reader):
    model, tokenizer = reader
    table = evaluate_texts(model, tokenizer, TEXTS[:1], layers=[0, -1], drop_first=4, max_tokens=10)
    assert table["layer"].tolist() == [0, 2]
    assert table["tokens"].tolist() == [6, 6]
    with torch.no_grad():
        hidden = model.model(torch.tensor([tokenizer(TEXTS[0])["input_ids"][:10]]))[0][0, 4:]
    assert table["mnn"][1] == pytest.approx(float(matrix_nuclear_norm(hidden)))


def test_a_smaller_top_has_its_own_bound():
    hidden = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    found = describe_hidden(hidden, top=2)
    assert found["mnn"] == pytest.approx(float(matrix_nuclear_norm(hidden, top=2)))
    assert found["bound"] == pytest.approx(mnn_bound(6, 9, top=2))
    assert found["mnn_over_bound"] <= 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"texts": []}, ValueError, "nothing to read"),
        ({"layers": "lsat"}, UnknownName, "Did you mean 'last'"),
        ({"layers": 3}, ValueError, r"from 0 \(the embedding\) to 2"),
        ({"layers": []}, ValueError, "must name layers"),
        ({"drop_first": -1}, ValueError, "drop_first"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_what_cannot_be_read_is_refused(reader, options, error, message):
    with pytest.raises(error, match=message):
        evaluate_texts(*reader, **{"texts": TEXTS, **options})
