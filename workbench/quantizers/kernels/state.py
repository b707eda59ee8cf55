"""A packed weight in a module's ``state_dict``: as its quantiser stored it, whatever the kernel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from workbench.quantizers.kernels.kernel import Kernel
from workbench.quantizers.tensor import QuantizedTensor


def save_weight(kernel: Kernel, destination: dict[str, Tensor], prefix: str) -> None:
    """Put the stored tensors of a kernel's weight under ``<prefix>weight.``."""
    destination.update({f"{prefix}weight.{name}": part for name, part in kernel.quantized.tensors().items()})


def split_weight(state: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What :func:`save_weight` put under ``<prefix>weight.``, by its own names, and all the rest."""
    place = f"{prefix}weight."
    given = {name.removeprefix(place): part for name, part in state.items() if name.startswith(place)}
    return given, {name: part for name, part in state.items() if not name.startswith(place)}


def kernel_of(given: Mapping[str, Tensor], kernel: Kernel, prefix: str, errors: list[str]) -> Kernel | None:
    """A kernel of the same kind for the tensors ``given``; None, and one more of ``errors``, if they do not fit."""
    known = kernel.quantized
    expected = {name: (part.shape, part.dtype) for name, part in known.tensors().items()}
    if expected != {name: (part.shape, part.dtype) for name, part in given.items()}:
        errors.append(f"{prefix}weight is stored in another format than {known.spec.label} of this layer.")
        return None
    copied = {name: part.detach().clone() for name, part in given.items()}
    return type(kernel)(QuantizedTensor.restore(known.description(), copied))
