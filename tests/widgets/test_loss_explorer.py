"""The explorer, driven as a hand would drive it; no kernel and no browser is needed."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from workbench.datasets.corpus import Corpus, Document
from workbench.datasets.vocabulary import train_vocabulary
from workbench.errors import UnknownName
from workbench.losses import LOSSES, forward_kl, generalized_jsd
from workbench.models.small_lm import ModelSize, small_lm
from workbench.widgets.loss_contexts import REST, contexts_from_models
from workbench.widgets.loss_explorer import CHOICES, STUDENT, TEACHER, LossExplorer

TEXT = "To be, or not to be, that is the question"
COIN = {"coin": (("heads", "tails"), (1.0, 0.0), (0.0, 0.0)), "dice": (tuple("abcdef"), np.arange(6.0), np.zeros(6))}


def trace(explorer: LossExplorer, name: str) -> go.Bar:
    return next(one for one in explorer.figure.data if one.name == name)


def value(explorer: LossExplorer, name: str) -> float:
    return explorer.values.set_index("loss").loc[name, "value"]


def test_the_numbers_shown_are_those_of_the_losses():
    explorer = LossExplorer(COIN, losses=["forward KL", "Jensen-Shannon"])
    teacher, student = torch.tensor([1.0, 0.0]).double(), torch.zeros(2).double()
    assert value(explorer, "forward KL") == pytest.approx(forward_kl(student, teacher).item())
    assert value(explorer, "Jensen-Shannon") == pytest.approx(generalized_jsd(student, teacher, beta=0.5).item())
    assert f"{forward_kl(student, teacher).item():.4f}" in explorer.table.value


def test_the_bars_are_the_distributions_and_the_push_is_minus_the_gradient():
    explorer = LossExplorer(COIN, losses=["forward KL"])
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(trace(explorer, TEACHER).y, [p, 1 - p])
    np.testing.assert_allclose(trace(explorer, STUDENT).y, [0.5, 0.5])
    np.testing.assert_allclose(trace(explorer, "forward KL").y, [p - 0.5, 0.5 - p])


def test_dragging_a_logit_to_the_teacher_brings_the_loss_to_nothing():
    explorer = LossExplorer(COIN, losses=["forward KL", "reverse KL"])
    before = value(explorer, "forward KL")
    explorer.logits[0].value = 0.5
    assert 0 < value(explorer, "forward KL") < before
    explorer.logits[0].value = 1.0
    assert explorer.values["value"].abs().max() < 1e-9
    np.testing.assert_allclose(trace(explorer, STUDENT).y, trace(explorer, TEACHER).y)


def test_the_buttons_copy_the_teacher_and_bring_the_student_back():
    explorer = LossExplorer(COIN, losses=["forward KL"])
    before = value(explorer, "forward KL")
    explorer.copy.click()
    assert value(explorer, "forward KL") == pytest.approx(0, abs=1e-9)
    explorer.reset.click()
    assert value(explorer, "forward KL") == pytest.approx(before)


def test_only_the_chosen_losses_are_drawn_with_their_mixtures():
    explorer = LossExplorer(losses=["reverse KL"])
    assert {one.name for one in explorer.figure.data if one.visible} == {TEACHER, STUDENT, "reverse KL"}
    explorer.losses.value = ("TAID", "total variation")
    shown = {one.name for one in explorer.figure.data if one.visible}
    assert shown == {TEACHER, STUDENT, "target of TAID", "TAID", "total variation"}
    assert list(explorer.values["loss"]) == ["TAID", "total variation"]
    explorer.losses.value = ()
    assert explorer.values.empty


def test_the_target_of_taid_walks_from_the_student_to_the_teacher():
    explorer = LossExplorer(losses=["TAID"])
    explorer.t.value = 0.0
    np.testing.assert_allclose(trace(explorer, "target of TAID").y, trace(explorer, STUDENT).y)
    assert np.abs(trace(explorer, "TAID").y).max() == 0.0
    explorer.t.value = 1.0
    np.testing.assert_allclose(trace(explorer, "target of TAID").y, trace(explorer, TEACHER).y)


@pytest.mark.parametrize(
    ("loss", "slider"),
    [
        ("Jensen-Shannon", "beta"),
        ("skew KL", "alpha"),
        ("skew reverse KL", "alpha"),
        ("TAID", "t"),
        ("adaptive KL", "mu"),
        ("symmetric KL", "weight"),
    ],
)
def test_a_slider_moves_the_loss_that_listens_to_it_and_is_greyed_for_others(loss, slider):
    explorer = LossExplorer(losses=[loss])
    before = value(explorer, loss)
    assert not getattr(explorer, slider).disabled
    getattr(explorer, slider).value = 0.9
    assert value(explorer, loss) != before
    explorer.losses.value = ("forward KL",)
    assert getattr(explorer, slider).disabled


def test_temperature_flattens_both_distributions():
    explorer = LossExplorer()
    sharp = max(trace(explorer, TEACHER).y)
    explorer.temperature.value = 8.0
    assert max(trace(explorer, TEACHER).y) < sharp


def test_another_context_brings_its_own_tokens_and_sliders():
    explorer = LossExplorer(COIN)
    explorer.context.value = "dice"
    assert [slider.description for slider in explorer.logits] == list("abcdef")
    assert list(explorer.figure.layout.xaxis.ticktext) == list("abcdef")
    assert len(trace(explorer, TEACHER).y) == 6
    assert explorer.sliders.children == explorer.logits


def test_every_loss_of_the_package_can_be_chosen():
    assert {choice.name for choice in CHOICES.values()} == set(LOSSES)
    assert len(LossExplorer(losses=list(CHOICES)).values) == len(CHOICES)


def test_what_is_not_counted_in_nats_is_not_called_so():
    explorer = LossExplorer(COIN, losses=["logit error"])
    assert value(explorer, "logit error") == pytest.approx(0.25)  # centred, each logit is off by a half
    assert "nats" not in explorer.table.value
    explorer.losses.value = ("adaptive KL",)
    assert "nats" in explorer.table.value


def test_a_button_that_moves_every_slider_draws_once():
    explorer, drawn = LossExplorer(losses=["forward KL"]), []
    explorer.table.observe(drawn.append, names="value")
    explorer.copy.click()
    assert len(drawn) == 1


def test_without_anybody_looking_the_figure_is_a_plain_one(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    explorer = LossExplorer()
    assert type(explorer.figure) is go.Figure
    explorer.logits[0].value = 3.0
    assert explorer.figure.to_json()


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="contexts is empty"):
        LossExplorer({})
    with pytest.raises(ValueError, match=r"'coin' has 2 tokens, but teacher_logits \(3,\)"):
        LossExplorer({"coin": (("a", "b"), np.zeros(3), np.zeros(2))})
    with pytest.raises(UnknownName, match="Did you mean 'forward KL'"):
        LossExplorer(losses=["forward kl"])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        tokenizer = train_vocabulary(Corpus("hamlet", (Document("hamlet", TEXT * 10, "tragedy"),)), "characters")
    teacher, student = (small_lm(len(tokenizer), ModelSize(16, 1, 1), context=48, seed=seed).eval() for seed in (0, 1))
    return student, teacher, tokenizer


def test_contexts_hold_the_models_own_probabilities_and_lose_none(models):
    student, teacher, tokenizer = models
    contexts = contexts_from_models(student, teacher, tokenizer, [TEXT, "To be"], top=5)
    assert list(contexts) == [TEXT, "To be"]
    tokens, of_teacher, of_student = contexts[TEXT]
    assert len(tokens) == 6
    assert tokens[-1] == REST
    ids = torch.tensor([tokenizer.encode(TEXT, add_special_tokens=False)])
    for model, logits in ((teacher, of_teacher), (student, of_student)):
        with torch.no_grad():
            probabilities = model(ids).logits[0, -1].softmax(-1).numpy()
        assert np.exp(logits).sum() == pytest.approx(1, rel=1e-5)
        assert np.exp(logits[0]) in (pytest.approx(probability, rel=1e-4) for probability in probabilities)
    assert len(LossExplorer(contexts).logits) == 6


def test_a_top_that_holds_the_whole_vocabulary_leaves_no_bucket(models):
    student, teacher, tokenizer = models
    context = contexts_from_models(student, teacher, tokenizer, ["To be"], top=10_000)["To be"]
    assert len(context.tokens) == len(tokenizer)
    assert REST not in context.tokens


def test_models_and_texts_that_do_not_fit_are_refused(models):
    student, _, tokenizer = models
    larger = small_lm(len(tokenizer) + 3, ModelSize(16, 1, 1), context=48, seed=0)
    with pytest.raises(ValueError, match="vocabulary of tokenizer"):
        contexts_from_models(student, larger, tokenizer, ["To be"])
    with pytest.raises(ValueError, match="texts is empty"):
        contexts_from_models(student, student, tokenizer, [])
    with pytest.raises(ValueError, match="top"):
        contexts_from_models(student, student, tokenizer, ["To be"], top=0)
