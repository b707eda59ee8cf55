"""What methods need to know of a layer's inputs, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from workbench.quantizers.hessian import HessianAccumulator
from workbench.quantizers.recipes import LayerRecipe

# Inputs that a search over scales or clips is judged by (AWQ's released code takes 512). A prime: a step that divides
# the length of a sequence would meet the same places of each, and the first is not like the others, it draws all
# attention, with inputs a thousand times as large, and would decide every search.
SAMPLES = 509
WANT_HESSIAN = ("gptq", "spqr")
WANT_SAMPLES = ("awq", "smoothquant")


class LayerInputs:
    """Inputs of layers that read one tensor: their Hessian, some of them, and their largest magnitudes.

    Args:
        width: inputs of the layers.
        rules: what is to be done to them; only what these need is gathered.
        tokens: how many inputs will come; 509 of them are kept, evenly, so that no seed is needed.
        layer: name that errors are told with.
    """

    def __init__(
        self,
        width: int,
        rules: Iterable[LayerRecipe],
        *,
        tokens: int,
        layer: str = "",
        device: torch.device | str = "cpu",
    ):
        methods = {rule.method for rule in rules}
        wanted = bool(methods & set(WANT_HESSIAN))
        self.hessian = HessianAccumulator(width, layer=layer, device=device) if wanted else None
        self._sampled = bool(methods & set(WANT_SAMPLES))
        self._tokens = tokens
        self._seen = 0
        self._kept: list[Tensor] = []
        self._absmax: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        """Take in ``inputs [tokens, width]``."""
        if self.hessian is not None:
            self.hessian.add(inputs)
        if self._sampled:
            ends = torch.arange(self._seen, self._seen + len(inputs) + 1) * SAMPLES // self._tokens
            wanted = ends.diff() > 0
            self._kept.append(inputs[wanted.to(inputs.device)].float())
            largest = inputs.abs().amax(0).float()
            self._absmax = largest if self._absmax is None else torch.maximum(self._absmax, largest)
        self._seen += inputs.shape[0]

    @property
    def samples(self) -> Tensor:
        """Float32 ``[at most 509, width]``, evenly spread over all inputs."""
        return torch.cat(self._kept)

    @property
    def absmax(self) -> Tensor:
        """Float32 ``[width]``: the largest magnitude of each input over all tokens."""
        return self._absmax
