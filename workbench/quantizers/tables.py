"""How the scales and zeros of a quantised weight are stored, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from workbench.quantizers.codebooks import decode_dynamic, encode_dynamic
from workbench.quantizers.grid import STORED, decode
from workbench.quantizers.packing import pack_codes, unpack_codes
from workbench.quantizers.spec import QuantSpec


class Table(Protocol):
    """Numbers ``[rows, groups]`` in some storage."""

    kind: ClassVar[str]

    def values(self) -> Tensor:
        """Float32 ``[rows, groups]``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name; names are short and unique within the table."""
        ...

    def description(self) -> dict[str, object]:
        """The rest that :func:`restore_table` needs, as plain JSON values."""
        ...


@dataclass(frozen=True)
class PlainTable:
    """One number each, in a floating type."""

    plain: Tensor  # [rows, groups]
    kind: ClassVar[str] = "plain"

    @classmethod
    def store(cls, values: Tensor, spec: QuantSpec) -> PlainTable:
        return cls(values.to(STORED[spec.scale_dtype]).contiguous())

    def values(self) -> Tensor:
        return self.plain.float()

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.plain}

    def description(self) -> dict[str, object]:
        return {"kind": self.kind}


@dataclass(frozen=True)
class PackedTable:
    """Integer zeros, packed in as many bits as the codes."""

    packed: Tensor  # [rows, bytes]
    bits: int
    groups: int
    kind: ClassVar[str] = "packed"

    @classmethod
    def store(cls, values: Tensor, bits: int) -> PackedTable:
        return cls(pack_codes(values.to(torch.uint8), bits), bits, values.shape[1])

    def values(self) -> Tensor:
        return unpack_codes(self.packed, self.bits, self.groups).float()

    def tensors(self) -> dict[str, Tensor]:
        return {"packed": self.packed}

    def description(self) -> dict[str, object]:
        return {"kind": self.kind, "bits": self.bits, "groups": self.groups}


@dataclass(frozen=True)
class BilevelTable:
    """Numbers rounded to a few bits themselves, in runs of neighbouring rows of one group (Dettmers et al. 2023, SpQR).

    The second level's grids have float zeros; :mod:`workbench.quantizers.spqr_scales` fits them.
    """

    packed: Tensor  # [groups, bytes of the rows' codes]
    scales: Tensor  # [groups, runs], in float16 as a rule
    zeros: Tensor  # [groups, runs]
    bits: int
    rows: int
    kind: ClassVar[str] = "bilevel"

    def values(self) -> Tensor:
        codes = unpack_codes(self.packed, self.bits, self.rows).unflatten(1, (self.scales.shape[1], -1))
        spec = QuantSpec(self.bits, zero="float")
        return decode(codes, self.scales.float()[..., None], self.zeros.float()[..., None], spec).flatten(1).t()

    def tensors(self) -> dict[str, Tensor]:
        return {"packed": self.packed, "scales": self.scales, "zeros": self.zeros}

    def description(self) -> dict[str, object]:
        return {"kind": self.kind, "bits": self.bits, "rows": self.rows}


@dataclass(frozen=True)
class DoubleQuantizedTable:
    """Scales in the 8-bit dynamic code, by blocks of 256 with the mean taken off (Dettmers et al. 2023, QLoRA)."""

    codes: Tensor  # [rows * groups]
    largest: Tensor  # [blocks] float32
    offset: Tensor  # [] float32
    rows: int
    kind: ClassVar[str] = "double"

    @classmethod
    def store(cls, values: Tensor) -> DoubleQuantizedTable:
        return cls(*encode_dynamic(values), values.shape[0])

    def values(self) -> Tensor:
        return decode_dynamic(self.codes, self.largest, self.offset).view(self.rows, -1)

    def tensors(self) -> dict[str, Tensor]:
        return {"codes": self.codes, "largest": self.largest, "offset": self.offset}

    def description(self) -> dict[str, object]:
        return {"kind": self.kind, "rows": self.rows}


def restore_table(description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Table:
    """The table that gave ``description`` and ``tensors``."""
    kind = description["kind"]
    if kind == PlainTable.kind:
        return PlainTable(tensors["values"])
    if kind == PackedTable.kind:
        return PackedTable(tensors["packed"], int(description["bits"]), int(description["groups"]))
    if kind == BilevelTable.kind:
        parts = (tensors["packed"], tensors["scales"], tensors["zeros"])
        return BilevelTable(*parts, int(description["bits"]), int(description["rows"]))
    if kind == DoubleQuantizedTable.kind:
        return DoubleQuantizedTable(tensors["codes"], tensors["largest"], tensors["offset"], int(description["rows"]))
    raise ValueError(f"a table of kind {kind!r} is not known here: the file was written by another version.")


def stored_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all ``tensors``."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
