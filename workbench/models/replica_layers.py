"""Layers with the weights of many replicas, whose inputs hold the replicas side by side in the batch axis.

A batch ``[replicas * batch, ...]`` goes through attention, activations and residuals as any batch does; only
the layers that have weights must know whose rows they see. These do, and answer row for row as the layers they
stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stack = Callable[[Sequence[Tensor | None]], nn.Parameter | None]  # one parameter of every replica -> [replicas, ...]


@dataclass
class Fold:
    """How a batch is folded: shared by all layers of a stack, ``batch`` set anew at every call."""

    replicas: int
    batch: int = 1


@torch.no_grad()
def clip_each(parameters: Sequence[Tensor], limit: float) -> None:
    """Scale the gradients of every replica, ``[replicas, ...]``, to a norm of ``limit`` or less, each by itself."""
    gradients = [tensor.grad.flatten(1) for tensor in parameters if tensor.grad is not None]
    if not gradients:
        return
    norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
    # The same formula as clip_grad_norm_ of torch, so that a replica is clipped as it would be alone.
    factors = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors[:, None])


def replica_layer(layers: Sequence[nn.Module], name: str, fold: Fold, stack: Stack) -> nn.Module | None:
    """The layer that serves all of ``layers`` (one per replica, of one kind), or None for a kind that is not known.

    Args:
        name: of the layer in its model, for messages.
        stack: makes one parameter of the replicas' parameters; asked twice for tied ones it gives the same.

    Raises:
        ValueError: a known kind with an option that no replica can keep to itself.
    """
    first = layers[0]
    for kinds, build in _KINDS.items():
        # A subclass may stand for its parent only where it computes as the parent does.
        if any(isinstance(first, kind) and type(first).forward is kind.forward for kind in kinds):
            return build(layers, name, fold, stack)
    return ReplicaRMSNorm(layers, name, fold, stack) if _is_rms_norm(first) else None


class ReplicaLayer(nn.Module):
    """A layer over rows that belong to replicas."""

    def __init__(self, layers: Sequence[nn.Module], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__()
        self.name, self.fold = name, fold
        for part in dict.fromkeys(key for layer in layers for key in layer._parameters):
            self.register_parameter(part, stack([layer._parameters.get(part) for layer in layers]))

    def split(self, rows: Tensor) -> Tensor:
        """``[replicas * n, ...] -> [replicas, n, ...]``; rows that all share (positions ``[1, time]``) are repeated."""
        whole = self.fold.replicas * self.fold.batch
        if rows.dim() and rows.shape[0] == 1 != whole:
            rows = rows.expand(whole, *rows.shape[1:])
        if not rows.dim() or not len(rows) or len(rows) % whole:
            raise ValueError(
                f"{self.name} was given {tuple(rows.shape)}, whose rows cannot be told apart by replica: the first "
                f"axis must hold {self.fold.replicas} batches of {self.fold.batch}; train such models one by one with "
                "fit."
            )
        return rows.unflatten(0, (self.fold.replicas, -1))

    def scaled(self, rows: Tensor, dims: int) -> Tensor:
        """``rows`` times ``weight`` plus ``bias``, which lie along the last ``dims`` axes."""
        if self.weight is None:
            return rows
        parts = self.split(rows)
        shape = (len(parts), *[1] * (parts.dim() - 1 - dims), *parts.shape[parts.dim() - dims :])
        parts = parts * self.weight.view(shape)
        if getattr(self, "bias", None) is not None:
            parts = parts + self.bias.view(shape)
        return parts.flatten(0, 1)


class ReplicaLinear(ReplicaLayer):
    """``nn.Linear``: weight ``[replicas, out, in]``."""

    def forward(self, rows: Tensor) -> Tensor:
        parts = self.split(rows)
        flat = parts.reshape(len(parts), -1, parts.shape[-1])
        turned = self.weight.mT
        product = torch.bmm(flat, turned) if self.bias is None else torch.baddbmm(self.bias[:, None], flat, turned)
        return product.view(*parts.shape[:-1], -1).flatten(0, 1)


class ReplicaEmbedding(ReplicaLayer):
    """``nn.Embedding``: weight ``[replicas, entries, width]``."""

    def __init__(self, layers: Sequence[nn.Embedding], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        first = layers[0]
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(first, option):
                raise ValueError(
                    f"{name} has {option}={getattr(first, option)}, which replicas cannot share: unset it."
                )
        self.padding = first.padding_idx

    def forward(self, tokens: Tensor) -> Tensor:
        parts, entries = self.split(tokens), self.weight.shape[1]
        least, most = torch.aminmax(parts)
        if least < 0 or most >= entries:  # would be the row of a neighbour
            raise IndexError(f"{self.name} was given the entries {int(least)} to {int(most)}, but has {entries}.")
        first = torch.arange(len(parts), device=tokens.device) * entries
        found = F.embedding(parts + first.view(-1, *[1] * (parts.dim() - 1)), self.weight.flatten(0, 1))
        if self.padding is not None:  # the padding's entry is not trained
            found = torch.where((parts == self.padding)[..., None], found.detach(), found)
        return found.flatten(0, 1)


class ReplicaLayerNorm(ReplicaLayer):
    """``nn.LayerNorm``: weight and bias ``[replicas, *shape]``."""

    def __init__(self, layers: Sequence[nn.LayerNorm], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        self.shape, self.epsilon = layers[0].normalized_shape, layers[0].eps

    def forward(self, rows: Tensor) -> Tensor:
        return self.scaled(F.layer_norm(rows, self.shape, eps=self.epsilon), len(self.shape))


class ReplicaRMSNorm(ReplicaLayer):
    """``nn.RMSNorm`` and the norm of transformers' Llama: weight ``[replicas, *shape]``."""

    def __init__(self, layers: Sequence[nn.Module], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        first = layers[0]
        self.shape = getattr(first, "normalized_shape", None) or tuple(first.weight.shape)
        self.epsilon = first.variance_epsilon if hasattr(first, "variance_epsilon") else first.eps
        self.widened = not isinstance(first, nn.RMSNorm)  # transformers computes the norm in float32

    def forward(self, rows: Tensor) -> Tensor:
        wide = rows.float() if self.widened else rows
        return self.scaled(F.rms_norm(wide, self.shape, eps=self.epsilon).to(rows.dtype), len(self.shape))


class ReplicaGroupNorm(ReplicaLayer):
    """``nn.GroupNorm``: weight and bias ``[replicas, channels]``."""

    def __init__(self, layers: Sequence[nn.GroupNorm], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        self.groups, self.epsilon = layers[0].num_groups, layers[0].eps

    def forward(self, rows: Tensor) -> Tensor:
        normal = F.group_norm(rows, self.groups, eps=self.epsilon)
        return self.scaled(normal.movedim(1, -1), 1).movedim(-1, 1)


class ReplicaConv(ReplicaLayer):
    """``nn.Conv1d, 2d, 3d`` as one convolution with groups for every replica: weight ``[replicas, out, in, ...]``."""

    def __init__(self, layers: Sequence[nn.Module], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        first = layers[0]
        self.convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(first.kernel_size)]
        self.stride, self.dilation, self.groups = first.stride, first.dilation, first.groups
        padded = first.padding_mode != "zeros"
        self.padding, self.mode = (0 if padded else first.padding), first.padding_mode
        self.border = list(first._reversed_padding_repeated_twice) if padded else None

    def forward(self, rows: Tensor) -> Tensor:
        if self.border is not None:
            rows = F.pad(rows, self.border, mode=self.mode)
        bias = None if self.bias is None else self.bias.flatten()
        found = self.convolve(
            _to_channels(self.split(rows)), self.weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation,
            self.groups * self.fold.replicas,
        )  # fmt: skip
        return _from_channels(found, self.fold.replicas)


class ReplicaBatchNorm(ReplicaLayer):
    """``nn.BatchNorm1d, 2d, 3d``: every replica has the statistics of its own rows, ``[replicas, channels]``."""

    def __init__(self, layers: Sequence[nn.Module], name: str, fold: Fold, stack: Stack) -> None:
        super().__init__(layers, name, fold, stack)
        first = layers[0]
        self.momentum, self.epsilon = first.momentum, first.eps
        for part in first._buffers:
            known = [layer._buffers[part] for layer in layers]
            self.register_buffer(part, None if known[0] is None else torch.stack(known))

    def forward(self, rows: Tensor) -> Tensor:
        parts = self.split(rows)
        tracked = self.running_mean is not None
        momentum = self.momentum
        if self.training and tracked:
            self.num_batches_tracked += 1
            if momentum is None:  # the plain mean of all batches
                momentum = 1.0 / float(self.num_batches_tracked[0])
        flat = [None if part is None else part.view(-1) for part in
                (self.running_mean, self.running_var, self.weight, self.bias)]  # fmt: skip
        found = F.batch_norm(
            _to_channels(parts), *flat, self.training or not tracked, momentum or 0.0, self.epsilon
        )  # fmt: skip
        return _from_channels(found, len(parts))


def _to_channels(parts: Tensor) -> Tensor:
    """``[replicas, batch, channels, ...] -> [batch, replicas * channels, ...]``."""
    return parts.transpose(0, 1).flatten(1, 2)


def _from_channels(rows: Tensor, replicas: int) -> Tensor:
    """The way back, ``[batch, replicas * channels, ...] -> [replicas * batch, channels, ...]``."""
    return rows.unflatten(1, (replicas, -1)).transpose(0, 1).flatten(0, 1)


def _is_rms_norm(layer: nn.Module) -> bool:
    """Whether ``layer`` is a root-mean-square norm as Llama has it; asked with a probe, since names promise nothing."""
    parameters = dict(layer.named_parameters())
    if list(parameters) != ["weight"] or parameters["weight"].dim() != 1 or not hasattr(layer, "variance_epsilon"):
        return False
    weight = parameters["weight"].detach()
    probe = torch.linspace(-1, 2, weight.numel(), device=weight.device, dtype=weight.dtype).sin()[None]
    with torch.no_grad():
        wanted = weight * F.rms_norm(probe.float(), weight.shape, eps=layer.variance_epsilon).to(weight.dtype)
        return torch.allclose(layer(probe), wanted, rtol=1e-3, atol=1e-5)


_KINDS: dict[tuple[type[nn.Module], ...], type[ReplicaLayer]] = {
    (nn.Linear,): ReplicaLinear,
    (nn.Embedding,): ReplicaEmbedding,
    (nn.LayerNorm,): ReplicaLayerNorm,
    (nn.RMSNorm,): ReplicaRMSNorm,
    (nn.GroupNorm,): ReplicaGroupNorm,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): ReplicaConv,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d): ReplicaBatchNorm,
}
