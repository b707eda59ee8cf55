"""Ways to quantise a language model by name and bits, each with the grid that it is defined with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import check_choice
from workbench.metrics.quantization import NOT_QUANTISED

if TYPE_CHECKING:
    from workbench.quantizers.recipes import Recipe

WIDE_SCALES = ("llm_int8",)  # it is defined so
__all__ = ["NOT_QUANTISED", "WAYS", "Variant", "Way", "variants"]
FEW = 2.0  # threshold of SpQR's outliers, ten times the usual
EMBEDDING_BITS = 8  # of token embedding and output layer in every variant, so that a model's bytes are all quantised
SCALES = "float16"  # in which scales are stored, as in the files that people exchange


@dataclass(frozen=True)
class Way:
    """A method with its grid; ``bits`` are the widths at which it is defined."""

    label: str
    method: str  # of workbench.quantizers.recipes.METHODS
    bits: tuple[int, ...] = (8, 4, 3, 2)
    group_size: int | str | None = "default"
    options: dict[str, Any] = field(default_factory=dict)  # further keywords of Recipe.of


WAYS = {
    "rtn": Way("RTN", "rtn"),
    "gptq": Way("GPTQ", "gptq"),
    "awq": Way("AWQ", "awq", (4, 3, 2)),
    "hqq": Way("HQQ", "hqq", (4, 3, 2)),
    "spqr": Way("SpQR", "spqr", (4, 3, 2)),
    # Outliers cost 32 bits each: at two bits the usual threshold keeps so many that little is saved.
    "spqr_few": Way("SpQR, few outliers", "spqr", (4, 3, 2), "default", {"options": {"outlier_threshold": FEW}}),
    "nf4": Way("NF4", "rtn", (4,), "default", {"codebook": "nf4"}),
    "llm_int8": Way("LLM.int8()", "llm_int8", (8,)),
    "smoothquant": Way("SmoothQuant", "smoothquant", (8,)),
    # A collapse must be possible: one grid for a whole row is what makes it.
    "rtn_row": Way("RTN, rows", "rtn", (4, 3, 2), None),
    "gptq_row": Way("GPTQ, rows", "gptq", (4, 3, 2), None),
    # As many bits as SpQR's outliers cost can go into finer groups instead.
    "gptq_16": Way("GPTQ, groups of 16", "gptq", (4, 3, 2), 16),
    "gptq_act": Way("GPTQ, act-order", "gptq", (4, 3, 2), "default", {"options": {"act_order": True}}),
    "rtn_rotated": Way("RTN, rotated", "rtn", (4, 3, 2), "default", {"rotate": True}),
    "gptq_rotated": Way("GPTQ, rotated", "gptq", (4, 3, 2), "default", {"rotate": True}),
}


@dataclass(frozen=True)
class Variant:
    """One way at one number of bits.

    Raises:
        UnknownName: no such way ("did you mean").
        ValueError: bits that it is not defined at.
    """

    way: str
    bits: int

    def __post_init__(self) -> None:
        check_choice("methods", self.way, WAYS)
        if self.bits not in WAYS[self.way].bits:
            raise ValueError(f"{self.way} is defined at {WAYS[self.way].bits} bits, got {self.bits}.")

    @property
    def method(self) -> str:
        """What a legend calls its way, e.g. ``GPTQ, rows``."""
        return WAYS[self.way].label

    @property
    def name(self) -> str:
        """What a row calls it, e.g. ``GPTQ, rows, 3 bits``."""
        return f"{self.method}, {self.bits} bits"

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at what goes into a layer."""
        from workbench.quantizers.recipes import CALIBRATED

        return WAYS[self.way].method in CALIBRATED

    @property
    def rounds_inputs(self) -> bool:
        """Whether inputs are quantised too, so that the rounded weights alone do not tell what the model says."""
        return WAYS[self.way].method in ("llm_int8", "smoothquant")

    def recipe(self, *, kernel: str = "auto") -> Recipe:
        """How :func:`workbench.quantizers.model.quantize_model` is told to do it."""
        from workbench.quantizers.recipes import Recipe

        way = WAYS[self.way]
        scales = "float32" if way.method in WIDE_SCALES else SCALES
        return Recipe.of(
            way.method, self.bits, group_size=way.group_size, scale_dtype=scales, embedding_bits=EMBEDDING_BITS,
            kernel=kernel, **way.options,
        )  # fmt: skip


def variants(ways: Sequence[str], bits: Sequence[int]) -> list[Variant]:
    """Every way at every one of ``bits`` that it is defined at, ways in their order, many bits first.

    A way may say its own bits instead: ``rtn:4``.

    Raises:
        UnknownName: an unknown way ("did you mean").
        ValueError: no way, one that is defined at none of ``bits``, or bits that are no number.
    """
    found = [variant for way in ways for variant in _of_way(way, bits)]
    if not found:
        raise ValueError("methods is empty: there is nothing to quantise.")
    return list(dict.fromkeys(found))


def _of_way(way: str, bits: Sequence[int]) -> list[Variant]:
    name, _, own = way.partition(":")
    check_choice("methods", name, WAYS)
    if own:
        if not own.isdigit():
            raise ValueError(f"methods: {way!r} is not of the form name or name:bits, such as 'rtn:4'.")
        return [Variant(name, int(own))]
    widths = [width for width in sorted(set(bits), reverse=True) if width in WAYS[name].bits]
    if not widths:
        raise ValueError(f"methods: {name!r} is defined at {WAYS[name].bits} bits, at none of bits={tuple(bits)}.")
    return [Variant(name, width) for width in widths]
