"""Two models that talk: an encoder and a decoder between a model's hidden state and a space of shared messages."""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from workbench.errors import check_positive

SMALLEST_SCALE = 1e-6  # a unit that never moves is not divided by its spread


class CommunicationModule(nn.Module):
    """The mouth and the ear of one model: hidden state -> message, and message -> hidden state.

    Hidden states are measured in the model's own scale, which :meth:`calibrate` takes from examples, so that
    messages of models with different scales are alike; before that the scale is 1 around 0. It is used in
    training only: what is deployed is the model without it.

    Args:
        hidden_dim: width of the model's hidden state; both of its states have it.
        message_dim: width of a message, the same for both models.
        depth: linear layers of each of the two networks, with a GELU between.
        nonnegative: whether the model's states come out of a ReLU; decoded states then do, too.

    Raises:
        ValueError: a size below 1.

    Source: Osgood and Schramm's model of communication as in "Talking Models" (arXiv 2310.03188); the paper
    published no code, so the networks here are a reconstruction.
    """

    def __init__(self, hidden_dim: int, message_dim: int, depth: int = 1, *, nonnegative: bool = False):
        check_positive(hidden_dim=hidden_dim, message_dim=message_dim, depth=depth)
        super().__init__()
        self.hidden_dim, self.message_dim, self.nonnegative = hidden_dim, message_dim, nonnegative
        self.encoder = _network(hidden_dim, message_dim, depth)
        self.decoder = _network(message_dim, hidden_dim, depth)
        self.register_buffer("centre", torch.zeros(1, hidden_dim))
        self.register_buffer("scale", torch.ones(1, hidden_dim))

    def encode(self, hidden: Tensor) -> Tensor:
        """Messages ``[batch, message]`` of hidden states ``[batch, hidden]``.

        Raises:
            ValueError: another width than ``hidden_dim``.
        """
        self._check("hidden", hidden, self.hidden_dim)
        return self.encoder((hidden - self.centre) / self.scale)

    def decode(self, message: Tensor) -> Tensor:
        """Hidden states ``[batch, hidden]``, in the model's own scale and range, of messages ``[batch, message]``.

        Raises:
            ValueError: another width than ``message_dim``.
        """
        self._check("message", message, self.message_dim)
        hidden = self.centre + self.scale * self.decoder(message)
        return hidden.relu() if self.nonnegative else hidden

    @torch.no_grad()
    def calibrate(self, hidden: Tensor) -> Self:
        """Take centre and scale of every unit from example states ``[examples, hidden]``."""
        self._check("hidden", hidden, self.hidden_dim)
        flat = hidden.flatten(0, -2).float()
        spread = flat.std(0, correction=0)
        # A unit of a ReLU that hardly ever fires would else be blown up: no scale below a tenth of the layer's.
        floor = (0.1 * spread.square().mean().sqrt()).clamp(min=SMALLEST_SCALE)
        self.centre.copy_(flat.mean(0, keepdim=True))
        self.scale.copy_(spread.clamp(min=floor).unsqueeze(0))
        return self

    @property
    def parameter_count(self) -> int:
        """Weights of both networks: what a control must have as well."""
        return sum(tensor.numel() for tensor in self.parameters())

    def _check(self, name: str, tensor: Tensor, width: int) -> None:
        if tensor.shape[-1] != width:
            raise ValueError(
                f"{name} has width {tensor.shape[-1]}, this module was made for {width}: make one "
                "CommunicationModule per model, with that model's width."
            )


def _network(wide_in: int, wide_out: int, depth: int) -> nn.Sequential:
    # Inner layers are as wide as the larger end, so that depth never narrows the way.
    inner = max(wide_in, wide_out)
    widths = [wide_in, *[inner] * (depth - 1), wide_out]
    layers: list[nn.Module] = []
    for index, (left, right) in enumerate(pairwise(widths)):
        layers += [nn.GELU()] * (index > 0) + [nn.Linear(left, right)]
    return nn.Sequential(*layers)
