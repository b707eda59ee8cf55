"""The models of the comparison notebook, by their config."""

import pytest

from workbench.training import teachers


def test_the_student_comes_first_and_every_model_reads_with_the_vocabulary_it_learned(task, plays):
    config = teachers.Config.of("smoke", corpus=str(plays), context=16, steps=5, pretrained="none")
    with pytest.raises(ValueError, match="document"):
        teachers.train(config)  # four plays are held out, and the folder has three


@pytest.mark.parametrize("widths", [(), (16, 24), (32, 16), (16, 16)])
def test_widths_that_cannot_work_are_refused_before_anything_is_trained(widths):
    with pytest.raises(ValueError, match="widths"):
        teachers.Config(widths=widths)


@pytest.mark.parametrize(("written", "meant"), [("characters", "characters"), ("512", 512)])
def test_a_vocabulary_is_its_name_or_its_size(written, meant):
    assert teachers.Config(vocabulary=written).task.vocabulary == meant


@pytest.mark.parametrize("profile", ["smoke", "quick", "full", "paper"])
def test_every_profile_can_be_asked_for(profile):
    assert teachers.Config.of(profile).profile == profile
