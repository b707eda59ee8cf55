"""Dequantise some rows, multiply, forget them: for every format, never with the whole weight in memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from workbench.quantizers.grid import Grid
from workbench.quantizers.kernels.kernel import Kernel, flat, like, working_dtype
from workbench.quantizers.tensor import QuantizedTensor

BLOCK_BYTES = 2**20  # of a dequantised block in float32: about the second-level cache of one core


class Blocked(Kernel):
    """Packed codes stay as they are; blocks of at most :data:`BLOCK_BYTES` are made, multiplied and let go."""

    name = "blocked"

    def __init__(self, quantized: QuantizedTensor):
        super().__init__(quantized)
        self._whole = quantized

    @classmethod
    def refusal(cls, quantized: QuantizedTensor) -> str:
        return ""

    def multiply(self, inputs: Tensor) -> Tensor:
        tokens = flat(inputs)
        work = tokens.to(working_dtype(tokens.dtype))
        stored, groups = self._stored()
        # A stored row of ``axis=0`` holds the outputs i * rows + row of every i.
        outputs = work.new_empty(work.shape[0], groups, stored)
        step, grid = self._step(), self._whole.grid
        for start in range(0, stored, step):
            stop = min(start + step, stored)
            block = self._block(grid, start, stop).to(work.dtype)
            outputs[:, :, start:stop] = F.linear(work, block).view(-1, groups, stop - start)
        return like(outputs.view(-1, self.shape[0]), inputs)

    def rows(self, index: Tensor) -> Tensor:
        if self._whole.axis == 0:
            raise ValueError("rows of a weight with groups along the outputs cannot be looked up: use axis=1.")
        grid = self._whole.grid
        if grid.scale.shape[0] > 1:
            grid = Grid(grid.scale[index], None if grid.zero is None else grid.zero[index], grid.spec)
        return grid.decode_packed(self._whole.packed[index], self.shape[1])

    def packed(self) -> Tensor:
        return self._whole.packed

    def own_tensors(self) -> dict[str, Tensor]:
        return {"packed": self._whole.packed}

    def _stored(self) -> tuple[int, int]:
        """Rows of storage, and outputs in each of them."""
        rows = self._whole.packed.shape[0]
        return rows, self.shape[0] // rows

    def _step(self) -> int:
        """Rows of storage in a block."""
        _, groups = self._stored()
        return max(1, BLOCK_BYTES // (4 * self.shape[1] * groups))

    def _block(self, grid: Grid, start: int, stop: int) -> Tensor:
        """Float32 weights ``[outputs, in]`` of some rows of storage."""
        groups = self._stored()[1]
        values = self._decoded(grid.rows(start, stop), self._whole.packed[start:stop], self.shape[1] * groups)
        if groups == 1:
            return values
        return values.view(stop - start, self.shape[1], groups).permute(2, 0, 1).reshape(-1, self.shape[1])

    def _decoded(self, grid: Grid, packed: Tensor, columns: int) -> Tensor:
        return grid.decode_packed(packed, columns)


def multiply_transposed(kernel: Kernel, gradient: Tensor) -> Tensor:
    """``gradient [tokens, out] @ weight``, ``[tokens, in]``: the gradient of inputs, block by block."""
    blocked = kernel if isinstance(kernel, Blocked) else Blocked(kernel.quantized)
    stored, groups = blocked._stored()
    work = gradient.to(working_dtype(gradient.dtype))
    grouped = work.view(-1, groups, stored)
    result, step, grid = work.new_zeros(work.shape[0], blocked.shape[1]), blocked._step(), blocked._whole.grid
    for start in range(0, stored, step):
        stop = min(start + step, stored)
        part = grouped[:, :, start:stop].flatten(1)
        result.addmm_(part, blocked._block(grid, start, stop).to(work.dtype))
    return result.to(gradient.dtype)
