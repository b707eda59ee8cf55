"""Profile ``paper``: it says at once what is missing; and one's own models work at any profile."""

import importlib.util
import time

import pytest
import torch

from workbench.errors import AssetError
from workbench.experiments import capacity_gap, taid
from workbench.models.small_lm import named_size
from workbench.runtime import require_paper_setting
from workbench.training import TextTask, train_ladder
from workbench.training.teachers import table

EXPERIMENTS = (taid, capacity_gap)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three small models with their tokenizer, as people keep their own, the smallest first."""
    task, home = TextTask(context=16), tmp_path_factory.mktemp("models")
    models = train_ladder([named_size(name) for name in ("16x1", "32x1", "48x1")], task, steps=20, cores=1)
    for model in models:
        model.load().save_pretrained(home / model.name)
        task.prepare().tokenizer.save_pretrained(home / model.name)
    return [str(home / model.name) for model in models]


@pytest.fixture
def lacking(monkeypatch):
    """A machine without GPU, hub and the extra packages, whatever this one has."""
    real = importlib.util.find_spec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("datasets", "accelerate") else real(name, *a)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.__name__.rpartition(".")[2])
def test_the_papers_own_setting_says_at_once_all_that_is_missing(experiment, lacking, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    config = experiment.Config.of("paper")
    before = time.process_time()
    with pytest.raises(AssetError) as caught:
        experiment.run(config)
    assert time.process_time() - before < 5
    said = str(caught.value)
    for part in ("a GPU", "datasets and accelerate", "'.[paper]'", "the Hugging Face hub", "quick and full"):
        assert part in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())  # nothing was fetched or made before


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.__name__.rpartition(".")[2])
def test_the_step_that_gets_the_teachers_says_it_too(experiment, lacking):
    with pytest.raises(AssetError, match="lacks here: a GPU"):
        experiment.train_teachers(experiment.Config.of("paper"))


def test_only_what_is_missing_is_listed(lacking, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(AssetError, match=r"lacks here: the package datasets \(pip install [^;]*\)\. Profiles"):
        require_paper_setting(packages=("datasets", "torch"), hub=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # then its cache must do, and the loaders say what that lacks
    assert require_paper_setting(packages=("torch",)) is None


def test_the_papers_models_are_named_as_on_the_hub():
    assert taid.Config.of("paper").teachers[-1] == "EleutherAI/pythia-6.9b"
    assert capacity_gap.Config.of("paper").students[0] == "openai-community/gpt2"
    for experiment in EXPERIMENTS:
        assert experiment.Config.of("paper").corpus.startswith("hub:")


def test_taid_runs_with_ones_own_models(folders):
    config = taid.Config.of("smoke", teachers=folders[1:], student=folders[0], context=16)
    teachers = taid.train_teachers(config)
    assert table(teachers)["model"].tolist() == ["32x1", "48x1"]
    result = taid.run(config)
    assert set(result.rows["teacher"]) == {"32x1", "48x1"}
    assert len(result.rows) == len(config.teachers) * len(config.objectives) * len(config.seeds)
    assert result.rows["nats"].notna().all()


def test_capacity_gap_runs_with_ones_own_models_from_every_start(folders):
    inits = ("given", "pruned")
    config = capacity_gap.Config.of("smoke", teachers=folders, students=folders[:1], context=16, inits=inits)
    result = capacity_gap.run(config)
    rows = result.rows
    assert set(rows.loc[rows["init"] == "given", "teacher"]) == {"none", "16x1", "32x1", "48x1"}
    assert set(rows.loc[rows["init"] == "pruned", "teacher"]) == {"32x1", "48x1"}  # larger than the student
    assert any("as it was published" in claim.statement for claim in result.claims)


def test_sizes_and_pretrained_models_do_not_mix(folders):
    with pytest.raises(ValueError, match="'16x1' is a size to train here and .* a pretrained model"):
        taid.Config.of("smoke", teachers=folders[1:])
    with pytest.raises(ValueError, match="inits.*'given'"):
        capacity_gap.Config.of("smoke", inits=("given",))
