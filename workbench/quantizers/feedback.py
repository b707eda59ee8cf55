"""How the rounding error of one input is made up for by the inputs that are still to be rounded."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import check_choice
from workbench.quantizers.hessian import check_hessian

FIRST_RETRY = 0.01  # damping that follows 0
MOST_DAMPING = 10.0  # with it every matrix that is nearly positive semi-definite has a factor
SMALL_INVERSE = 96  # below it the triangular solve of the library is faster than halving


class Factor(NamedTuple):
    """``root @ root.T`` is the damped Hessian, in the order in which inputs are rounded."""

    root: Tensor  # [width, width], upper triangular
    order: Tensor | None  # [width], the input that is rounded j-th; None: as they come
    dead: Tensor  # bool [width], inputs that were always 0, as they come


def factorise(
    hessian: Tensor, width: int, *, damping: float, act_order: bool = False, count_dead: bool = True, layer: str = ""
) -> Factor:
    """Damp ``hessian [width, width]`` and factorise it, last input first.

    ``damping`` times the mean of the diagonal is added to it. GPTQ's code inverts the Hessian and factorises the
    inverse again; its upper factor ``U`` is the inverse of ``root`` here, so one factorisation serves.

    Args:
        act_order: round inputs by falling diagonal, the ones that matter most first.
        count_dead: whether the ones in the place of dead inputs count in the mean (they do in GPTQ's code, in
            SpQR's they do not).

    Raises:
        TypeError, ValueError: as :func:`~workbench.quantizers.hessian.check_hessian`; a negative damping; a matrix
            that has no factor even when damped as much as its own diagonal ten times.

    Warns:
        RuntimeWarning: the Hessian had no factor and damping was raised tenfold, once or more.
    """
    if isinstance(damping, bool) or not isinstance(damping, int | float) or not 0 <= damping < float("inf"):
        raise ValueError(
            f"{layer or 'gptq'}: damping={damping!r} must be a number from 0 up, in parts of the diagonal."
        )
    hessian = check_hessian(hessian, width, layer)
    diagonal = hessian.diagonal().clone()
    dead = diagonal == 0
    mean = diagonal.mean()
    diagonal[dead] = 1
    if count_dead:
        mean = diagonal.mean()
    order = None
    if act_order:
        order = torch.argsort(diagonal, descending=True, stable=True)
        backwards = order.flip(0)
        reverse = hessian.index_select(0, backwards).index_select(1, backwards)
        diagonal = diagonal[backwards]
    else:
        reverse, diagonal = hessian.flip(0, 1), diagonal.flip(0)
    # The Cholesky factor of the reversed matrix, reversed back, is the upper factor.
    lower = _cholesky(reverse, diagonal, float(mean), float(damping), layer)
    return Factor(lower.flip(0, 1), order, dead)


def _cholesky(matrix: Tensor, diagonal: Tensor, mean: float, damping: float, layer: str) -> Tensor:
    """Lower factor of ``matrix`` with its diagonal replaced by the damped one; overwrites ``matrix``."""
    tried = damping
    while True:
        matrix.diagonal().copy_(diagonal + tried * mean)
        lower, failed = torch.linalg.cholesky_ex(matrix)
        # A pivot may vanish without being negative: its inverse would drown everything.
        if not int(failed) and bool(torch.isfinite(lower.diagonal().reciprocal()).all()):
            break
        if tried >= MOST_DAMPING:
            raise ValueError(
                f"{layer or 'gptq'}: the Hessian is not positive definite even with damping={tried:g}, so it is no "
                "mean of x x^T: accumulate it with HessianAccumulator (dtype=torch.float64 if inputs differ widely "
                "in size), or use a method without data (rtn, hqq)."
            )
        tried = 10 * tried if tried else FIRST_RETRY
    if tried != damping:
        warnings.warn(
            f"{layer or 'gptq'}: the Hessian is not positive definite with damping={damping:g}; went on with "
            f"damping={tried:g}. More calibration tokens than inputs would avoid it.",
            RuntimeWarning,
            stacklevel=4,
        )
    return lower


def feedback(factor: Factor, errors: str) -> Tensor:
    """Float32 ``[width, width]``, strictly lower: row j holds the weight of each former input's error in target j.

    Args:
        errors: ``original``: an error is the *original* weight minus its rounded value; the target is then the sum
            of the original weight and all former errors (the form of LDLQ; Chee et al. 2023, QuIP, show that it
            rounds as GPTQ does). ``updated``: it is the *updated* weight minus its rounded value, and partial sums
            are what the weights still to come are best changed to, which dynamic groups are fitted on.
    """
    check_choice("errors", errors, ["original", "updated"])
    root = factor.root
    if errors == "original":
        unit = root / root.diagonal()
    else:
        inverse = invert_upper(root)
        unit = inverse.div_(-inverse.diagonal()[:, None])
    return unit.t().float().contiguous().tril_(-1)


def invert_upper(matrix: Tensor) -> Tensor:
    """The inverse of an upper triangular ``matrix [width, width]``, by halves: a third of the work of a solve."""
    width = len(matrix)
    if width <= SMALL_INVERSE:
        return torch.linalg.solve_triangular(matrix, torch.eye(width).to(matrix), upper=True)
    half = width // 2
    inverse = torch.zeros_like(matrix)
    first = inverse[:half, :half].copy_(invert_upper(matrix[:half, :half]))
    last = inverse[half:, half:].copy_(invert_upper(matrix[half:, half:]))
    inverse[:half, half:] = (first @ matrix[:half, half:] @ last).neg_()
    return inverse
