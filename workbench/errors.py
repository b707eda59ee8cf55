"""Argument checks whose messages read like the call that failed: expected, got, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class UnknownName(ValueError):
    """A name that is not among those that exist; the command line answers it with exit code 2."""


class AssetError(RuntimeError):
    """An asset cannot be had, in one sentence that says what to do; no half file is left."""


class ClaimNotSupported(AssertionError):
    """A gating claim of a run did not come out as supported."""


def check_choice(argument: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise :class:`UnknownName` with the nearest."""
    known = [str(choice) for choice in choices]
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(repr, known)) or "(none exist yet)"
    raise UnknownName(f"{argument}={value!r} is not one of {listed}.{hint}")


def check_positive(**values: float) -> None:
    """Raise ``ValueError`` unless every named number is finite and above zero."""
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value!r} must be a finite number above 0.")


def check_between(low: float, high: float, *, open_ends: bool = False, **values: float) -> None:
    """Raise ``ValueError`` unless every named number lies in [low, high], or (low, high) if open."""
    for name, value in values.items():
        inside = low < value < high if open_ends else low <= value <= high
        if not inside:
            ends = f"strictly between {low:g} and {high:g}" if open_ends else f"from {low:g} to {high:g}"
            raise ValueError(f"{name}={value!r} must lie {ends}.")


def check_same_shape(**tensors: Tensor) -> None:
    """Raise ``ValueError`` unless all named tensors have one shape ``[..., vocab]``."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"expected one shape, got {listed}. If only the last axis differs, the two "
            "models have different vocabularies: use uld, which compares sorted probabilities."
        )


def check_mask(mask: Tensor | None, shape: Iterable[int], *, argument: str = "mask") -> None:
    """Raise unless ``mask`` is None or a bool tensor of ``shape`` (the logits' without the vocabulary)."""
    if mask is None:
        return
    kind = str(getattr(mask, "dtype", type(mask).__name__))
    if kind != "torch.bool":
        raise TypeError(f"{argument} must be a bool tensor of torch, True where a position counts; got {kind}.")
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(
            f"{argument} has shape {tuple(mask.shape)}, expected {tuple(shape)}: "
            "the logits' shape without the vocabulary axis."
        )
