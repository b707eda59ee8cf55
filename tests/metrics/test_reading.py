"""A real (untrained) Llama reads text; what is told of it is what the model itself says."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from workbench.datasets.corpus import Corpus, Document
from workbench.datasets.vocabulary import train_vocabulary
from workbench.metrics.reading import read_text, same_vocabulary
from workbench.models.small_lm import ModelSize, small_lm

TEXT = "To be, or not to be, that is the question.\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        corpus = Corpus("hamlet", (Document("hamlet", TEXT * 10, "tragedy"),))
        return train_vocabulary(corpus, "characters")


@pytest.fixture(scope="module")
def model(tokenizer):
    return small_lm(len(tokenizer), ModelSize(16, 1, 1), context=48, seed=0).eval()


def test_nats_per_byte_is_the_models_own_loss(model, tokenizer):
    ids = torch.tensor([tokenizer.encode(TEXT, add_special_tokens=False)])
    with torch.no_grad():
        loss = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()  # one byte a token here
    assert read_text(model, tokenizer, TEXT).nats_per_byte == pytest.approx(loss, rel=1e-5)


def test_the_pieces_spell_the_text_and_carry_all_the_surprise(model, tokenizer):
    reading = read_text(model, tokenizer, TEXT)
    pieces = reading.pieces()
    assert "".join(piece for piece, _ in pieces) == TEXT
    assert np.isnan(pieces[0][1])
    assert sum(nats for _, nats in pieces[1:]) == pytest.approx(reading.nats_per_byte * (len(TEXT) - 1))


def test_a_character_spelled_by_several_tokens_is_one_piece(model, tokenizer):
    reading = read_text(model, tokenizer, "be é be")
    assert [piece for piece, _ in reading.pieces()] == list("be é be")
    assert len(reading.token_ids) > len("be é be")


def test_the_end_of_the_text_moves_nothing_before_it(model, tokenizer):
    short, long = read_text(model, tokenizer, "To be"), read_text(model, tokenizer, "To be, or not")
    np.testing.assert_allclose(long.logits[:5], short.logits, atol=1e-5)


def test_a_text_longer_than_the_context_is_read_at_its_end(model, tokenizer):
    reading = read_text(model, tokenizer, TEXT * 3)
    assert len(reading.token_ids) == 48
    assert reading.start == len(TEXT * 3) - 48
    assert "".join(piece for piece, _ in reading.pieces()) == (TEXT * 3)[-48:]


def test_place_is_the_last_token_that_ends_in_time(model, tokenizer):
    reading = read_text(model, tokenizer, "To be")
    assert [reading.place(characters) for characters in (0, 1, 2, 5, 99)] == [0, 0, 1, 4, 4]


def test_top_lists_the_likeliest_first(model, tokenizer):
    reading = read_text(model, tokenizer, "To be")
    everything = reading.top(2, 10_000)
    assert everything.tolist() == np.argsort(-reading.logits[2], kind="stable").tolist()
    assert reading.top(2, 3).tolist() == everything[:3].tolist()


def test_one_vocabulary_is_recognised_by_its_tokens(model, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    first, second = read_text(model, tokenizer, "To be"), read_text(model, again, "To be")
    assert same_vocabulary(first, second)


def test_an_empty_text_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="text is empty"):
        read_text(model, tokenizer, "")
