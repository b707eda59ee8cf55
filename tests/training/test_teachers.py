"""What the bench for teachers is asked by its config, and the models that are read side by side."""

import pytest

from workbench.training import teachers


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WORKBENCH_CORES", "1")  # two models of three steps need no processes of their own
    lines = [f"{line} and {line * line} make {line * (line + 1)}.\n\n" for line in range(3000)]
    (tmp_path / "sums.txt").write_text("".join(lines))
    return teachers.Config.of(
        "smoke", corpus=str(tmp_path / "sums.txt"), context=16, teacher_steps=3, pretrained="none",
        teachers=["32x1", "16x1"],
    )  # fmt: skip


def test_teachers_are_trained_once_and_read_with_the_vocabulary_they_learned(config):
    trained = teachers.train(config)
    assert [model.name for model in trained] == ["32x1", "16x1"]
    assert [model.folder for model in teachers.train(config)] == [model.folder for model in trained]
    models = teachers.load(config, trained)
    assert list(models) == ["teacher 32x1", "teacher 16x1"]
    for model, tokenizer in models.values():
        assert model.config.vocab_size == len(tokenizer)
    assert list(teachers.table(trained)["parameters"]) == [model.parameters for model in trained]


def test_without_a_size_among_the_teachers_nothing_is_trained():
    config = teachers.Config(teachers=("smollm2-135m",))
    assert teachers.train(config) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [({"teachers": ()}, "teachers"), ({"student": "16"}, "width x layers"), ({"losses": ("kl",)}, "loss")],
)
def test_values_that_cannot_work_are_refused_before_anything_is_trained(values, message):
    with pytest.raises(ValueError, match=message):
        teachers.Config(**values)


@pytest.mark.parametrize(("written", "meant"), [("characters", "characters"), ("512", 512)])
def test_a_vocabulary_is_its_name_or_its_size(written, meant):
    assert teachers.Config(vocabulary=written).task.vocabulary == meant


@pytest.mark.parametrize("profile", ["smoke", "quick", "full", "paper"])
def test_every_profile_can_be_asked_for_and_has_a_student_without_a_teacher(profile):
    config = teachers.Config.of(profile)
    assert config.profile == profile
    assert "cross_entropy" in config.losses
    assert len(set(config.runs())) == len(config.runs())
