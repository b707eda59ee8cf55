"""A randomised Hadamard rotation of a layer's inputs: outliers spread over all columns before rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

FACTOR = 32  # a dense factor of the transform: small enough for O(n log n), large enough for a fast matmul
LARGEST_BASE = 1024  # of a Hadamard matrix that is not a power of two; beyond it the dense factor is no longer fast


@dataclass(frozen=True)
class Hadamard:
    """The rotation ``x -> H D x`` of vectors of ``width``: random signs D, then an orthonormal Hadamard matrix H.

    H is the Kronecker product of small matrices, so that it costs ``width * (sum of their orders)`` operations.
    A width ``2**k * m`` gets a true Hadamard matrix, all entries ``+-1/sqrt(width)``, where the smallest order ``4 t``
    with its odd part ``m`` is one of Paley's (a prime ``q``: ``q + 1`` or ``2 (q + 1)``): 576 = 16 x 36,
    1536 = 128 x 12, 960 = 16 x 60. Any other width is rotated in blocks of its largest power of two
    (:attr:`block`; 11008 in blocks of 256); an odd width has blocks of one, which spreads nothing.

    ``apply_to_weight(W) @ apply_to_inputs(x) == W @ x``; nothing but the seed is stored, and the signs of a seed are
    the same on every machine (Ashkboos et al. 2024, QuaRot; Tseng et al. 2024, QuIP#, rotate also the outputs).

    Args:
        width: inputs of the layer.
        seed: of the signs, 0 to 2**63 - 1.

    Raises:
        ValueError: no input, or a negative seed.
    """

    width: int
    seed: int = 0
    kind: ClassVar[str] = "hadamard"
    _factors: tuple[Tensor, ...] = field(init=False, repr=False, compare=False)
    _signs: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise ValueError(f"width={self.width!r} must be a whole number of inputs above 0.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed!r} must be a whole number from 0 to 2**63 - 1.")
        # The raw bits of PCG64 are fixed by NumPy for good; torch promises no such thing, and a saved model must
        # find its signs again.
        bits = np.random.PCG64(self.seed).random_raw(self.width) >> np.uint64(63)
        object.__setattr__(self, "_signs", torch.from_numpy(1.0 - 2.0 * bits.astype(np.float32)))
        object.__setattr__(self, "_factors", tuple(_matrix(order) for order in factors_of(self.width)))

    @property
    def block(self) -> int:
        """Inputs that are mixed with each other: ``width`` for a true Hadamard matrix."""
        return math.prod(factor.shape[0] for factor in self._factors)

    @property
    def nbytes(self) -> int:
        """Bytes stored beyond the description, which holds width and seed."""
        return 0

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the seed stands in the description."""
        return {}

    def description(self) -> dict[str, object]:
        """What makes it again, fit for JSON."""
        return {"kind": self.kind, "width": self.width, "seed": self.seed}

    @classmethod
    def restore(cls, description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Hadamard:
        """The rotation that gave ``description``; it needs no tensors."""
        return cls(int(description["width"]), int(description["seed"]))

    def apply_to_inputs(self, inputs: Tensor) -> Tensor:
        """``H D x`` of inputs ``[..., width]``; half precision is computed in float32 and returned as it came."""
        wide = self._wide(inputs)
        return self._spread(wide * self._signs.to(wide)).to(inputs.dtype)

    def apply_to_weight(self, weight: Tensor) -> Tensor:
        """The weight ``[out, width]`` that meets rotated inputs: every row is rotated as they are."""
        return self.apply_to_inputs(weight)

    def undo_on_weight(self, weight: Tensor) -> Tensor:
        """The weight ``[out, width]`` in the inputs' own basis."""
        wide = self._wide(weight)
        return (self._spread(wide, transposed=True) * self._signs.to(wide)).to(weight.dtype)

    def apply_to_hessian(self, hessian: Tensor) -> Tensor:
        """The Hessian ``[width, width]`` of rotated inputs."""
        return self.apply_to_inputs(self.apply_to_inputs(hessian).t()).t()

    def _wide(self, values: Tensor) -> Tensor:
        if values.shape[-1:] != (self.width,):
            raise ValueError(f"expected the last axis to be {self.width} inputs, got shape {tuple(values.shape)}.")
        if not values.is_floating_point():
            raise TypeError(f"expected a tensor of floating point numbers, got {values.dtype}.")
        return values if values.dtype == torch.float64 else values.float()

    def _spread(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """The Kronecker product of the factors, one axis after the other."""
        shape, after = values.shape, self.block
        values = values.reshape(-1, self.block)
        for factor in self._factors:
            order = factor.shape[0]
            after //= order
            matrix = (factor.T if transposed else factor).to(values)
            # The last factor's axis is the last one: a plain matrix product, not a batch of them.
            last = after == 1
            values = values.reshape(-1, order) @ matrix.T if last else matrix @ values.reshape(-1, order, after)
        return values.reshape(shape)


def hadamard_rotate(weight: Tensor, *, seed: int = 0) -> Tensor:
    """The weight ``[out, in]`` with its inputs rotated by :class:`Hadamard` ``(in, seed)``; row norms stay."""
    if weight.ndim != 2 or not weight.shape[1]:
        raise ValueError(f"expected a weight [out, in] with inputs, got shape {tuple(weight.shape)}.")
    return Hadamard(weight.shape[1], seed).apply_to_weight(weight)


def incoherence(weight: Tensor) -> float:
    """How far the largest entry of ``[out, in]`` stands out: ``max|W| sqrt(out in) / |W|_F``, at least 1; 0 of zeros.

    A small one means that no weight stretches the grid (Chee et al. 2023, QuIP).
    """
    size = weight.float().norm().item()
    return weight.abs().max().item() * math.sqrt(weight.numel()) / size if size else 0.0


def factors_of(width: int) -> list[int]:
    """Orders of the Hadamard matrices whose Kronecker product rotates ``width`` inputs (or a block of them)."""
    twos = (width & -width).bit_length() - 1
    odd = width >> twos
    factors = []
    if odd > 1:
        orders = (odd << power for power in range(2, twos + 1))
        base = next((order for order in orders if order <= LARGEST_BASE and _paley_prime(order)), None)
        if base is not None:
            factors.append(base)
            twos -= (base // odd).bit_length() - 1
    while twos > 0:
        step = min(twos, FACTOR.bit_length() - 1)
        factors.append(2**step)
        twos -= step
    return factors


def _matrix(order: int) -> Tensor:
    """An orthonormal Hadamard matrix ``[order, order]``."""
    signs = _sylvester(order) if order & (order - 1) == 0 else _paley(order)
    return torch.from_numpy(signs).float() / math.sqrt(order)


def _sylvester(order: int) -> np.ndarray:
    signs = np.ones((1, 1))
    while len(signs) < order:
        signs = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), signs)
    return signs


def _paley_prime(order: int) -> int | None:
    """The prime from which Paley's first or second construction makes a Hadamard matrix of this order."""
    if _is_prime(order - 1) and (order - 1) % 4 == 3:
        return order - 1
    if order % 2 == 0 and _is_prime(order // 2 - 1) and (order // 2 - 1) % 4 == 1:
        return order // 2 - 1
    return None


def _paley(order: int) -> np.ndarray:
    """Entries +-1 from the quadratic residues of a prime (Paley 1933)."""
    prime = _paley_prime(order)
    residues = {value * value % prime for value in range(1, prime)}
    character = np.array([0.0] + [1.0 if value in residues else -1.0 for value in range(1, prime)])
    places = np.arange(prime)
    core = np.zeros((prime + 1, prime + 1))
    core[1:, 1:] = character[(places[:, None] - places[None, :]) % prime]
    core[0, 1:] = 1.0
    if prime % 4 == 3:  # the character is odd, the bordered matrix skew: adding the identity makes it Hadamard
        core[1:, 0] = -1.0
        return core + np.eye(order)
    core[1:, 0] = 1.0  # the character is even, the bordered matrix symmetric
    on, off = np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[1.0, -1.0], [-1.0, -1.0]])
    return np.kron(core, on) + np.kron(np.eye(prime + 1), off)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
