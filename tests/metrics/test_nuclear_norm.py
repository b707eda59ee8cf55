"""The matrix nuclear norm is the authors' number, within its bounds, and says NaN where there is nothing to say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UnknownName
from workbench.metrics.mnn_reference import reference_normalize, reference_nuclear_norm
from workbench.metrics.nuclear_norm import (
    column_norms,
    l12_upper_bound,
    matrix_nuclear_norm,
    mnn_bound,
    normalize_hidden,
    nuclear_norm,
)


def hidden(tokens=20, width=12, seed=0, offset=3.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, width, generator=random) + offset * torch.randn(width, generator=random)


def by_loops(matrix, top):
    """The formula read aloud, number by number, in double precision."""
    rows = np.asarray(matrix, dtype=np.float64)
    means = [sum(rows[i, j] for i in range(len(rows))) / len(rows) for j in range(rows.shape[1])]
    centred = [[rows[i, j] - means[j] for j in range(rows.shape[1])] for i in range(len(rows))]
    lengths = [math.sqrt(sum(value**2 for value in row)) for row in centred]
    norms = [math.sqrt(sum((centred[i][j] / lengths[i]) ** 2 for i in range(len(rows)))) for j in range(rows.shape[1])]
    return sum(sorted(norms, reverse=True)[:top])


@pytest.mark.parametrize(("tokens", "width"), [(2, 5), (7, 3), (40, 64), (300, 33), (1100, 520)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_it_is_the_authors_number(tokens, width, offset):
    matrix = hidden(tokens, width, offset=offset)
    assert float(matrix_nuclear_norm(matrix)) == pytest.approx(reference_nuclear_norm(matrix), rel=1e-5)


def test_it_is_the_formula_read_aloud():
    matrix = hidden(9, 6)
    for top in (1, 4, 6):
        whole = matrix_nuclear_norm(matrix, top=top, per_token=False)
        assert float(whole) == pytest.approx(by_loops(matrix, top), rel=1e-5)
        assert float(matrix_nuclear_norm(matrix, top=top)) == pytest.approx(float(whole) / 9)


def test_four_points_of_a_square_by_hand():
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    # Each normalised entry is 1/sqrt(2), so each column's norm is sqrt(4 / 2): the sum is the bound, sqrt(2 * 4).
    assert float(matrix_nuclear_norm(square, per_token=False)) == pytest.approx(math.sqrt(8))
    assert mnn_bound(4, 2, per_token=False) == pytest.approx(math.sqrt(8))
    assert mnn_bound(4, 2) == pytest.approx(math.sqrt(2 / 4))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(2, 40), width=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_it_never_passes_its_bound_and_squares_add_up_to_the_tokens(tokens, width, seed):
    matrix = hidden(tokens, width, seed=seed)
    assert float(matrix_nuclear_norm(matrix)) <= mnn_bound(tokens, width) * (1 + 1e-5)
    assert float(column_norms(matrix).square().sum()) == pytest.approx(tokens, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(2, 30), width=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_all_columns_together_are_never_below_the_true_nuclear_norm(tokens, width, seed):
    matrix = hidden(tokens, width, seed=seed)
    true = float(nuclear_norm(matrix))
    assert float(l12_upper_bound(matrix)) >= true * (1 - 1e-5)
    assert float(nuclear_norm(matrix, method="randomized", rank=5)) <= true * (1 + 1e-4)


def test_the_largest_columns_alone_may_fall_below_it():
    # Rows along the axes in turn: every one of the 12 columns counts, and only three may.
    matrix = torch.eye(12)[torch.arange(24) % 12]
    assert float(matrix_nuclear_norm(matrix, top=3, per_token=False)) < float(nuclear_norm(normalize_hidden(matrix)))


def test_a_matrix_of_low_rank_shows_how_loose_the_norm_is():
    random = torch.Generator().manual_seed(0)
    matrix = torch.randn(128, 2, generator=random) @ torch.randn(2, 128, generator=random)
    assert float(matrix_nuclear_norm(matrix)) > 3 * float(nuclear_norm(normalize_hidden(matrix))) / 128


def test_a_rotation_moves_it_but_not_the_true_nuclear_norm():
    lone = torch.zeros(32, 16)
    lone[:, 0] = torch.linspace(-1, 1, 32)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0]
    assert float(matrix_nuclear_norm(lone @ turn)) > 2 * float(matrix_nuclear_norm(lone))
    before, after = (float(nuclear_norm(normalize_hidden(one))) for one in (lone, lone @ turn))
    assert before == pytest.approx(after, rel=1e-4)


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_scale_shift_and_the_order_of_tokens_do_not_matter(factor):
    matrix, order = hidden(30, 20), torch.randperm(30, generator=torch.Generator().manual_seed(0))
    moved = factor * (matrix + torch.arange(20.0))[order]
    assert float(matrix_nuclear_norm(moved)) == pytest.approx(float(matrix_nuclear_norm(matrix)), rel=1e-4)


def test_normalised_rows_have_length_one_and_are_the_authors():
    matrix = hidden()
    torch.testing.assert_close(normalize_hidden(matrix), reference_normalize(matrix))
    torch.testing.assert_close(normalize_hidden(matrix).norm(dim=1), torch.ones(20))


def test_blocks_of_rows_do_not_show(monkeypatch):
    matrix = hidden(50, 12)
    whole = column_norms(matrix)
    for block in (1, 12, 12 * 7, 12 * 49):
        monkeypatch.setattr("workbench.metrics.nuclear_norm.BLOCK", block)
        torch.testing.assert_close(column_norms(matrix), whole)


def test_padding_does_not_count_even_where_it_is_nan():
    texts = [hidden(tokens, 10, seed=tokens) for tokens in (5, 9, 1)]
    batch, mask = torch.full((3, 9, 10), math.nan), torch.zeros(3, 9, dtype=torch.bool)
    for place, text in enumerate(texts):
        batch[place, : len(text)], mask[place, : len(text)] = text, True
    found = matrix_nuclear_norm(batch, mask=mask)
    assert found.shape == (3,)
    assert found[:2].tolist() == pytest.approx([float(matrix_nuclear_norm(text)) for text in texts[:2]])
    assert math.isnan(found[2])
    left = matrix_nuclear_norm(batch.flip(1), mask=mask.flip(1))  # padding on the left: rows are gathered
    torch.testing.assert_close(left, found, equal_nan=True)


def test_a_hole_in_the_mask_is_as_if_the_token_were_not_there():
    matrix, mask = hidden(8, 6), torch.ones(8, dtype=torch.bool)
    mask[3] = False
    assert float(matrix_nuclear_norm(matrix, mask=mask)) == pytest.approx(float(matrix_nuclear_norm(matrix[mask])))


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_one_token_and_equal_tokens_have_no_direction(tokens, size):
    same = (size * torch.randn(24, generator=torch.Generator().manual_seed(0))).expand(tokens, 24)
    assert math.isnan(matrix_nuclear_norm(same))
    assert normalize_hidden(same).isnan().all()
    if tokens <= 2:  # with more, the authors' code normalises what rounding left over
        assert math.isnan(reference_nuclear_norm(same))


def test_no_token_is_nan_too():
    assert math.isnan(matrix_nuclear_norm(torch.empty(0, 4)))
    assert math.isnan(matrix_nuclear_norm(hidden(), mask=torch.zeros(20, dtype=torch.bool)))
    assert matrix_nuclear_norm(torch.empty(0, 5, 4)).shape == (0,)


def test_two_unlike_tokens_are_opposite_directions():
    # Centred they are x and -x: every column's norm is sqrt(2) |x_j| / |x|; with D = 2 the two largest count.
    pair = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert float(matrix_nuclear_norm(pair)) == pytest.approx(math.sqrt(2) * (3 + 4) / 5 / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    small = hidden().to(dtype)
    found = matrix_nuclear_norm(small)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(matrix_nuclear_norm(small.float())))
    assert matrix_nuclear_norm(hidden().double()).dtype == torch.float64


def test_large_numbers_of_half_precision_do_not_overflow():
    assert math.isfinite(matrix_nuclear_norm((20_000 * hidden(offset=0.1).tanh()).half()))


def test_a_huge_dimension_does_not_spoil_the_others():
    matrix = hidden(64, 32).double()
    matrix[:, 5] += 3000
    assert float(matrix_nuclear_norm(matrix.float())) == pytest.approx(float(matrix_nuclear_norm(matrix)), rel=1e-5)


def test_matrices_that_do_not_lie_row_by_row_are_read_all_the_same():
    matrix = hidden(20, 12)
    assert float(matrix_nuclear_norm(matrix.t().contiguous().t())) == pytest.approx(float(matrix_nuclear_norm(matrix)))
    assert float(matrix_nuclear_norm(hidden(20, 24)[:, ::2])) > 0


def test_no_gradient_is_kept():
    assert not matrix_nuclear_norm(hidden().requires_grad_()).requires_grad


def test_the_three_ways_to_the_true_norm_agree():
    for shape in ((20, 12), (12, 20)):
        matrix = hidden(*shape)
        exact = float(torch.linalg.svdvals(matrix.double()).sum())
        for method in ("gram", "svd", "randomized"):
            assert float(nuclear_norm(matrix, method=method)) == pytest.approx(exact, rel=1e-5)
    few = nuclear_norm(hidden(60, 60), method="randomized", rank=10)
    assert float(few) < float(nuclear_norm(hidden(60, 60)))
    assert float(few) == float(nuclear_norm(hidden(60, 60), method="randomized", rank=10))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: matrix_nuclear_norm([[1.0]]), TypeError, "float tensor of torch, got list"),
        (lambda: matrix_nuclear_norm(torch.ones(3, 3, dtype=torch.int64)), TypeError, "int64"),
        (lambda: matrix_nuclear_norm(torch.ones(3)), ValueError, r"\[tokens, width\] or \[batch, time, width\]"),
        (lambda: matrix_nuclear_norm(torch.ones(3, 0)), ValueError, r"\[3, 0\]"),
        (lambda: matrix_nuclear_norm(hidden(), top=0), ValueError, "at least 1"),
        (lambda: matrix_nuclear_norm(hidden(), top=2.0), ValueError, "whole number"),
        (lambda: matrix_nuclear_norm(hidden(5, 12), top=6), ValueError, r"min\(tokens, width\) = 5"),
        (lambda: matrix_nuclear_norm(hidden(), mask=torch.ones(20)), TypeError, r"mask\.bool\(\)"),
        (lambda: matrix_nuclear_norm(hidden(), mask=torch.ones(4, dtype=torch.bool)), ValueError, r"expected \[20\]"),
        (lambda: matrix_nuclear_norm(hidden() * math.nan), ValueError, "NaN or infinity"),
        (lambda: matrix_nuclear_norm(hidden().index_fill(0, torch.tensor(3), math.inf)), ValueError, "NaN or infinity"),
        (lambda: mnn_bound(0, 5), ValueError, "tokens"),
        (lambda: mnn_bound(4, 5, top=5), ValueError, "= 4"),
        (lambda: nuclear_norm(hidden(), method="gramm"), UnknownName, "Did you mean 'gram'"),
        (lambda: nuclear_norm(normalize_hidden(hidden(1))), ValueError, "equal tokens"),
        (lambda: normalize_hidden(torch.ones(2, 3, 4)), ValueError, r"\[tokens, width\]"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()
