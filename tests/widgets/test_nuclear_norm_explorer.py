"""The nuclear norm under the hand, without kernel or browser."""

import plotly.graph_objects as go
import pytest
import torch

from workbench.datasets.text_operations import operate
from workbench.metrics.nuclear_norm import matrix_nuclear_norm
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import TextTask
from workbench.widgets.nuclear_norm_explorer import KEPT, NuclearNormExplorer

TEXTS = ["To be, or not to be, that is the question", "Now is the winter of our discontent"]


@pytest.fixture(scope="module")
def reader():
    text = TextTask().prepare()
    return small_lm(text.vocab_size, ModelSize(32, 3, 2), context=128, seed=0).eval(), text.tokenizer


@pytest.fixture
def explorer(reader):
    return NuclearNormExplorer(*reader, TEXTS)


def hidden_of(reader, words, layer):
    model, tokenizer = reader
    with torch.no_grad():
        found = model.model(torch.tensor([tokenizer(" " + words)["input_ids"]]), output_hidden_states=True)
    return found[0][0] if layer == 3 else found.hidden_states[layer][0]


def test_it_begins_with_the_last_layer_the_whole_text_and_the_authors_columns(reader, explorer):
    assert (explorer.layer.value, explorer.length.value, explorer.top.value) == (3, len(TEXTS[0]) + 1, 32)
    expected = float(matrix_nuclear_norm(hidden_of(reader, TEXTS[0], 3)))
    assert explorer.numbers["mnn"] == pytest.approx(expected)
    assert f"{expected:.4f} a token" in explorer.sentence.value


def test_layer_length_and_columns_are_those_of_the_sliders(reader, explorer):
    explorer.layer.value, explorer.length.value = 1, 20
    assert (explorer.top.max, explorer.top.value) == (20, 20)
    explorer.top.value = 7
    hidden = hidden_of(reader, TEXTS[0], 1)[:20]
    assert explorer.numbers["mnn"] == pytest.approx(float(matrix_nuclear_norm(hidden, top=7)))
    assert explorer.spectrum.layout.shapes[0].x0 == 7
    assert len(explorer.spectrum.data[0].x) == 32
    assert len(explorer.by_layer.data[0].x) == 4
    assert explorer.by_layer.layout.shapes[0].x0 == 1


def test_an_operation_is_done_to_the_words_and_read_once(reader, explorer):
    explorer.operation.value = "reverse"
    expected = float(matrix_nuclear_norm(hidden_of(reader, operate(TEXTS[0], "reverse"), 3)))
    assert explorer.numbers["mnn"] == pytest.approx(expected)
    before = len(explorer._read)
    explorer.operation.value = "none"
    explorer.operation.value = "reverse"
    assert len(explorer._read) == before
    for place in range(2 * KEPT):
        explorer.text.value = f"{TEXTS[0]} {place}"
    assert len(explorer._read) <= KEPT


def test_another_text_is_taken_whole(reader, explorer):
    explorer.choice.value = 1
    assert explorer.text.value == TEXTS[1]
    assert explorer.length.value == len(TEXTS[1]) + 1
    explorer.text.value = "Words of my own"
    assert explorer.numbers["tokens"] == 16


def test_what_has_no_direction_is_said_and_the_next_text_works(explorer):
    explorer.text.value = ""
    assert "at least 2" in explorer.sentence.value
    explorer.text.value = TEXTS[1]
    assert "a token" in explorer.sentence.value
    explorer.layer.value, explorer.text.value = 0, "  ".join("aaaa")
    explorer.length.value = 2


def test_a_headless_run_keeps_still_figures(reader, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUN", "somewhere")
    assert type(NuclearNormExplorer(*reader, TEXTS).spectrum) is go.Figure
    assert type(NuclearNormExplorer(*reader, TEXTS).by_layer) is go.Figure


def test_without_a_text_there_is_nothing_to_explore(reader):
    with pytest.raises(ValueError, match="at least one text"):
        NuclearNormExplorer(*reader, [])
    with pytest.raises(ValueError, match="at least 2"):
        NuclearNormExplorer(*reader, [""])
