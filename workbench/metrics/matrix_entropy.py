"""Matrix entropy and effective rank of a text's hidden states, from the smaller of its two Gram matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.errors import check_choice
from workbench.metrics.hidden_matrix import normalize_hidden, of_each_text

BASES = ("width", "rank")


def matrix_entropy(hidden: Tensor, *, base: str = "width", mask: Tensor | None = None) -> Tensor:
    """Entropy of the eigenvalues of the normalised hidden states' covariance, in parts of its most.

    The authors take a singular value decomposition of the ``width x width`` covariance; its non-zero eigenvalues are
    those of the smaller Gram matrix, so the number is the same at a fraction of the time. NaN as for
    :func:`workbench.metrics.nuclear_norm.matrix_nuclear_norm`.

    Args:
        hidden: a text ``[tokens, width]`` or texts ``[batch, time, width]``; not normalised yet.
        base: ``width`` divides by ln(width), as the authors do; ``rank`` by ln(min(tokens, width)), what it can reach.
        mask: bool ``[tokens]`` or ``[batch, time]``, True where a token counts.

    Returns:
        A scalar, or ``[batch]``; a width (or rank) of 1 has no entropy: NaN.

    Raises:
        TypeError, ValueError: wrong shapes or dtypes, or NaN or infinity.
        UnknownName: another base ("did you mean").
    """
    check_choice("base", base, BASES)

    def measure(text: Tensor) -> Tensor:
        most = text.shape[1] if base == "width" else min(text.shape)
        return spectrum_entropy(covariance_spectrum(text)) / (math.log(most) if most > 1 else math.nan)

    return of_each_text(measure, hidden, mask)


def effective_rank(hidden: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """exp of the entropy in nats: how many directions the normalised hidden states use, 1 to min(tokens, width).

    Arguments, returns and errors as :func:`matrix_entropy`. Wei et al. 2024, "Diff-eRank".
    """
    return of_each_text(lambda text: spectrum_entropy(covariance_spectrum(text)).exp(), hidden, mask)


def diff_erank(untrained: Tensor, trained: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Effective rank of the untrained model's hidden states less that of the trained one's, of the same text.

    Raises:
        ValueError: different shapes, or what :func:`effective_rank` refuses.
    """
    if untrained.shape != trained.shape:
        raise ValueError(
            f"untrained {list(untrained.shape)} and trained {list(trained.shape)} must be one text read by two models "
            "of one width: expected equal shapes."
        )
    return effective_rank(untrained, mask=mask) - effective_rank(trained, mask=mask)


def covariance_spectrum(hidden: Tensor) -> Tensor:
    """Eigenvalues ``[min(tokens, width)]`` of the normalised hidden states' covariance; they add up to 1.

    All NaN where a token has no direction.
    """
    normal = normalize_hidden(hidden)
    tokens, width = normal.shape
    if not tokens or not bool(torch.isfinite(normal).all()):
        return normal.new_full((max(1, min(tokens, width)),), math.nan)
    gram = (normal @ normal.mT if tokens <= width else normal.mT @ normal) / tokens
    # Rounding pushes an eigenvalue of 0 to either side of it.
    return torch.linalg.eigvalsh(gram / gram.trace()).clamp_(min=0)


def spectrum_entropy(spectrum: Tensor) -> Tensor:
    """-sum s ln s in nats of shares ``[n]``; a share of 0 adds nothing, NaN stays NaN."""
    return -torch.special.xlogy(spectrum, spectrum).sum()
