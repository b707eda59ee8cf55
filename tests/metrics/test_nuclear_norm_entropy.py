"""Matrix entropy from the smaller Gram matrix is the authors' entropy, and its ends are where they should be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UnknownName
from workbench.metrics import nuclear_norm
from workbench.metrics.matrix_entropy import covariance_spectrum, diff_erank, effective_rank, matrix_entropy
from workbench.metrics.mnn_reference import reference_matrix_entropy


def hidden(tokens=20, width=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, width, generator=random) + 3 * torch.randn(width, generator=random)


@pytest.mark.parametrize(("tokens", "width"), [(2, 5), (12, 40), (90, 90), (200, 33), (64, 300)])
def test_it_is_the_authors_entropy(tokens, width):
    matrix = hidden(tokens, width)
    assert float(matrix_entropy(matrix)) == pytest.approx(reference_matrix_entropy(matrix), abs=2e-5)


def test_a_gram_of_float64_says_the_same():
    matrix = hidden(128, 64)
    assert float(matrix_entropy(matrix)) == pytest.approx(float(matrix_entropy(matrix.double())), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(3, 30), width=st.integers(2, 30), seed=st.integers(0, 10**6))
def test_entropy_and_rank_stay_within_what_the_matrix_can_have(tokens, width, seed):
    matrix = hidden(tokens, width, seed)
    least = min(tokens, width)
    assert 1 - 1e-4 <= float(effective_rank(matrix)) <= least * (1 + 1e-4)
    assert -1e-5 <= float(matrix_entropy(matrix, base="rank")) <= 1 + 1e-4
    by_width = float(matrix_entropy(matrix)) * math.log(width)
    assert by_width == pytest.approx(float(matrix_entropy(matrix, base="rank")) * math.log(least), abs=1e-4)
    assert math.exp(by_width) == pytest.approx(float(effective_rank(matrix)), rel=1e-3)


def test_two_unlike_tokens_lie_on_one_line_and_have_no_entropy():
    assert float(matrix_entropy(hidden(2, 8))) == pytest.approx(0, abs=1e-5)
    assert float(effective_rank(hidden(2, 8))) == pytest.approx(1, abs=1e-4)


def test_directions_used_alike_have_entropy_one():
    corners = torch.cat([torch.eye(6), -torch.eye(6)])
    assert float(matrix_entropy(corners)) == pytest.approx(1)
    assert float(effective_rank(corners)) == pytest.approx(6, rel=1e-5)


def test_a_rotation_does_not_move_it():
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
    assert float(matrix_entropy(hidden() @ turn)) == pytest.approx(float(matrix_entropy(hidden())), abs=1e-5)


def test_shares_of_the_spectrum_add_up_to_one():
    assert float(covariance_spectrum(hidden(9, 30)).sum()) == pytest.approx(1, abs=1e-5)
    assert covariance_spectrum(hidden(9, 30)).shape == (9,)


def test_the_difference_of_ranks_is_that_of_two_models_on_one_text():
    untrained, trained = hidden(seed=1), hidden(seed=2)
    expected = float(effective_rank(untrained)) - float(effective_rank(trained))
    assert float(diff_erank(untrained, trained)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="two models of one width"):
        diff_erank(untrained, hidden(width=6))


def test_where_the_authors_code_breaks_off_there_is_nan():
    with pytest.raises(torch.linalg.LinAlgError):
        reference_matrix_entropy(hidden(1))
    for nothing in (hidden(1), hidden(1).expand(5, 12), torch.empty(0, 12)):
        assert math.isnan(matrix_entropy(nothing))
        assert math.isnan(effective_rank(nothing))
    assert math.isnan(matrix_entropy(hidden(5, 1)))  # ln 1 is no measure


def test_padding_does_not_count():
    batch, mask = torch.zeros(2, 9, 12), torch.zeros(2, 9, dtype=torch.bool)
    batch[0], mask[0] = hidden(9), True
    batch[1, :4], mask[1, :4] = hidden(4), True
    expected = [float(matrix_entropy(hidden(9))), float(matrix_entropy(hidden(4)))]
    assert matrix_entropy(batch, mask=mask).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_misspelt_base_is_asked_about_and_the_names_are_in_one_place():
    with pytest.raises(UnknownName, match="Did you mean 'rank'"):
        matrix_entropy(hidden(), base="ranks")
    assert nuclear_norm.matrix_entropy is matrix_entropy
    assert nuclear_norm.effective_rank is effective_rank
