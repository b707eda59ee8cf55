"""The two metrics as the authors' scripts compute them, eagerly: what ours must equal and is timed beside.

MLGroupJLU/MatrixNuclearNorm at commit e7a9188, ``MNN.py`` and ``compute_entropy_time.py``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def reference_normalize(hidden: Tensor) -> Tensor:
    """Centre over tokens, then divide each row of ``[tokens, width]`` by its norm; 0 / 0 is NaN."""
    centred = hidden - hidden.mean(dim=0)
    return centred / torch.norm(centred, p=2, dim=1, keepdim=True)


@torch.no_grad()
def reference_nuclear_norm(hidden: Tensor) -> float:
    """Their matrix nuclear norm of ``[tokens, width]``, divided by the number of tokens."""
    normal = reference_normalize(hidden)
    norms = torch.sqrt(torch.sum(torch.pow(normal, 2), dim=0))
    ordered, _ = torch.sort(norms, descending=True)
    return torch.sum(ordered[: min(hidden.shape)]).item() / len(hidden)


@torch.no_grad()
def reference_matrix_entropy(hidden: Tensor) -> float:
    """Their matrix entropy of ``[tokens, width]``: singular values of the ``width x width`` covariance, over ln width.

    Raises:
        torch.linalg.LinAlgError: one token, whose normalised row is NaN.
    """
    rows = F.normalize(reference_normalize(hidden), dim=1)
    covariance = torch.matmul(rows.T, rows) / len(rows)
    shares = torch.svd(covariance / torch.trace(covariance))[1]
    return -(shares * torch.log(shares)).nansum().item() / math.log(hidden.shape[1])
