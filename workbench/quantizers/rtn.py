"""Round to nearest: every weight by itself, to the grid fitted on its group."""

from __future__ import annotations

from torch import Tensor

from workbench.quantizers.grid import check_weight, fit_grid
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor


def quantize_rtn(weight: Tensor, spec: QuantSpec, *, layer: str = "") -> QuantizedTensor:
    """``weight [out, in]`` rounded to the grid of ``spec``, without data.

    Args:
        layer: name that errors are told with.

    Raises:
        TypeError, ValueError: the weight is no finite floating matrix, the group does not divide its inputs, or
            a scale is beyond ``spec.scale_dtype``; the message names the layer and the remedy.
    """
    weight = check_weight(weight, layer)
    grid = fit_grid(weight, spec, layer=layer)
    return QuantizedTensor.from_codes(grid.encode(weight), grid, method="rtn")
