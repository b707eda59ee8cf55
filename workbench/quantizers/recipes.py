"""Which layer is quantised how: one rule for all layers, others by pattern, readable as JSON."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import check_choice
from workbench.quantizers.spec import QuantSpec, default_group_size

METHODS: dict[str, tuple[str, ...]] = {  # a method and the options that it takes
    "rtn": (),
    "gptq": ("block_size", "damping", "act_order", "static_groups"),
    "awq": ("grid", "clip"),
    "hqq": ("iterations", "p", "beta", "kappa", "axis", "round_zero"),
    "spqr": ("outlier_threshold", "damping", "scale_bits", "scale_group", "act_order"),
    "smoothquant": ("alpha",),
    "llm_int8": ("threshold",),
}
CALIBRATED = ("gptq", "awq", "spqr", "smoothquant")  # these look at what goes into a layer
OWN_BASIS = ("awq", "smoothquant", "llm_int8")  # these change or split the inputs themselves: no rotation before them
KERNELS = ("auto", "int8_dynamic", "int8_weight", "int4", "blocked", "naive")
SPQR_GROUP = 16  # inputs that share a scale in SpQR's released code


@dataclass(frozen=True)
class LayerRecipe:
    """How one layer is quantised.

    Args:
        spec: the grid; its ``group_size`` is what ``default_group`` replaces.
        method: one of ``METHODS``: how codes are chosen.
        options: keyword arguments of that method, such as ``{"act_order": True}`` for ``gptq``.
        rotate: a randomised Hadamard rotation of the inputs first.
        default_group: the largest of 128, 64 and 32 that divides the widths of all layers, else of this layer.

    Raises:
        UnknownName: a method or an option that does not exist.
        ValueError: what does not go together.
    """

    spec: QuantSpec
    method: str = "rtn"
    options: Mapping[str, Any] = field(default_factory=dict)
    rotate: bool = False
    default_group: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.spec, QuantSpec):
            raise TypeError(f"spec must be a QuantSpec, got {type(self.spec).__name__}: write QuantSpec(bits=4).")
        check_choice("method", self.method, METHODS)
        for name in self.options:
            check_choice(f"an option of method {self.method!r},", name, METHODS[self.method])
        object.__setattr__(self, "options", dict(self.options))
        if self.rotate and self.method in OWN_BASIS:
            raise ValueError(f"rotate=True does not go with method={self.method!r}, which scales or splits inputs.")
        if self.method == "llm_int8" and (self.spec != QuantSpec(8, symmetric=True) or self.default_group):
            raise ValueError(
                f"method='llm_int8' is defined for {QuantSpec(8, symmetric=True).label}, got {self.spec.label}: "
                "take QuantSpec(8, symmetric=True)."
            )
        if self.spec.codebook is not None and self.method in ("spqr", "hqq"):
            raise ValueError(f"method={self.method!r} needs a uniform grid: drop codebook={self.spec.codebook!r}.")

    def for_width(self, width: int, widths: Iterable[int] = ()) -> LayerRecipe:
        """This recipe with the default group settled for a layer of ``width`` inputs in a model of such ``widths``."""
        if not self.default_group:
            return self
        size = default_group_size(math.gcd(width, *widths)) or default_group_size(width)
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, group_size=size), default_group=False)

    def to_json(self) -> dict[str, Any]:
        """As dictionaries, which :meth:`from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LayerRecipe:
        """The rule that :meth:`to_json` wrote."""
        return cls(**{**value, "spec": QuantSpec(**value["spec"])})

    @property
    def calibrated(self) -> bool:
        """Whether calibration data is needed."""
        return self.method in CALIBRATED

    @property
    def label(self) -> str:
        """In words: ``gptq, 4 bits, groups of 64, asymmetric, rotated``."""
        shown = "".join(f", {name} {value}" for name, value in self.options.items())
        spec = self.spec.label.replace("per row", "default groups") if self.default_group else self.spec.label
        return f"{self.method}, {spec}{', rotated' if self.rotate else ''}{shown}"


@dataclass(frozen=True)
class Recipe:
    """How a model is quantised, layer by layer.

    Args:
        default: for every linear layer of every block; None leaves them as they are.
        overrides: a shell pattern of layer names (``"*.mlp.*"``, ``"model.layers.0.*"``) to what holds there instead,
            None for "left as it is"; of several that match the last stands.
        embedding, head: the grid of the token embedding and of the output layer, rounded to nearest; None leaves them
            as they are. Where a model ties the two they are one matrix, and one of them is enough.
        kernel: how products are computed, as :meth:`QuantizedLinear.from_linear` takes it.

    Raises:
        TypeError, UnknownName: fields of another kind.
    """

    default: LayerRecipe | None
    overrides: Mapping[str, LayerRecipe | None] = field(default_factory=dict)
    embedding: QuantSpec | None = None
    head: QuantSpec | None = None
    kernel: str = "auto"

    def __post_init__(self) -> None:
        for name, rule in {"default": self.default, **self.overrides}.items():
            if rule is not None and not isinstance(rule, LayerRecipe):
                raise TypeError(f"{name} must be a LayerRecipe or None, got {type(rule).__name__}.")
        for name in ("embedding", "head"):
            if not isinstance(getattr(self, name), QuantSpec | None):
                raise TypeError(f"{name} must be a QuantSpec or None, got {type(getattr(self, name)).__name__}.")
        check_choice("kernel", self.kernel, KERNELS)
        object.__setattr__(self, "overrides", dict(self.overrides))

    @classmethod
    def of(
        cls,
        method: str,
        bits: int,
        *,
        group_size: int | str | None = "default",
        symmetric: bool | None = None,
        zero: str | None = None,
        codebook: str | None = None,
        clip: str = "minmax",
        scale_dtype: str = "float32",
        double_quant: bool = False,
        options: Mapping[str, Any] | None = None,
        rotate: bool = False,
        overrides: Mapping[str, LayerRecipe | None] | None = None,
        embedding_bits: int | None = None,
        kernel: str = "auto",
    ) -> Recipe:
        """One method at one width for all layers.

        Args:
            group_size: ``"default"`` is one scale per row at 8 bits and for smoothquant and llm_int8 (what int8
                products can use), 16 inputs for SpQR, else the largest of 128, 64 and 32 that divides all widths.
            symmetric: None is symmetric at 8 bits, where int8 products need it, and asymmetric below.
            zero: None is ``"float"`` for SpQR, else ``"integer"``.
            embedding_bits: for embedding and output layer, symmetric; one scale per row at 8 bits.

        Raises:
            UnknownName, ValueError: as :class:`LayerRecipe` and :class:`QuantSpec`.
        """
        check_choice("method", method, METHODS)
        whole_rows = (bits == 8 and method not in ("spqr", "hqq")) or method in ("smoothquant", "llm_int8")
        grouped = group_size == "default" and not whole_rows and method != "spqr"
        if group_size == "default":
            group_size = SPQR_GROUP if method == "spqr" else None
        symmetric = whole_rows and zero is None and codebook is None if symmetric is None else symmetric
        zero = ("float" if method == "spqr" and not symmetric else "integer") if zero is None else zero
        spec = QuantSpec(
            bits, group_size, symmetric, zero, codebook, clip, scale_dtype=scale_dtype, double_quant=double_quant
        )
        ends = None if embedding_bits is None else _ends(embedding_bits)
        rule = LayerRecipe(spec, method, options or {}, rotate=rotate, default_group=grouped)
        return cls(rule, overrides or {}, embedding=ends, head=ends, kernel=kernel)

    def rule_for(self, layer: str) -> LayerRecipe | None:
        """What holds for the layer of this name; the last pattern that matches stands."""
        found = self.default
        for pattern, rule in self.overrides.items():
            if fnmatch.fnmatchcase(layer, pattern):
                found = rule
        return found

    def to_json(self) -> dict[str, Any]:
        """As dictionaries and lists, which :meth:`from_json` reads back."""
        return {
            "default": _rule_to_json(self.default),
            # A list: the order of patterns means something, and not every JSON tool keeps that of an object.
            "overrides": [[pattern, _rule_to_json(rule)] for pattern, rule in self.overrides.items()],
            "embedding": None if self.embedding is None else dataclasses.asdict(self.embedding),
            "head": None if self.head is None else dataclasses.asdict(self.head),
            "kernel": self.kernel,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """The recipe that :meth:`to_json` wrote.

        Raises:
            ValueError: something is missing or unknown in it.
        """
        try:
            return cls(
                _rule_from_json(value["default"]),
                {pattern: _rule_from_json(rule) for pattern, rule in value["overrides"]},
                embedding=None if value["embedding"] is None else QuantSpec(**value["embedding"]),
                head=None if value["head"] is None else QuantSpec(**value["head"]),
                kernel=value["kernel"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no recipe as Recipe.to_json writes it ({error}).") from error


def _ends(bits: int) -> QuantSpec:
    """The grid of embedding and output layer; 32 divides every vocabulary model's width in use."""
    return QuantSpec(bits, None if bits == 8 else 32, symmetric=True)


def _rule_to_json(rule: LayerRecipe | None) -> dict[str, Any] | None:
    return None if rule is None else rule.to_json()


def _rule_from_json(value: Mapping[str, Any] | None) -> LayerRecipe | None:
    return None if value is None else LayerRecipe.from_json(value)
