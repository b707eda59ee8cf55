"""Many modules of one architecture as one module: what one operation costs is paid once for all of them.

The replicas lie side by side in the batch axis, so that the module's own forward runs unchanged; only its layers
that have weights are replaced (:mod:`workbench.models.replica_layers`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from workbench.models.next_token import logits_of
from workbench.models.replica_layers import Fold, clip_each, replica_layer

TOLERANCE = 2e-3  # of the largest entry of an answer; what is not the same computation misses by far more

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Replicas(nn.Module):
    """``modules`` of one architecture as one: each answers its own batch with its own weights.

    Linear, embedding, convolution, layer, root-mean-square, group and batch norm have a form for replicas, tied
    weights stay tied. The first call compares the first and the last replica with those modules alone, so that a
    module which mixes the rows of a batch is found out. The modules are copied: :meth:`write_back` returns what
    was learned.

    Raises:
        ValueError: no module, modules of different build, or a layer that cannot hold replicas (it is named).
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        if not modules:
            raise ValueError("modules is empty: give at least one module.")
        _check_alike(modules)
        self.replicas = len(modules)
        self.matrix_dimensions = 1 + getattr(modules[0], "matrix_dimensions", 2)  # weight decay looks at it
        self.fold = Fold(self.replicas)
        self._plain = [copy.deepcopy(modules[0])]  # in a list: it is no part of this module
        self._checked = False
        skeleton = copy.deepcopy(modules[0])
        self.module = _Build(self, [skeleton, *modules[1:]]).convert("")
        self._dropouts = [(name, part) for name, part in self.module.named_modules() if isinstance(part, DROPOUTS)]
        self.train(modules[0].training)

    def forward(self, *inputs: Any) -> Any:
        """The module's output with every tensor ``[replicas, batch, ...]``, for tensors ``[replicas, batch, ...]``.

        A transformers output gives its logits. What is no tensor is handed on as it is.
        """
        tensors = [part for part in inputs if isinstance(part, Tensor)]
        if not tensors or any(part.dim() < 2 or part.shape[:2] != tensors[0].shape[:2] for part in tensors):
            shapes = ", ".join(str(tuple(part.shape)) for part in tensors) or "no tensor"
            raise ValueError(f"expected tensors [replicas, batch, ...] of one batch size, got {shapes}.")
        if tensors[0].shape[0] != self.replicas:
            raise ValueError(f"the inputs are for {tensors[0].shape[0]} replicas, but there are {self.replicas}.")
        self._refuse_dropout()
        self.fold.batch = tensors[0].shape[1]
        if not self._checked:
            self._compare_with_modules_alone(inputs)
        return self._answer(self.module, [_map(part, lambda tensor: tensor.flatten(0, 1)) for part in inputs], True)

    def replica(self, index: int) -> nn.Module:
        """A copy of one replica as the module that it was, with the weights of now."""
        module, like = copy.deepcopy(self._plain[0]), next(self.parameters())
        known = next(module.parameters())
        if (known.device, known.dtype) != (like.device, like.dtype):  # the stack was moved since
            module.to(device=like.device, dtype=like.dtype)
        self._copy_into(module, index)
        return module.train(self.training)

    def write_back(self, modules: Sequence[nn.Module]) -> None:
        """Give ``modules``, in the order of the replicas, the weights and statistics of now."""
        for index, module in enumerate(modules):
            self._copy_into(module, index)

    def clip_gradients(self, limit: float) -> None:
        """Scale the gradient of every replica to a norm of ``limit`` or less, each by itself."""
        clip_each([tensor for tensor in self.parameters() if tensor.requires_grad], limit)

    @torch.no_grad()
    def _copy_into(self, module: nn.Module, index: int) -> None:
        mine = self.module.state_dict()
        for name, tensor in module.state_dict().items():
            known = mine[name]
            tensor.copy_(known[index] if known.dim() > tensor.dim() else known)

    def _answer(self, module: nn.Module, inputs: list[Any], folded: bool) -> Any:
        if len(inputs) == 1 and hasattr(module, "get_output_embeddings"):  # a language model of transformers
            outputs = logits_of(module, inputs[0])
        else:
            outputs = module(*inputs)
            outputs = getattr(outputs, "logits", outputs)
        return _map(outputs, self._unfold) if folded else outputs

    def _unfold(self, rows: Tensor) -> Tensor:
        if not rows.dim() or rows.shape[0] % (self.replicas * self.fold.batch):
            raise ValueError(
                f"the module's output has the shape {tuple(rows.shape)}, in which the batch is not kept: "
                "replicas need an answer per row; train such models one by one with fit."
            )
        return rows.unflatten(0, (self.replicas, -1))

    def _refuse_dropout(self) -> None:
        for name, part in self._dropouts:
            if part.training and part.p > 0:
                raise ValueError(
                    f"{name} drops with p={part.p:g}: side by side, replicas would draw other numbers than alone; "
                    "set p to 0, or train such models one by one with fit."
                )

    @torch.no_grad()
    def _compare_with_modules_alone(self, inputs: Sequence[Any]) -> None:
        """Raise unless the first and the last replica answer as they would alone; statistics stay as they were."""
        self._checked = True
        before = {name: buffer.clone() for name, buffer in self.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            together = self.forward(*inputs)
            same = all(self._answers_alike(index, inputs, together) for index in {0, self.replicas - 1})
        for name, buffer in self.named_buffers():  # batch norm has counted this batch
            buffer.copy_(before[name])
        if not same:
            self._checked = False
            raise ValueError(
                f"a replica does not answer as its {type(self._plain[0]).__name__} does alone: it mixes the rows of a "
                "batch, draws random numbers, or uses weights outside their layers; train such models one by one "
                "with fit."
            )

    def _answers_alike(self, index: int, inputs: Sequence[Any], together: Any) -> bool:
        module = self.replica(index)
        alone = self._answer(module, [_map(part, lambda tensor: tensor[index]) for part in inputs], False)
        for one, everything in zip(_tensors(alone), _tensors(together), strict=True):
            wanted, got = one.double(), everything[index].double()
            size = float(wanted.nan_to_num(posinf=0.0, neginf=0.0).abs().amax().clamp(min=1e-6))
            narrow = torch.is_autocast_enabled(one.device.type) or one.dtype.itemsize == 2
            tolerance = size * (0.1 if narrow else TOLERANCE)
            if wanted.shape != got.shape or not torch.allclose(got, wanted, rtol=0, atol=tolerance, equal_nan=True):
                return False
        return True


class _Build:
    """Turns the first module into the stack, the others beside it."""

    def __init__(self, owner: Replicas, modules: list[nn.Module]) -> None:
        self.owner, self.modules = owner, modules
        self.stacked: dict[int, nn.Parameter] = {}  # by the identity of the first module's parameter: ties stay ties
        self.ties: dict[int, tuple[int, ...]] = {}
        self.done: dict[int, nn.Module] = {}

    def convert(self, name: str) -> nn.Module:
        """The module called ``name`` for all replicas."""
        parts = [module.get_submodule(name) for module in self.modules]
        first, called = parts[0], name or type(parts[0]).__name__
        if id(first) in self.done:
            return self.done[id(first)]
        if is_parametrized(first) or any(part is not None for part in first._parameters.values()):
            built = None if is_parametrized(first) else replica_layer(parts, called, self.owner.fold, self._stack)
            if built is None:
                listed = ", ".join(first._parameters) or "parametrised weights"
                raise ValueError(
                    f"{called} is a {type(first).__name__} with weights of its own ({listed}), for which there is no "
                    "form for replicas: train such models one by one with fit."
                )
            self.done[id(first)] = built
            return built
        _check_buffers(parts, called)
        self.done[id(first)] = first
        for child in list(first._modules):
            if first._modules[child] is not None:
                setattr(first, child, self.convert(f"{name}.{child}" if name else child))
        return first

    def _stack(self, tensors: Sequence[Tensor | None]) -> nn.Parameter | None:
        first = tensors[0]
        if first is None:
            return None
        tie = tuple(id(tensor) for tensor in tensors)
        if self.ties.setdefault(id(first), tie) != tie:
            raise ValueError("the modules tie their weights differently: build all of them in one way.")
        if id(first) not in self.stacked:
            together = torch.stack([tensor.detach() for tensor in tensors])
            self.stacked[id(first)] = nn.Parameter(together, requires_grad=first.requires_grad)
        return self.stacked[id(first)]


def _check_alike(modules: Sequence[nn.Module]) -> None:
    def build(module: nn.Module) -> tuple[str, list]:
        return str(module), [
            (name, tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad)
            for name, tensor in module.named_parameters()
        ]

    first = build(modules[0])
    for place, module in enumerate(modules[1:], start=1):
        if build(module) != first:
            raise ValueError(
                f"module {place} is built differently from the first: replicas share architecture, shapes, dtype, "
                "device and which weights are trained; train each kind by itself."
            )


def _check_buffers(parts: Sequence[nn.Module], name: str) -> None:
    for key, buffer in parts[0]._buffers.items():
        others = [part._buffers[key] for part in parts[1:]]
        if buffer is not None and any(not torch.equal(buffer, other) for other in others):
            raise ValueError(f"{name} has the buffer {key}, which differs between modules: replicas would share it.")


def _map(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``value`` with every tensor in it changed; tuples, lists and mappings are gone through."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_map(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(value, found.append)
    return found
