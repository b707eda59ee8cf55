"""What two next-token distributions say of each other, in numpy, for drawing rather than for gradients."""

from __future__ import annotations

import numpy as np

from workbench.errors import check_positive


def softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Probabilities ``[..., vocab]`` of logits ``[..., vocab]`` softened by ``temperature``.

    Raises:
        ValueError: a temperature that is not above zero.
    """
    return np.exp(log_softmax(logits, temperature=temperature))


def log_softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities ``[..., vocab]`` in float64; see :func:`softmax`."""
    check_positive(temperature=temperature)
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = scaled - scaled.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats, ``[..., vocab] -> [...]``; an impossible token counts nothing."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)


def kl_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL(first || second) in nats of probabilities ``[..., vocab]``; infinite where second rules out what first allows.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    p, q = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"first has {p.shape[-1]} tokens and second {q.shape[-1]}: KL needs one vocabulary; "
            "use sorted_distance, which compares the sorted probabilities."
        )
    with np.errstate(divide="ignore"):
        gap = np.where(p > 0, np.log(np.where(p > 0, p, 1.0)) - np.log(q), 0.0)
    return (p * gap).sum(-1)


def sorted_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """L1 distance of the probabilities sorted by size, the shorter padded with zeros, from 0 to 2.

    It asks how alike two distributions are *shaped*, whatever their tokens are called: the Wasserstein
    form of Universal Logit Distillation (Boizard et al. 2024).
    """
    p, q = (np.sort(np.asarray(side, dtype=np.float64), -1)[..., ::-1] for side in (first, second))
    width = max(p.shape[-1], q.shape[-1])
    p, q = (np.pad(side, [(0, 0)] * (side.ndim - 1) + [(0, width - side.shape[-1])]) for side in (p, q))
    return np.abs(p - q).sum(-1)
