"""The ladder: trained once, found afterwards, the same bits whatever the number of cores."""

import shutil

import pytest
import torch

from workbench.files import data_folder
from workbench.metrics.language import held_out_scores
from workbench.models.small_lm import ModelSize, count_parameters
from workbench.training import fixed_windows, ladder, train_ladder

SIZES = [ModelSize(16, 1, 1), ModelSize(32, 1, 2)]
RECIPE = {"steps": 25, "batch_size": 4, "evaluation_windows": 40}


def test_a_ladder_is_loaded_the_second_time_without_training(task, monkeypatch):
    first = train_ladder(SIZES, task, **RECIPE, cores=1)
    monkeypatch.setattr(ladder, "_train_into", lambda *_: pytest.fail("it was trained again"))
    again = train_ladder(SIZES[::-1], task, **RECIPE, cores=1)
    assert again == first[::-1]
    with pytest.raises(pytest.fail.Exception):
        train_ladder(SIZES, task, **{**RECIPE, "steps": 26}, cores=1)


def test_what_is_known_of_a_model_is_true_of_the_model_that_loads(task):
    (trained,) = train_ladder(SIZES[1:], task, **RECIPE, cores=1)
    model, text = trained.load(), task.prepare()
    assert not model.training
    assert count_parameters(model) == trained.parameters
    assert count_parameters(model, embeddings=False) == trained.parameters_without_embeddings
    windows = fixed_windows(text.held_out, context=text.context, count=40)
    scores = held_out_scores(model, windows, bytes_per_token=text.bytes_per_token)
    assert scores["nats"] == pytest.approx(trained.held_out_nats, abs=1e-5)
    tokens = windows[:2, :-1]
    torch.testing.assert_close(trained.lean()(tokens), model(input_ids=tokens).logits, atol=1e-5, rtol=1e-4)


def test_transformers_reads_the_folder_by_itself(task):
    from transformers import AutoModelForCausalLM

    (trained,) = train_ladder(SIZES[:1], task, **RECIPE, cores=1)
    read = AutoModelForCausalLM.from_pretrained(trained.folder / "model")
    tokens = torch.arange(10)[None]
    assert torch.equal(read(input_ids=tokens).logits, trained.load()(input_ids=tokens).logits)


def test_one_and_two_cores_train_the_same_bits(task, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CORES", "2")
    one = train_ladder(SIZES, task, **RECIPE, cores=1)
    weights = [model.weights() for model in one]
    shutil.rmtree(data_folder() / "cache" / "models")
    two = train_ladder(SIZES, task, **RECIPE, cores=2)
    assert [model.held_out_nats for model in two] == [model.held_out_nats for model in one]
    for before, model in zip(weights, two, strict=True):
        assert all(torch.equal(weight, before[name]) for name, weight in model.weights().items())


def test_a_larger_model_and_more_steps_predict_better(task):
    few, many = (train_ladder(SIZES[1:], task, **{**RECIPE, "steps": steps}, cores=1)[0] for steps in (5, 60))
    assert many.held_out_nats < few.held_out_nats - 0.3


def test_stopping_gives_the_models_that_are_done(task):
    found = train_ladder(SIZES, task, **RECIPE, cores=1, stop=lambda: True)
    assert [model.size for model in found] == SIZES[1:]  # the largest is trained first


def test_an_empty_ladder_is_refused(task):
    with pytest.raises(ValueError, match="at least one ModelSize"):
        train_ladder([], task, steps=1)


def test_models_lie_in_the_callers_data_folder_whatever_the_processes_were_started_with(task, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CORES", "2")
    for name in ("one", "other"):
        monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / name))
        found = train_ladder(SIZES, task, **{**RECIPE, "steps": 2}, cores=2)
        assert all(model.folder.is_relative_to(tmp_path / name) for model in found)
        assert len(found) == 2
