"""What a weight is rounded to: bits, groups, zero points or a codebook."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import check_choice

MOST_BITS = 8
CODEBOOK_BITS = 4
DEFAULT_GROUPS = (128, 64, 32)


@dataclass(frozen=True)
class QuantSpec:
    """The grid of a quantised weight ``[out, in]``; equal specs give equal grids.

    With an integer zero a group's range always includes 0, ``scale = (max - min) / (2**bits - 1)``,
    ``zero = round(-min / scale)`` and ``code = clamp(round(weight / scale) + zero)``; the value is
    ``scale * (code - zero)``. A symmetric grid has ``scale = 2 max|weight| / (2**bits - 1)`` and the zero
    ``2**(bits - 1)``. With a float zero the range is that of the group as it is, and the zero any real number.
    Rounding is half to even. A group of zeros alone takes the range [-1, 1] (Frantar et al. 2023, the code of GPTQ).

    Args:
        bits: of a code, 1 to 8.
        group_size: inputs that share a scale; None or -1 one scale per output row, ``"tensor"`` one for all.
        symmetric: zero in the middle of the codes, nothing stored for it.
        zero: ``integer`` (stored in ``bits`` bits) or ``float`` (stored in ``scale_dtype``).
        codebook: ``nf4`` or ``fp4`` (Dettmers et al. 2023): 16 levels times the group's largest magnitude.
        clip: ``minmax``, or ``mse``: the range that makes the sum of ``|error|**2.4`` least.
        scale_dtype: in which scales and float zeros are stored; codes are chosen for the scale as stored.
        double_quant: scales of a codebook in 8 bits, by blocks of 256 (Dettmers et al. 2023, QLoRA).

    Raises:
        ValueError, UnknownName, TypeError: fields that do not go together, with what would.
    """

    bits: int
    group_size: int | str | None = None
    symmetric: bool = False
    zero: str = "integer"
    codebook: str | None = None
    clip: str = "minmax"
    scale_dtype: str = "float32"
    double_quant: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= MOST_BITS:
            raise ValueError(f"bits={self.bits!r} must be a whole number from 1 to {MOST_BITS}.")
        if self.group_size == -1:
            object.__setattr__(self, "group_size", None)  # one meaning, one spelling: equal specs compare equal
        size = self.group_size
        if isinstance(size, str):
            check_choice("group_size", size, ["tensor"])
        elif size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"group_size={size!r} must be a number of inputs, None (a whole row) or 'tensor'.")
        check_choice("zero", self.zero, ["integer", "float"])
        check_choice("clip", self.clip, ["minmax", "mse"])
        check_choice("scale_dtype", self.scale_dtype, ["float32", "float16", "bfloat16"])
        if self.symmetric and self.zero == "float":
            raise ValueError("symmetric=True fixes the zero in the middle of the codes: drop zero='float'.")
        if self.codebook is None:
            if self.double_quant:
                raise ValueError("double_quant=True compresses the scales of a codebook: set codebook='nf4' or 'fp4'.")
            return
        check_choice("codebook", self.codebook, ["nf4", "fp4"])
        if self.bits != CODEBOOK_BITS:
            raise ValueError(f"codebook={self.codebook!r} has 16 levels: set bits=4 in the place of {self.bits}.")
        if self.symmetric or self.zero == "float" or self.clip == "mse":
            raise ValueError(f"codebook={self.codebook!r} has its own levels: drop symmetric, zero and clip.")

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return 2**self.bits

    @property
    def middle(self) -> int:
        """The code of a symmetric grid that stands for 0.0."""
        return 2 ** (self.bits - 1)

    @property
    def stores_zero(self) -> bool:
        """Whether zeros are stored beside the scales."""
        return not self.symmetric and self.codebook is None

    def group_length(self, columns: int, layer: str = "") -> int:
        """Inputs of a row that share a scale, in a weight of ``columns`` inputs.

        Raises:
            ValueError: the group does not divide the inputs; names the layer and groups that do.
        """
        if self.group_size is None or self.group_size == "tensor":
            return columns
        if columns % self.group_size:
            near = [size for size in range(2, columns + 1) if columns % size == 0 and size <= 4 * self.group_size]
            fitting = ", ".join(map(str, near[-5:])) or "none near it"
            raise ValueError(
                f"{_of(layer)}{columns} inputs cannot be divided into groups of {self.group_size}: "
                f"take a group_size that divides them ({fitting}), or None for one scale per row."
            )
        return self.group_size

    def groups(self, columns: int, layer: str = "") -> int:
        """Groups of a row of ``columns`` inputs; raises as :meth:`group_length`."""
        return columns // self.group_length(columns, layer) if columns else 0

    @property
    def label(self) -> str:
        """In words, short enough for a legend: ``4 bits, groups of 64, asymmetric``."""
        if self.group_size is None:
            shared = "per row"
        else:
            shared = "per tensor" if self.group_size == "tensor" else f"groups of {self.group_size}"
        if self.codebook is not None:
            return f"{self.codebook.upper()}, {shared}" + (", double quantised" if self.double_quant else "")
        kind = "symmetric" if self.symmetric else {"integer": "asymmetric", "float": "float zero"}[self.zero]
        return f"{self.bits} bits, {shared}, {kind}" + (", MSE clip" if self.clip == "mse" else "")


def default_group_size(width: int) -> int | None:
    """The largest of 128, 64 and 32 inputs that divides ``width``, else None (one scale per row).

    SmolLM2-135M, 576 wide, gets 64: 128 does not divide it, and 32 is the grid its packaged weights lie on already.
    """
    return next((size for size in DEFAULT_GROUPS if width % size == 0), None)


def _of(layer: str) -> str:
    return f"{layer}: " if layer else ""
