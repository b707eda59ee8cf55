"""The matrix nuclear norm beside the authors' formula, its bounds and the true nuclear norm, on many matrices."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from workbench.metrics.mnn_reference import reference_nuclear_norm
from workbench.metrics.nuclear_norm import (
    l12_upper_bound,
    matrix_nuclear_norm,
    mnn_bound,
    normalize_hidden,
    nuclear_norm,
)
from workbench.runtime import generator


def compare_formulas(matrices: Mapping[str, Tensor]) -> pd.DataFrame:
    """One row per named matrix ``[tokens, width]`` of hidden states.

    Columns: ``matrix, tokens, width, ours, official, gap`` (relative), ``bound, mnn_over_bound``, ``true_norm`` (a
    token) and ``columns_over_true``: the sum of all column norms over the true nuclear norm.
    """
    return pd.DataFrame([_compare(name, hidden) for name, hidden in matrices.items()])


def made_up_matrices() -> dict[str, Tensor]:
    """Matrices whose bounds are far apart: full and low rank, one huge column, more tokens than width."""
    random = generator(0)
    return {
        "normal numbers": torch.randn(128, 128, generator=random),
        "rank 4": torch.randn(128, 4, generator=random) @ torch.randn(4, 128, generator=random),
        "one huge column": torch.randn(64, 96, generator=random) + 500 * torch.eye(96)[0],
        "more tokens than width": torch.randn(512, 64, generator=random),
    }


def _compare(name: str, hidden: Tensor) -> dict[str, object]:
    (tokens, width), normal = hidden.shape, normalize_hidden(hidden)
    ours, official = float(matrix_nuclear_norm(hidden)), reference_nuclear_norm(hidden)
    true, bound = float(nuclear_norm(normal)), mnn_bound(tokens, width)
    return {
        "matrix": name, "tokens": tokens, "width": width, "ours": ours, "official": official,
        "gap": abs(ours / official - 1), "bound": bound, "mnn_over_bound": ours / bound, "true_norm": true / tokens,
        "columns_over_true": float(l12_upper_bound(normal)) / true,
    }  # fmt: skip
