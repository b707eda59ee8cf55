"""Changes of basis of a layer's inputs, after which its weight is easier to round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class InputTransform(Protocol):
    """An invertible map ``T`` of inputs; the weight is quantised as ``weight @ inverse(T)``."""

    kind: ClassVar[str]

    def apply_to_inputs(self, inputs: Tensor) -> Tensor:
        """``T`` of every vector of ``inputs [..., in]``, in their dtype."""
        ...

    def apply_to_weight(self, weight: Tensor) -> Tensor:
        """The weight ``[out, in]`` for transformed inputs: its product with them is that of the plain pair."""
        ...

    def undo_on_weight(self, weight: Tensor) -> Tensor:
        """The weight ``[out, in]`` for plain inputs."""
        ...

    def apply_to_hessian(self, hessian: Tensor) -> Tensor:
        """The Hessian ``[in, in]`` of transformed inputs, ``T hessian T^t``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What has to be stored, by name."""
        ...

    def description(self) -> dict[str, object]:
        """The rest, as plain JSON values."""
        ...


@dataclass(frozen=True)
class InputScale:
    """Every input divided by a number of its own, its weights multiplied by it (AWQ, SmoothQuant)."""

    scale: Tensor  # [in], above 0
    kind: ClassVar[str] = "input_scale"

    def __post_init__(self) -> None:
        if self.scale.dim() != 1 or not bool(((self.scale > 0) & torch.isfinite(self.scale)).all()):
            raise ValueError("the scale of inputs must be a vector [in] of finite numbers above 0.")

    def apply_to_inputs(self, inputs: Tensor) -> Tensor:
        return inputs / self.scale.to(inputs.dtype)

    def apply_to_weight(self, weight: Tensor) -> Tensor:
        return weight * self.scale.to(weight.dtype)

    def undo_on_weight(self, weight: Tensor) -> Tensor:
        return weight / self.scale.to(weight.dtype)

    def apply_to_hessian(self, hessian: Tensor) -> Tensor:
        inverse = 1.0 / self.scale.to(hessian.dtype)
        return hessian * inverse * inverse[:, None]

    def tensors(self) -> dict[str, Tensor]:
        return {"scale": self.scale}

    def description(self) -> dict[str, object]:
        return {"kind": self.kind}


def restore_transform(description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> InputTransform:
    """The transform that gave ``description`` and ``tensors``."""
    if description["kind"] == InputScale.kind:
        return InputScale(tensors["scale"])
    from workbench.quantizers.hadamard import Hadamard

    if description["kind"] == Hadamard.kind:
        return Hadamard.restore(description, tensors)
    raise ValueError(
        f"a transform of kind {description['kind']!r} is not known here: the file was written by another version."
    )
