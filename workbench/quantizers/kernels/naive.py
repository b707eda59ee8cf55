"""Dequantise the whole weight, then multiply: the slow path that the paper's "memory falls, speed may not" is about."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from workbench.quantizers.grid import Grid
from workbench.quantizers.kernels.blocked import Blocked
from workbench.quantizers.kernels.kernel import flat, like, working_dtype
from workbench.quantizers.packing import unpack_codes


class Naive(Blocked):
    """The whole weight is made for every product: what a quantised model costs without a kernel."""

    name = "naive"

    def multiply(self, inputs: Tensor) -> Tensor:
        tokens = flat(inputs)
        work = tokens.to(working_dtype(tokens.dtype))
        weight = self._block(self._whole.grid, 0, self._stored()[0]).to(work.dtype)
        return like(F.linear(work, weight), inputs)

    def _decoded(self, grid: Grid, packed: Tensor, columns: int) -> Tensor:
        return grid.decode(unpack_codes(packed, self.spec.bits, columns))  # as it is written without much thought
