"""Every loss with options, and logits to try them on."""

from __future__ import annotations

import pytest
import torch

EVERY = {
    "forward_kl": {},
    "reverse_kl": {},
    "jeffreys": {},
    "symmetric_kl": {"weight": 0.3},
    "generalized_jsd": {"beta": 0.3},
    "skew_kl": {"alpha": 0.1},
    "adaptive_kl": {"mu": 0.5},
    "total_variation": {},
    "logit_mse": {},
    "dist": {"beta": 1.0, "gamma": 0.5},
    "taid": {"t": 0.4},
}
VARIANTS = [
    *EVERY.items(),
    ("skew_kl", {"alpha": 0.2, "direction": "reverse"}),
    ("generalized_jsd", {"beta": 0.5}),
    ("skew_kl", {"alpha": 0.0}),
    ("taid", {"t": 1.0}),
    ("adaptive_kl", {"mu": 0.0}),
    ("adaptive_kl", {"mu": 1.0}),
]


def every_loss_but(*names: str) -> pytest.MarkDecorator:
    """As :data:`every_loss`, without those for which the belief does not hold."""
    kept = [one for one in VARIANTS if one[0] not in names]
    return pytest.mark.parametrize(("name", "options"), kept, ids=lambda value: str(value).strip("{}"))


every_loss = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: str(value).strip("{}"))


def logits(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
