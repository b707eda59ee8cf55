"""The matrix nuclear norm of a text's hidden states, at the speed of memory; bounds, and the true nuclear norm.

Li, Xia, Chang & Wu 2024, "Large Language Model Evaluation via Matrix Nuclear-Norm" (arXiv 2410.10672). What they call
so is the sum of the largest column norms of the normalised hidden states, not the sum of singular values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.errors import check_choice, check_positive
from workbench.metrics.hidden_matrix import check_hidden, normalize_hidden, of_each_text, token_mean, wide_dtype
from workbench.metrics.matrix_entropy import diff_erank, effective_rank, matrix_entropy
from workbench.runtime import seeded

__all__ = [
    "column_norms", "diff_erank", "effective_rank", "l12_upper_bound", "matrix_entropy", "matrix_nuclear_norm",
    "mnn_bound", "normalize_hidden", "nuclear_norm",
]  # fmt: skip

BLOCK = 2**19  # numbers of a block of rows: two megabytes, which stay near the core between two uses
SQUARED_DIFFERENCE = torch.ops.aten.mse_loss.out
NO_REDUCTION = 0  # as the operator counts them: none, mean, sum
METHODS = ("gram", "svd", "randomized")


def matrix_nuclear_norm(
    hidden: Tensor, *, top: int | None = None, per_token: bool = True, mask: Tensor | None = None
) -> Tensor:
    """Sum of the ``top`` largest column norms of the normalised hidden states; low where a text is compressed well.

    The authors' number to rounding, without their copies of the matrix. Padding counts neither in the mean nor in the
    sums. NaN, which averages leave out, where a token has no direction once the mean is gone: no token, one token,
    equal tokens.

    Args:
        hidden: a text ``[tokens, width]`` or texts ``[batch, time, width]``, as the last layer gives them; not
            normalised yet. Half precision is computed in float32; no gradient flows.
        top: how many columns; ``None`` takes min(tokens, width) of each text.
        per_token: divide by the tokens that count, as the authors report it; their README's snippet does not.
        mask: bool ``[tokens]`` or ``[batch, time]``, True where a token counts.

    Returns:
        A scalar, or ``[batch]``.

    Raises:
        TypeError, ValueError: wrong shapes or dtypes, NaN or infinity, or ``top`` outside 1 to min(tokens, width).
    """
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 1):
        raise ValueError(f"top={top!r} must be a whole number of columns, at least 1; None takes min(tokens, width).")

    def measure(text: Tensor) -> Tensor:
        most = min(text.shape)
        if top is not None and top > most:
            tokens, width = text.shape
            raise ValueError(
                f"top={top} is more than min(tokens, width) = {most} of a text of {tokens} tokens and width {width}: "
                "lower it, or leave it None."
            )
        total = sum_of_largest(column_norms(text), most if top is None else top)
        return total / len(text) if per_token and len(text) else total

    return of_each_text(measure, hidden, mask)


def column_norms(hidden: Tensor) -> Tensor:
    """L2 norms ``[width]`` of the columns of the normalised ``hidden [tokens, width]``, float32 or wider.

    Two readings of the matrix: the mean must be known before any row's length is. All NaN where a token has no
    direction.

    Raises:
        TypeError, ValueError: no float matrix, or NaN or infinity in it.
    """
    check_hidden(hidden)
    with torch.no_grad():
        hidden = hidden.detach().to(wide_dtype(hidden)).contiguous()
        tokens, width = hidden.shape
        if not tokens:
            return hidden.new_full((width,), math.nan)
        mean, nothing = token_mean(hidden)
        rows = min(tokens, max(1, BLOCK // width))
        squares, room, lengths = hidden.new_zeros(width), hidden.new_empty(rows, width), hidden.new_empty(tokens)
        for start in range(0, tokens, rows):
            block, of_block = hidden[start : start + rows], lengths[start : start + rows]
            parts = room[: len(block)]
            # Subtracts and squares in one pass, into the same memory each time: fresh pages would cost as much again.
            SQUARED_DIFFERENCE(block, mean, NO_REDUCTION, out=parts)
            torch.sum(parts, 1, out=of_block)
            squares.addmv_(parts.t(), of_block.reciprocal())
        return squares.sqrt_() if float(lengths.min()) > nothing else squares.fill_(math.nan)


def sum_of_largest(norms: Tensor, count: int) -> Tensor:
    """Sum of the ``count`` largest entries of ``norms [width]``; NaN where there is none."""
    if count == 0:
        return norms.new_tensor(math.nan)
    return norms.sum() if count == len(norms) else norms.topk(count).values.sum()


def mnn_bound(tokens: int, width: int, *, top: int | None = None, per_token: bool = True) -> float:
    """The most that :func:`matrix_nuclear_norm` can be: sqrt(top tokens), per token sqrt(top / tokens).

    Squared column norms add up to the number of rows; equal columns reach it. With more tokens than width the norm
    lies close to it whatever the model says: compare texts of equal length that are no longer than the width.

    Raises:
        ValueError: numbers below 1, or ``top`` above min(tokens, width).
    """
    most = min(tokens, width)
    top = most if top is None else top
    check_positive(tokens=tokens, width=width, top=top)
    if top > most:
        raise ValueError(f"top={top} is more than min(tokens, width) = {most}.")
    return math.sqrt(top * tokens) / (tokens if per_token else 1)


def l12_upper_bound(matrix: Tensor) -> Tensor:
    """Sum of the norms of all columns of ``matrix [rows, columns]`` as it is: never below its nuclear norm.

    A matrix is the sum of its columns, each of rank one, so the triangle inequality holds; the sum of only the
    largest columns may fall below.

    Raises:
        TypeError, ValueError: no float matrix.
    """
    check_hidden(matrix, argument="matrix")
    with torch.no_grad():
        return torch.linalg.vector_norm(matrix.detach().to(wide_dtype(matrix)), dim=0).sum()


def nuclear_norm(matrix: Tensor, *, method: str = "gram", rank: int = 64, seed: int = 0) -> Tensor:
    """Sum of the singular values of ``matrix [rows, columns]`` as it is (see :func:`normalize_hidden`).

    Args:
        method: ``gram`` takes the eigenvalues of the smaller Gram matrix in float64, ``svd`` the singular values
            themselves, ``randomized`` the ``rank`` largest by random projections: a lower bound.
        rank: of ``randomized``; more than the matrix has takes all.
        seed: of the projections.

    Raises:
        TypeError, ValueError: no float matrix, an empty one, or NaN or infinity in it.
        UnknownName: another method ("did you mean").
    """
    check_choice("method", method, METHODS)
    check_hidden(matrix, argument="matrix")
    check_positive(rank=rank)
    if not len(matrix) or not bool(torch.isfinite(matrix).all()):
        raise ValueError(
            f"matrix {list(matrix.shape)} is empty or holds NaN or infinity (as normalised equal tokens do): "
            "it has no singular values."
        )
    with torch.no_grad():
        wide = matrix.detach().to(wide_dtype(matrix))
        if method == "svd":
            return torch.linalg.svdvals(wide).sum()
        if method == "randomized":
            with seeded(seed):
                return torch.svd_lowrank(wide, q=min(rank, *wide.shape), niter=4)[1].sum()
        double = wide.double()  # the root of an eigenvalue has half of its digits
        gram = double @ double.mT if len(wide) <= wide.shape[1] else double.mT @ double
        return torch.linalg.eigvalsh(gram).clamp_(min=0).sqrt_().sum().to(wide.dtype)
