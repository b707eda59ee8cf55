"""Whether a classifier's confidence means what it says: calibration error, proper scores, reliability curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.errors import check_choice

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NORMS = ("l1", "l2", "max")


def expected_calibration_error(
    probs: ArrayLike, labels: ArrayLike, *, n_bins: int = 15, norm: str = "l1", adaptive: bool = False
) -> float:
    """Distance of confidence from accuracy over bins of top-label confidence (Naeini et al. 2015; Guo et al. 2017).

    Args:
        probs: ``[samples, classes]`` probabilities, arrays or tensors.
        labels: ``[samples]`` class indices.
        n_bins: equally wide bins ``(low, high]``; with ``adaptive`` bins of (nearly) equally many samples.
        norm: ``l1`` mean over samples of a bin's gap (ECE), ``l2`` root of the mean squared gap, ``max`` the
            largest gap of a bin that is not empty (maximum calibration error).

    Raises:
        ValueError: shapes, rows that do not sum to 1, labels out of range, no samples, unknown norm.
    """
    check_choice("norm", norm, NORMS)
    return error_of_curve(reliability_curve(probs, labels, n_bins=n_bins, adaptive=adaptive), norm=norm)


def error_of_curve(curve: pd.DataFrame, *, norm: str = "l1") -> float:
    """The calibration error of bins as :func:`reliability_curve` gives them; empty ones count nothing."""
    check_choice("norm", norm, NORMS)
    counts = curve["count"].to_numpy()
    gaps = np.abs(curve["accuracy"].to_numpy() - curve["confidence"].to_numpy())[counts > 0]
    shares = counts[counts > 0] / counts.sum()
    if norm == "max":
        return float(gaps.max())
    return float((shares * gaps).sum() if norm == "l1" else np.sqrt((shares * gaps**2).sum()))


def reliability_curve(probs: ArrayLike, labels: ArrayLike, *, n_bins: int = 15, adaptive: bool = False) -> pd.DataFrame:
    """Confidence and accuracy per bin of top-label confidence, one row a bin, empty bins included.

    A confidence exactly on an edge belongs to the bin below it, as in Guo et al.'s ``(low, high]``; the first bin
    holds 0 as well. Adaptive bins follow the sorted confidences and share equal ones by their order; their edges
    are the outermost confidences they hold. Fewer samples than adaptive bins leave the rest empty. Where several
    classes are equally likely, the first one counts as predicted.

    Returns:
        The columns ``low``, ``high`` (edges), ``confidence``, ``accuracy`` (means, NaN where empty), ``count``.

    Raises:
        ValueError: as :func:`expected_calibration_error`.
    """
    probs, labels = _checked(probs, labels)
    if not (isinstance(n_bins, int | np.integer) and n_bins > 0):
        raise ValueError(f"n_bins={n_bins!r} must be a whole number above 0.")
    confidence = probs.max(axis=1)
    right = (probs.argmax(axis=1) == labels).astype(float)
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order)) * n_bins // len(order)
    else:
        # Against the edges themselves, not by multiplying: 0.3 * 10 rounds to the wrong side.
        edges = np.linspace(0, 1, n_bins + 1)
        places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    count = np.bincount(places, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        means = {
            name: np.bincount(places, weights=values, minlength=n_bins) / count
            for name, values in (("confidence", confidence), ("accuracy", right))
        }
    if adaptive:
        low, high = np.full(n_bins, np.nan), np.full(n_bins, np.nan)
        np.fmin.at(low, places, confidence)
        np.fmax.at(high, places, confidence)
    else:
        low, high = edges[:-1], edges[1:]
    return pd.DataFrame({"low": low, "high": high, **means, "count": count})


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of ``[samples, classes]`` probabilities from the one-hot label, 0 to 2 (Brier 1950).

    Raises:
        ValueError: as :func:`expected_calibration_error`.
    """
    probs, labels = _checked(probs, labels)
    at_label = probs[np.arange(len(labels)), labels]
    return float(((probs**2).sum(axis=1) - 2 * at_label + 1).mean())


def negative_log_likelihood(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean ``-log`` of the label's probability in nats; infinite where a label was held impossible.

    Raises:
        ValueError: as :func:`expected_calibration_error`.
    """
    probs, labels = _checked(probs, labels)
    with np.errstate(divide="ignore"):
        return float(0.0 - np.log(probs[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature by which ``[samples, classes]`` logits are divided for the least NLL (Guo et al. 2017).

    Sought between 0.01 and 100, to 1e-6 of its logarithm; fit it on samples that were not trained on.

    Raises:
        ValueError: shapes, labels out of range, no samples, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = _arrays(logits, labels, "logits")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite to be divided by a temperature.")
    shifted = logits - logits.max(axis=1, keepdims=True)
    at_label = shifted[np.arange(len(labels)), labels].mean()

    def nll(inverse: float) -> float:
        return float(np.log(np.exp(shifted * inverse).sum(axis=1)).mean() - at_label * inverse)

    # Convex in 1 / T, so that there is one minimum, which may lie at an end where every label is right.
    ends = np.log(0.01), np.log(100.0)
    found = minimize_scalar(lambda log: nll(np.exp(log)), bounds=ends, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(-found.x))


def softmax(logits: ArrayLike, *, temperature: float = 1.0) -> np.ndarray:
    """Probabilities ``[..., classes]`` of logits divided by ``temperature``, in float64."""
    scaled = _numpy(logits).astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def entropy(probs: ArrayLike) -> np.ndarray:
    """Entropy in nats of probabilities ``[..., classes]``; a class of probability 0 counts nothing."""
    from scipy.special import entr

    return entr(_numpy(probs).astype(np.float64)).sum(axis=-1)


def _checked(probs: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probs, labels = _arrays(probs, labels, "probs")
    # Tolerant of float16 sums, not of logits handed over in their place.
    if not (np.isfinite(probs).all() and probs.min() >= 0 and np.abs(probs.sum(axis=1) - 1).max() < 0.01):
        raise ValueError("probs must be probabilities: at least 0, each row summing to 1; take a softmax of logits.")
    return probs, labels


def _arrays(values: ArrayLike, labels: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    values, labels = _numpy(values).astype(np.float64), _numpy(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(
            f"expected {name} [samples, classes] and labels [samples], got {values.shape} and {labels.shape}."
        )
    if len(labels) == 0:
        raise ValueError(f"{name} holds no samples: there is nothing to measure.")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers, the index of each sample's class; got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"labels must lie from 0 to {values.shape[1] - 1}, got {labels.min()} to {labels.max()}.")
    return values, labels


def _numpy(values: ArrayLike) -> np.ndarray:
    """An array of anything, also of a tensor that has a gradient, lies on a GPU or is bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    return np.asarray(values)
