"""A linear layer that multiplies by its quantised weight as it is packed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from workbench.quantizers.kernels import Kernel, make_kernel
from workbench.quantizers.kernels.blocked import multiply_transposed
from workbench.quantizers.kernels.state import kernel_of, save_weight, split_weight
from workbench.quantizers.tensor import QuantizedTensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class QuantizedLinear(nn.Module):
    """``inputs @ weight.T + bias`` with a packed weight ``[out, in]``, in the dtype of the inputs.

    The weight is held once, in the layout of its kernel; :attr:`quantized` unpacks it on demand. It has no gradient;
    the inputs have (that of the dequantised weight). ``state_dict`` holds the weight as its quantiser stored it, under
    ``weight.``, whatever the kernel.
    """

    def __init__(self, kernel: Kernel, bias: Tensor | None = None, *, layer: str = ""):
        super().__init__()
        self.out_features, self.in_features = kernel.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"{layer or 'bias'}: expected a bias [{self.out_features}], got {tuple(bias.shape)}.")
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.layer = layer
        self._take(kernel)

    @classmethod
    def from_linear(
        cls, linear: nn.Module, quantized: QuantizedTensor, *, kernel: str = "auto", layer: str = ""
    ) -> QuantizedLinear:
        """The layer that computes what ``linear`` does, with ``quantized`` for its weight.

        Args:
            linear: an ``nn.Linear``, or GPT-2's ``Conv1D``, whose weight ``[in, out]`` was quantised transposed. Only
                its bias and the shape of its weight are read.
            quantized: the weight ``[out, in]``.
            kernel: ``auto | int8_dynamic | int8_weight | int4 | blocked | naive``, see :func:`make_kernel`.
            layer: name that errors are told with.

        Raises:
            TypeError: not a linear layer, or not a quantised weight.
            UnknownName, ValueError: shapes differ, or the kernel cannot run this format.
        """
        if not isinstance(quantized, QuantizedTensor):
            raise TypeError(f"{layer or 'quantized'}: expected a QuantizedTensor, got {type(quantized).__name__}.")
        shape = _shape(linear, layer)
        if shape != quantized.shape:
            raise ValueError(
                f"{layer or 'weight'}: the layer maps {shape[1]} inputs to {shape[0]} outputs, the quantised weight is "
                f"{list(quantized.shape)} ([out, in]): quantise this layer's own weight, a Conv1D's transposed."
            )
        made = cls(make_kernel(quantized, kernel, layer=layer), linear.bias, layer=layer)
        return made.train(linear.training)

    @property
    def storage(self) -> Kernel:
        """The kernel that holds the weight; a tied output layer shares it with its embedding."""
        return self._kernel

    @property
    def kernel(self) -> str:
        """The name of the kernel that runs."""
        return self._kernel.name

    @property
    def quantized(self) -> QuantizedTensor:
        """The weight as its quantiser gave it."""
        return self._kernel.quantized

    @property
    def nbytes(self) -> int:
        """Bytes that are held: the kernel's layout, tables as stored, outliers, transform, bias."""
        bias = 0 if self.bias is None else self.bias.numel() * self.bias.element_size()
        return self._kernel.nbytes + bias

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``.

        Raises:
            ValueError: another last axis.
            TypeError: inputs that are not floating.
        """
        if inputs.requires_grad and torch.is_grad_enabled():
            return self._with_gradient(inputs)
        if not self._checked(inputs):
            return inputs.new_zeros(*inputs.shape[:-1], self.out_features)
        outputs = self._multiply(inputs) if self._direct else self._product(self._transformed(inputs))
        return outputs if self.bias is None else self._biased(outputs)

    def _checked(self, inputs: Tensor) -> int:
        if inputs.shape[-1] != self.in_features:
            raise ValueError(
                f"{self.layer or 'QuantizedLinear'}: expected inputs [..., {self.in_features}], "
                f"got {list(inputs.shape)}."
            )
        if inputs.dtype not in FLOATS:
            raise TypeError(f"{self.layer or 'QuantizedLinear'}: expected floating inputs, got {inputs.dtype}.")
        return inputs.numel()

    def _transformed(self, inputs: Tensor) -> Tensor:
        return inputs if self._transform is None else self._transform.apply_to_inputs(inputs)

    def _product(self, inputs: Tensor) -> Tensor:
        """Products of transformed inputs: those of the codes, plus those of the outliers."""
        ordered = inputs if self._order is None else inputs.index_select(-1, self._order)
        outputs = self._multiply(ordered)
        if self._outliers is not None:
            tokens = inputs.reshape(-1, self.in_features)
            outputs += self._outliers.matmul(tokens).reshape(outputs.shape)
        return outputs

    def _biased(self, outputs: Tensor) -> Tensor:
        bias = self.bias
        return outputs.add_(bias if bias.dtype == outputs.dtype else bias.to(outputs.dtype))

    def _with_gradient(self, inputs: Tensor) -> Tensor:
        if not self._checked(inputs):
            return inputs.new_zeros(*inputs.shape[:-1], self.out_features) + 0 * inputs.sum()
        outputs = _Product.apply(self._transformed(inputs), self)
        return outputs if self.bias is None else outputs + self.bias.to(outputs.dtype)

    def _take(self, kernel: Kernel) -> None:
        rest = kernel._rest
        self._kernel, self._multiply = kernel, kernel.multiply
        self._transform, self._outliers = rest.transform, rest.outliers
        self._order = rest.permutation
        self._direct = self._transform is None and self._outliers is None and self._order is None

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        super()._apply(function, recurse)
        # Only the device concerns a packed weight: bytes stay bytes, and scales keep the dtype they were chosen for.
        device = function(torch.empty(0, dtype=torch.uint8, device=self._kernel._rest.packed.device)).device
        if device != self._kernel._rest.packed.device:
            self._take(make_kernel(self.quantized.to(device)))
        return self

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_weight(self._kernel, destination, prefix)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given, rest = split_weight(state_dict, prefix)
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        if kernel := kernel_of(given, self._kernel, prefix, error_msgs):
            self._take(kernel)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._take(self._kernel)

    def extra_repr(self) -> str:
        spec = self._kernel.spec.label
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"{spec}, kernel={self._kernel.says}"
        )


_DERIVED = ("_multiply", "_transform", "_outliers", "_order", "_direct")


class _Product(torch.autograd.Function):
    """The layer's product without bias, and the gradient of its inputs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, inputs: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return layer._product(inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        flat = gradient.reshape(-1, layer.out_features)
        stored = multiply_transposed(layer.storage, flat)
        result = stored
        if layer._order is not None:
            result = torch.empty_like(stored)
            result[:, layer._order] = stored
        if layer._outliers is not None:
            result = result + (layer._outliers.sparse().t() @ flat.float().t()).t().to(result.dtype)
        return result.view(*gradient.shape[:-1], layer.in_features), None


def _shape(linear: nn.Module, layer: str) -> tuple[int, int]:
    """``(out, in)`` of an ``nn.Linear`` or GPT-2's ``Conv1D``."""
    weight = getattr(linear, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or isinstance(linear, nn.Embedding):
        raise TypeError(f"{layer or 'linear'}: expected nn.Linear or Conv1D, got {type(linear).__name__}.")
    out, width = weight.shape
    return (width, out) if type(linear).__name__ == "Conv1D" else (out, width)
