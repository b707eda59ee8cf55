"""The few weights that are kept beside a grid: what they are above or below it, in compressed rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quantizers.tables import stored_bytes

NARROW_COLUMNS = 2**15  # columns that an int16 can number


@dataclass(frozen=True)
class SparseOutliers:
    """Differences ``[rows, columns]`` to be added to the grid's values, zero nearly everywhere.

    Differences and not the weights themselves: a product with the packed codes and one with these add up.
    """

    pointers: Tensor  # [rows + 1] int32, where a row begins
    places: Tensor  # [count] int16 or int32, its columns
    values: Tensor  # [count] float16 or float32
    columns: int

    @classmethod
    def from_dense(cls, mask: Tensor, values: Tensor, *, dtype: torch.dtype = torch.float16) -> SparseOutliers:
        """Keep ``values [rows, columns]`` where ``mask`` is True.

        Raises:
            ValueError: a value is beyond ``dtype``.
        """
        rows, columns = mask.shape
        found = mask.nonzero()
        counts = torch.bincount(found[:, 0], minlength=rows)
        pointers = torch.zeros(rows + 1, dtype=torch.int32, device=mask.device)
        pointers[1:] = counts.cumsum(0)
        kept = values[mask].to(dtype)
        if not bool(torch.isfinite(kept).all()):
            raise ValueError(f"an outlier is beyond {dtype}: keep outliers in torch.float32.")
        narrow = torch.int16 if columns <= NARROW_COLUMNS else torch.int32
        return cls(pointers, found[:, 1].to(narrow), kept, columns)

    @property
    def rows(self) -> int:
        return self.pointers.numel() - 1

    @property
    def count(self) -> int:
        return self.values.numel()

    @property
    def nbytes(self) -> int:
        return stored_bytes(self.tensors())

    def add_to(self, dense: Tensor, start: int = 0) -> Tensor:
        """Add the rows from ``start`` on to ``dense [some rows, columns]``, in place."""
        first, last = int(self.pointers[start]), int(self.pointers[start + dense.shape[0]])
        if first < last:
            lengths = self.pointers[start : start + dense.shape[0] + 1].diff().long()
            row = torch.repeat_interleave(torch.arange(dense.shape[0], device=dense.device), lengths)
            places = (row, self.places[first:last].long())
            dense.index_put_(places, self.values[first:last].to(dense.dtype), accumulate=True)
        return dense

    def dense(self) -> Tensor:
        """Float32 ``[rows, columns]``."""
        return self.add_to(torch.zeros(self.rows, self.columns, device=self.values.device))

    def mask(self) -> Tensor:
        """Bool ``[rows, columns]``, True where something is kept."""
        kept = SparseOutliers(self.pointers, self.places, torch.ones_like(self.values), self.columns)
        return kept.dense() > 0

    def sparse(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """As a torch CSR matrix ``[rows, columns]``, for products; keep it when there are many."""
        parts = (self.pointers, self.places.int(), self.values.to(dtype), (self.rows, self.columns))
        with warnings.catch_warnings():
            # torch calls the whole layout beta; the one product that is used here is tested against the dense one.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            # Places may come from a file: unchecked, one out of range would write beyond the memory of a product.
            return torch.sparse_csr_tensor(*parts, check_invariants=True)

    def matmul(self, inputs: Tensor) -> Tensor:
        """Float32 products ``[tokens, rows]`` of ``inputs [tokens, columns]``."""
        return (self.sparse() @ inputs.float().t()).t()

    def tensors(self) -> dict[str, Tensor]:
        return {"pointers": self.pointers, "places": self.places, "values": self.values}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], columns: int) -> SparseOutliers:
        """The outliers that gave ``tensors``, of a weight with so many inputs."""
        return cls(tensors["pointers"], tensors["places"], tensors["values"], columns)
