"""Which weights share a scale when groups run along the outputs."""

from __future__ import annotations

from torch import Tensor

from workbench.quantizers.spec import QuantSpec


def grouped_along_outputs(weight: Tensor, spec: QuantSpec, layer: str = "") -> Tensor:
    """``weight [out, in]`` with every group of an input's outputs in a row: ``[out / group, in * group]``.

    A group holds the outputs ``i * out / group + j`` of one input, for all ``i``: HQQ's grouping of ``axis=0``
    (Badri & Shaji 2023, the code). Groups of the result run along its columns like any other.

    Raises:
        ValueError: the group does not divide the outputs.
    """
    group = _length(weight.shape[0], spec, layer)
    return weight.view(group, -1, weight.shape[1]).permute(1, 2, 0).flatten(1).contiguous()


def back_to_outputs(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """The ``[out, in]`` matrix that :func:`grouped_along_outputs` laid out."""
    outputs, inputs = shape
    return matrix.unflatten(1, (inputs, -1)).permute(2, 0, 1).reshape(outputs, inputs)


def _length(outputs: int, spec: QuantSpec, layer: str) -> int:
    if spec.group_size is None or spec.group_size == "tensor":
        return outputs
    if outputs % spec.group_size:
        raise ValueError(
            f"{layer or 'weight'}: {outputs} outputs cannot be divided into groups of {spec.group_size} along "
            "axis 0: take a group_size that divides them, or axis=1."
        )
    return spec.group_size
