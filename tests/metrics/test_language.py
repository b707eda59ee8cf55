"""Scores of language models: hand sums, identities and what a teacher's ranking means."""

import math

import pytest
import torch
import torch.nn.functional as F

from workbench.metrics.language import LanguageScores, head_and_tail, held_out_scores, log_probabilities
from workbench.models.small_lm import ModelSize, small_lm

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 5, 20, generator=GENERATOR)
TEACHER = torch.randn(2, 5, 20, generator=GENERATOR).log_softmax(-1)
LABELS = torch.randint(20, (2, 5), generator=GENERATOR)


def scored(logits, teacher=None, bytes_per_token=1.0):
    scores = LanguageScores(bytes_per_token)
    scores.add(logits, LABELS, teacher)
    return scores.result()


def test_nats_are_the_cross_entropy_and_per_byte_they_are_divided_by_the_bytes_of_a_token():
    expected = F.cross_entropy(LOGITS.flatten(0, 1), LABELS.flatten()).item()
    found = scored(LOGITS, bytes_per_token=4.0)
    assert found["nats_per_token"] == pytest.approx(expected, rel=1e-6)
    assert found["nats"] == pytest.approx(expected / 4, rel=1e-6)


def test_divergences_agree_with_torch():
    found, q = scored(LOGITS, TEACHER), LOGITS.log_softmax(-1)
    forward = F.kl_div(q, TEACHER, log_target=True, reduction="none").sum(-1).mean().item()
    reverse = F.kl_div(TEACHER, q, log_target=True, reduction="none").sum(-1).mean().item()
    assert found["kl_to_teacher"] == pytest.approx(forward, rel=1e-5)
    assert found["reverse_kl_to_teacher"] == pytest.approx(reverse, rel=1e-5)


def test_a_student_that_is_its_teacher_has_no_divergence():
    found = scored(TEACHER, TEACHER)
    assert found["kl_to_teacher"] == pytest.approx(0.0, abs=1e-6)
    assert found["reverse_kl_to_teacher"] == pytest.approx(0.0, abs=1e-6)


def test_what_needs_a_teacher_is_nan_without_one():
    found = scored(LOGITS)
    assert math.isnan(found["kl_to_teacher"])
    assert math.isnan(found["tail_mass"])


def test_an_even_student_has_the_share_of_the_vocabulary_in_head_and_tail():
    found = scored(torch.zeros(2, 5, 20), TEACHER)
    assert found["head_mass"] == pytest.approx(4 / 20)  # a fifth: ten would be half of so small a vocabulary
    assert found["tail_mass"] == pytest.approx(4 / 20)


def test_head_and_tail_are_the_ends_of_the_teachers_ranking():
    teacher = torch.arange(100.0).log_softmax(-1)
    head, tail = head_and_tail(teacher)
    assert head.tolist() == list(range(99, 89, -1))
    assert sorted(tail.tolist()) == list(range(20))


def test_a_word_that_the_teacher_excludes_counts_nothing_forward():
    teacher = TEACHER.clone()
    teacher[..., 3] = -math.inf
    assert math.isfinite(scored(LOGITS, teacher)["kl_to_teacher"])


def test_adding_window_by_window_is_adding_at_once():
    parts = LanguageScores()
    for row in range(2):
        parts.add(LOGITS[row], LABELS[row], TEACHER[row])
    assert parts.result() == pytest.approx(scored(LOGITS, TEACHER))


def test_the_batch_size_of_the_evaluation_does_not_matter_and_the_mode_of_the_model_stays():
    model = small_lm(20, ModelSize(16, 1, 1), context=8, seed=0)
    windows = torch.randint(20, (7, 9), generator=torch.Generator().manual_seed(1))
    teacher = log_probabilities(small_lm(20, ModelSize(16, 1, 1), context=8, seed=1), windows, batch_size=2)
    one, other = (
        held_out_scores(model, windows, bytes_per_token=1.0, teacher_log_probs=teacher, batch_size=size)
        for size in (2, 7)
    )
    assert one == pytest.approx(other, rel=1e-5)
    assert model.training


def test_vocabularies_of_different_size_and_nothing_to_score_are_refused():
    with pytest.raises(ValueError, match="vocabularies"):
        scored(LOGITS, TEACHER[..., :10])
    with pytest.raises(ValueError, match="nothing to score"):
        LanguageScores().result()
