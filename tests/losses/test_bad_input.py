"""What is refused: one sentence that names the argument."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.losses.cases import EVERY, logits
from workbench.errors import UnknownName
from workbench.losses import LOSSES, forward_kl, generalized_jsd, loss_by_name, skew_kl, symmetric_kl, taid

every_name = pytest.mark.parametrize("name", list(LOSSES))


def call(name, *tensors, **options):
    return LOSSES[name](*tensors, **EVERY[name], **options)


@every_name
@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "hot"])
def test_a_temperature_that_is_not_above_zero_is_refused(name, temperature):
    with pytest.raises(ValueError, match="temperature"):
        call(name, logits(2, 3), logits(2, 3), temperature=temperature)


@every_name
def test_vocabularies_of_different_size_are_refused_with_a_way_out(name):
    with pytest.raises(ValueError, match=r"student_logits \(2, 3\), teacher_logits \(2, 4\).*vocabularies"):
        call(name, logits(2, 3), logits(2, 4))


@every_name
def test_a_mask_of_another_shape_or_type_is_refused(name):
    with pytest.raises(ValueError, match=r"mask has shape \(2, 3, 5\), expected \(2, 3\)"):
        call(name, logits(2, 3, 5), logits(2, 3, 5), torch.ones(2, 3, 5, dtype=torch.bool))
    for mask in (torch.ones(2, 3), np.ones((2, 3), bool), [[True] * 3] * 2):
        with pytest.raises(TypeError, match="mask must be a bool tensor"):
            call(name, logits(2, 3, 5), logits(2, 3, 5), mask)


@every_name
def test_an_unknown_reduction_is_answered_with_the_nearest(name):
    with pytest.raises(UnknownName, match="Did you mean 'token_mean'"):
        call(name, logits(2, 3), logits(2, 3), reduction="token_men")


@every_name
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused_where_they_count(name, bad):
    clean, dirty = logits(2, 3, 5), logits(2, 3, 5)
    dirty[1, 2, 0] = bad
    what = "NaN" if math.isnan(bad) else r"\+inf"
    with pytest.raises(ValueError, match=rf"^student_logits holds {what}.*\[1, 2\]"):
        call(name, dirty, clean)
    with pytest.raises(ValueError, match=rf"^teacher_logits holds {what}.*\[1, 2\]"):
        call(name, clean, dirty)
    mask = torch.ones(2, 3, dtype=torch.bool)
    mask[1, 2] = False
    assert call(name, dirty, dirty, mask).isfinite()


@every_name
def test_a_position_where_no_word_is_allowed_is_refused(name):
    nothing = logits(2, 3)
    nothing[1] = -math.inf
    with pytest.raises(ValueError, match="student_logits holds nothing but -inf"):
        call(name, nothing, logits(2, 3))


@pytest.mark.parametrize("name", ["generalized_jsd", "skew_kl", "total_variation", "reverse_kl"])
def test_a_nan_beside_a_shared_minus_infinity_is_still_seen(name):
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    student[:, 4] = teacher[:, 4] = -math.inf
    student[0, 0] = math.nan
    with pytest.raises(ValueError, match="student_logits holds NaN"):
        call(name, student, teacher)


def test_a_teacher_and_a_student_without_a_common_word_have_no_blend():
    with pytest.raises(ValueError, match="share no word"):
        taid(torch.tensor([0.0, -math.inf]), torch.tensor([-math.inf, 0.0]), t=0.5)


@every_name
def test_only_floating_tensors_with_a_vocabulary_are_taken(name):
    with pytest.raises(TypeError, match=r"student_logits.*int64"):
        call(name, torch.ones(2, 3, dtype=torch.int64), logits(2, 3))
    with pytest.raises(TypeError, match=r"teacher_logits.*ndarray"):
        call(name, logits(2, 3), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"student_logits has shape \(\)"):
        call(name, torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"student_logits has shape \(2, 0\)"):
        call(name, torch.zeros(2, 0), torch.zeros(2, 0))


@pytest.mark.parametrize("beta", [0, 1, 0.0, 1.0, -0.1, 1.1, math.nan])
def test_the_ends_of_jensen_shannon_are_refused_and_point_to_the_two_kl(beta):
    with pytest.raises(ValueError, match=r"beta.*forward_kl.*reverse_kl"):
        generalized_jsd(logits(2, 3), logits(2, 3), beta=beta)


@pytest.mark.parametrize("outside", [-0.1, 1.1, math.nan])
def test_shares_outside_zero_to_one_are_refused_by_name(outside):
    student, teacher = logits(2, 3), logits(2, 3)
    for loss, option in ((skew_kl, "alpha"), (symmetric_kl, "weight"), (taid, "t")):
        with pytest.raises(ValueError, match=f"{option}="):
            loss(student, teacher, **{option: outside})


def test_an_unknown_direction_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'reverse'"):
        skew_kl(logits(2, 3), logits(2, 3), direction="revers")


@pytest.mark.parametrize("num_items", [0, -3, math.nan, math.inf])
def test_a_number_of_items_that_cannot_divide_is_refused(num_items):
    with pytest.raises(ValueError, match="num_items"):
        forward_kl(logits(2, 3), logits(2, 3), num_items=num_items)


def test_items_without_a_sum_are_refused():
    with pytest.raises(ValueError, match="num_items"):
        forward_kl(logits(2, 3), logits(2, 3), reduction="none", num_items=2)


def test_an_unknown_loss_or_option_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'forward_kl'"):
        loss_by_name("foward_kl")
    with pytest.raises(UnknownName, match=r"option of generalized_jsd='betta'.*Did you mean 'beta'"):
        loss_by_name("generalized_jsd", betta=0.5)


def test_a_wrong_option_is_refused_before_the_loss_is_used():
    with pytest.raises(ValueError, match="beta"):
        loss_by_name("generalized_jsd", beta=1.0)
    with pytest.raises(ValueError, match="temperature"):
        loss_by_name("forward_kl", temperature=0)
    with pytest.raises(ValueError, match="taid needs t="):
        loss_by_name("taid")
