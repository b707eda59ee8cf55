"""Ways to multiply by a quantised weight on a CPU, and which of them a format gets by itself."""

from __future__ import annotations

from workbench.errors import check_choice
from workbench.quantizers.kernels.blocked import Blocked
from workbench.quantizers.kernels.int4 import Int4
from workbench.quantizers.kernels.int8_dynamic import Int8Dynamic
from workbench.quantizers.kernels.int8_weight import Int8Weight
from workbench.quantizers.kernels.kernel import Kernel
from workbench.quantizers.kernels.naive import Naive
from workbench.quantizers.tensor import QuantizedTensor

KERNELS: dict[str, type[Kernel]] = {kernel.name: kernel for kernel in (Int8Dynamic, Int8Weight, Int4, Blocked, Naive)}
ROUNDS_INPUTS = ("smoothquant",)  # methods made for products of bytes with bytes


def make_kernel(quantized: QuantizedTensor, kernel: str = "auto", *, layer: str = "") -> Kernel:
    """The kernel called ``kernel`` for ``quantized``, which it takes over into its own layout.

    ``auto`` never changes what is computed beyond bfloat16's rounding of inputs: 8 bits per row get
    ``int8_weight`` (``int8_dynamic`` after SmoothQuant, whose subject are inputs of 8 bits), 4 bits on a uniform grid
    ``int4``, all else ``blocked``. Within a kernel the number of tokens decides.

    Raises:
        UnknownName: no such kernel.
        ValueError: it cannot multiply by this format; names the layer and the reason.
    """
    check_choice("kernel", kernel, ["auto", *KERNELS])
    if kernel != "auto":
        if why := KERNELS[kernel].refusal(quantized):
            raise ValueError(f"{layer or 'weight'}: kernel={kernel!r} cannot run {quantized.spec.label}: {why}.")
        return KERNELS[kernel](quantized)
    return KERNELS[automatic(quantized)](quantized)


def automatic(quantized: QuantizedTensor) -> str:
    """The kernel that ``auto`` stands for."""
    if quantized.spec.bits == 8:
        wanted: list[type[Kernel]] = [Int8Weight]
        if quantized.method in ROUNDS_INPUTS:
            wanted.insert(0, Int8Dynamic)
    else:
        wanted = [Int4] if quantized.spec.bits == 4 else []
    return next((kernel.name for kernel in wanted if not kernel.refusal(quantized)), Blocked.name)
