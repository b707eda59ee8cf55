"""The loss as a series in the error of one layer's output: first order, and the Gauss-Newton second order."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.next_token import logits_of
from workbench.progress import progress
from workbench.quantizers.model_walk import weight_of
from workbench.quantizers.tensor import QuantizedTensor
from workbench.runtime import generator


def taylor_rows(
    model: nn.Module,
    tokens: Tensor,
    names: list[str],
    made: list[Callable[[str], QuantizedTensor]],
    *,
    batch: int,
    seed: int,
    orders: Collection[int],
    label: str,
) -> list[dict[str, Any]]:
    """A row per layer and recipe, as :func:`workbench.quantizers.sensitivity.layer_sensitivity` describes them.

    Args:
        model: in evaluation mode, its parameters without gradients.
        tokens: ``[windows, time + 1]``.
        made: for each recipe, what gives the quantised weight of a layer.
        orders: of the terms that are added up, 1 and 2, each of one backward pass; none tells output errors alone.
    """
    random = generator(seed)
    sums: dict[tuple[str, int], _Sums] = {}
    parts = tokens.split(batch)
    for number, part in enumerate(parts):
        seen = _Seen(model, names)
        logits = seen.forwards(part, backwards=bool(orders))
        if 1 in orders:
            seen.backwards(logits, part[:, 1:].flatten(), 1, keep=2 in orders)
        if 2 in orders:
            # Drawn on the CPU, so that a seed means the same tokens on every device.
            chances = logits.detach().flatten(0, 1).softmax(-1).cpu()
            seen.backwards(logits, torch.multinomial(chances, 1, generator=random)[:, 0].to(part.device), 2)
        del logits
        of = f" of batch {number + 1} of {len(parts)}" if len(parts) > 1 else ""
        for name in progress(names, label=f"{label}: layer{of}"):
            weight = weight_of(model.get_submodule(name)).float()
            inputs, gradients = seen.take(name)
            for place, make in enumerate(made):
                key = (name, place)
                if key not in sums:
                    sums[key] = _Sums()
                sums[key].add(make(name), weight, inputs, gradients)
    return [total.row(name) for (name, _), total in sums.items()]


class _Seen:
    """Inputs of every layer, and the gradients with respect to its output for each order, of one batch."""

    def __init__(self, model: nn.Module, names: list[str]):
        self._model, self._names = model, names
        self._inputs: dict[str, Tensor] = {}
        self._gradients: dict[str, dict[int, Tensor]] = {name: {} for name in names}
        self._order = 0

    def forwards(self, tokens: Tensor, *, backwards: bool) -> Tensor:
        """Logits ``[windows, time, vocab]``, with a graph that ends at the embedding."""
        with ExitStack() as hooks, torch.set_grad_enabled(backwards):
            if backwards:
                # Weights need no gradient here; the graph starts at what the blocks read.
                start = self._model.get_input_embeddings().register_forward_hook(
                    lambda module, args, output: output.detach().requires_grad_()
                )
                hooks.callback(start.remove)
            for name in self._names:
                handle = self._model.get_submodule(name).register_forward_hook(self._watch(name))
                hooks.callback(handle.remove)
            return logits_of(self._model, tokens[:, :-1]).float()

    def backwards(self, logits: Tensor, targets: Tensor, order: int, *, keep: bool = False) -> None:
        """Gradients of the summed loss for the next tokens ``targets [windows * time]``, put down under ``order``."""
        self._order = order
        nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum").backward(retain_graph=keep)

    def take(self, name: str) -> tuple[Tensor, dict[int, Tensor]]:
        """Inputs ``[windows, time, in]`` and gradients ``[windows, time, out]`` by order, which are forgotten here."""
        return self._inputs.pop(name), self._gradients.pop(name)

    def _watch(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._inputs[name] = args[0].detach()
            if output.requires_grad:
                output.register_hook(lambda gradient: self._gradients[name].update({self._order: gradient.detach()}))

        return hook


class _Sums:
    """What one recipe does to one layer, added up over batches."""

    def __init__(self) -> None:
        self._quantised: QuantizedTensor | None = None
        self._windows: list[Tensor] = []
        self._error = self._power = 0.0

    @torch.no_grad()
    def add(self, quantised: QuantizedTensor, weight: Tensor, inputs: Tensor, gradients: dict[int, Tensor]) -> None:
        self._quantised = quantised
        inputs = inputs.float()
        error = inputs @ (quantised.dequantize() - weight).T  # [windows, time, out]
        self._error += float(error.square().sum())
        self._power += float((inputs @ weight.T).square().sum())
        along = {order: (error * gradient.float()).sum(-1) for order, gradient in gradients.items()}
        terms = [along[1]] if 1 in along else []
        if 2 in along:
            terms.append(along[2].square() / 2)
        if terms:
            self._windows.append(sum(terms).double().mean(1))

    def row(self, name: str) -> dict[str, Any]:
        from workbench.quantizers.sensitivity import describe, told

        share = math.sqrt(self._error / self._power) if self._power else (math.inf if self._error else 0.0)
        nats = told(torch.cat(self._windows) if self._windows else None)
        return describe(name, self._quantised) | nats | {"output_error": share}
