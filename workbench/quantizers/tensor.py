"""A quantised weight as it is stored: packed codes, scales, zeros, outliers, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from workbench.quantizers.grid import Grid
from workbench.quantizers.layout import back_to_outputs
from workbench.quantizers.outliers import SparseOutliers
from workbench.quantizers.packing import pack_codes, unpack_codes
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tables import (
    DoubleQuantizedTable,
    PackedTable,
    PlainTable,
    Table,
    restore_table,
    stored_bytes,
)
from workbench.quantizers.transforms import InputTransform, restore_transform


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight ``[out, in]`` in few bits; nothing of it is kept in floating point besides what is listed.

    Its value is ``scale * (code - zero)``, plus outliers, with columns put back by ``permutation`` and the
    inputs' transform undone. Make one with a ``quantize_*`` function.
    """

    spec: QuantSpec
    shape: tuple[int, int]
    packed: Tensor  # uint8 [stored rows, bytes]
    scale_table: Table
    zero_table: Table | None = None  # None: symmetric, or a codebook
    outliers: SparseOutliers | None = None  # in the order of the inputs
    transform: InputTransform | None = None
    permutation: Tensor | None = None  # int32 [in]: column j is stored of input permutation[j]
    axis: int = 1  # 0: groups run along the outputs
    method: str = "rtn"

    @classmethod
    def from_codes(
        cls,
        codes: Tensor,
        grid: Grid,
        *,
        method: str,
        outliers: SparseOutliers | None = None,
        transform: InputTransform | None = None,
        permutation: Tensor | None = None,
        scale_table: Table | None = None,
        zero_table: Table | None = None,
        shape: tuple[int, int] | None = None,
    ) -> QuantizedTensor:
        """Pack uint8 ``codes [rows, columns]``, in the order of the grid's columns.

        Args:
            codes: as :meth:`Grid.encode` gives them.
            grid: whose scales and zeros are stored, unless ``scale_table`` and ``zero_table`` do.
            shape: ``(out, in)`` of the weight if groups run along its outputs and ``codes`` are laid out so.
        """
        spec = grid.spec
        if scale_table is None:
            scales = grid.scale.squeeze(-1)
            scale_table = DoubleQuantizedTable.store(scales) if spec.double_quant else PlainTable.store(scales, spec)
        if zero_table is None and spec.stores_zero:
            zeros = grid.zero.squeeze(-1)
            plain = spec.zero == "float"
            zero_table = PlainTable.store(zeros, spec) if plain else PackedTable.store(zeros, spec.bits)
        return cls(
            spec=spec,
            shape=tuple(codes.shape) if shape is None else shape,
            packed=pack_codes(codes, spec.bits),
            scale_table=scale_table,
            zero_table=zero_table,
            outliers=outliers if outliers is not None and outliers.count else None,
            transform=transform,
            permutation=None if permutation is None else permutation.to(torch.int32),
            axis=1 if shape is None else 0,
            method=method,
        )

    @property
    def scales(self) -> Tensor:
        """Float32 ``[rows, groups]`` in the order of storage; ``[1, 1]`` of a whole tensor."""
        return self.scale_table.values()

    @property
    def zeros(self) -> Tensor | None:
        """Float32 like :attr:`scales`, the code that stands for 0.0 (real with a float zero); None for a codebook."""
        if self.spec.codebook is not None:
            return None
        if self.zero_table is None:
            return torch.full_like(self.scales, self.spec.middle)
        return self.zero_table.values()

    @property
    def grid(self) -> Grid:
        """Scales and zeros in the order of storage, to decode stored codes with."""
        scale, zero = self.scales, self.zeros
        return Grid(scale[..., None], None if zero is None else zero[..., None], self.spec)

    @property
    def codes(self) -> Tensor:
        """Unpacked codes, uint8 ``[out, in]`` in the order of the inputs."""
        return self._in_order(unpack_codes(self.packed, self.spec.bits, self._stored_columns))

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def dequantize(self, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight ``[out, in]`` for plain inputs: outliers added, transform undone."""
        weight = self.dequantize_rows(0, self.shape[0])
        if self.transform is not None:
            weight = self.transform.undo_on_weight(weight)
        return weight.to(dtype)

    def dequantize_rows(self, start: int, stop: int) -> Tensor:
        """Float32 ``[stop - start, in]``: outputs of the weight for *transformed* inputs, outliers added.

        With ``axis=0`` the whole weight is made, since every block of storage holds all outputs.
        """
        stored = (start, stop) if self.axis == 1 else (0, self.packed.shape[0])
        values = self.grid.rows(*stored).decode_packed(self.packed[slice(*stored)], self._stored_columns)
        weight = self._in_order(values)
        if self.axis == 0:
            weight = weight[start:stop].contiguous()
        return weight if self.outliers is None else self.outliers.add_to(weight, start)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is stored: codes, scales, zeros, outliers, permutation, transform."""
        return stored_bytes(self.tensors())

    @property
    def bits_per_weight(self) -> float:
        """Bits of everything that is stored, for each weight."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is stored, by dotted names; with :meth:`description` it makes this again."""
        parts: dict[str, Tensor] = {"packed": self.packed}
        for name, part in self._parts().items():
            parts |= {f"{name}.{key}": tensor for key, tensor in part.tensors().items()}
        if self.permutation is not None:
            parts["permutation"] = self.permutation
        return parts

    def description(self) -> dict[str, object]:
        """What is not a tensor, as plain JSON values."""
        described = {name: part.description() for name, part in self._parts().items() if name != "outliers"}
        return {
            "spec": asdict(self.spec), "shape": list(self.shape), "axis": self.axis, "method": self.method,
            "permuted": self.permutation is not None, "outliers": self.outliers is not None, **described,
        }  # fmt: skip

    @classmethod
    def restore(cls, description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> QuantizedTensor:
        """The quantised weight that gave ``description`` and ``tensors``.

        Raises:
            ValueError: a tensor that the description calls for is missing, one too many is there, or one has
                another shape or type.
        """
        spec = QuantSpec(**description["spec"])
        shape = tuple(description["shape"])

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}

        try:
            zero = description.get("zeros")
            transform = description.get("transform")
            made = cls(
                spec=spec,
                shape=shape,
                packed=tensors["packed"],
                scale_table=restore_table(description["scales"], part("scales")),
                zero_table=None if zero is None else restore_table(zero, part("zeros")),
                outliers=SparseOutliers.restore(part("outliers"), shape[1]) if description["outliers"] else None,
                transform=None if transform is None else restore_transform(transform, part("transform")),
                permutation=tensors["permutation"] if description["permuted"] else None,
                axis=description["axis"],
                method=description["method"],
            )
        except KeyError as error:
            raise ValueError(f"the stored weight lacks {error}: it was written by another recipe.") from error
        if surplus := set(tensors) - set(made.tensors()):
            raise ValueError(f"the stored weight has {sorted(surplus)} too many: it was written by another recipe.")
        return made

    def to(self, device: torch.device | str) -> QuantizedTensor:
        """The same on another device."""
        return self.restore(self.description(), {name: tensor.to(device) for name, tensor in self.tensors().items()})

    def _parts(self) -> dict[str, object]:
        parts = {
            "scales": self.scale_table, "zeros": self.zero_table, "outliers": self.outliers,
            "transform": self.transform,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def _stored_columns(self) -> int:
        """Codes in a row of storage."""
        return self.shape[0] * self.shape[1] // self.packed.shape[0]

    def _in_order(self, stored: Tensor) -> Tensor:
        """Rows and columns of storage put where the weight has them."""
        if self.axis == 0:
            return back_to_outputs(stored, self.shape)
        if self.permutation is None:
            return stored
        ordered = torch.empty_like(stored)
        ordered[:, self.permutation.long()] = stored
        return ordered
