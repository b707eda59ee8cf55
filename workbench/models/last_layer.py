"""The layer that turns hidden states into logits, and the hidden states that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.models.next_token import logits_of
from workbench.models.stacked_lm import LeanLM


@dataclass(frozen=True)
class LastLayer:
    """``softcap * tanh((hidden @ weight.T + bias) / softcap)`` are the logits; without a cap, the product."""

    weight: Tensor  # [vocab, width]
    bias: Tensor | None = None  # [vocab]
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., vocab]`` of hidden states ``[..., width]``, in the weight's dtype."""
        found = nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)


def last_layer(model: nn.Module) -> LastLayer:
    """The last layer of a causal language model of transformers or of a :class:`LeanLM`; its tensors, not copies.

    Raises:
        ValueError: a model without a linear output layer.
    """
    if isinstance(model, LeanLM):
        return LastLayer(model.embedding[0])
    layer = _output_layer(model)
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    return LastLayer(layer.weight, layer.bias, getattr(config, "final_logit_softcapping", None))


def last_hidden_states(model: nn.Module, tokens: Tensor, *, check: bool = False) -> Tensor:
    """What the last layer reads, ``[batch, time, width]``, for tokens ``[batch, time]``; gradients flow.

    The logits are made of the last position alone.

    Args:
        check: compare them with what :func:`last_layer` makes of the hidden states.

    Raises:
        ValueError: a model without a linear output layer; with ``check``, one that does more to its logits.
    """
    if isinstance(model, LeanLM):
        return model.hidden_states(tokens)[0]
    seen: list[Tensor] = []

    def catch(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        seen.append(inputs[0])
        return (inputs[0][:, -1:],)

    watch = _output_layer(model).register_forward_pre_hook(catch)
    try:
        own = logits_of(model, tokens)
    finally:
        watch.remove()
    if check:
        check_last_layer(last_layer(model), seen[0][:, -1:], own, name=type(model).__name__)
    return seen[0]


def _output_layer(model: nn.Module) -> nn.Linear:
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"{type(model).__name__} has no linear output layer, so its hidden states do not give its logits: "
            "expected a causal language model of transformers."
        )
    return layer


@torch.no_grad()
def check_last_layer(layer: LastLayer, hidden: Tensor, logits: Tensor, *, name: str) -> None:
    """Raise ``ValueError`` unless ``logits [..., vocab]`` of the model called ``name`` are what ``layer`` makes."""
    found, wanted = layer.logits(hidden).float(), logits.float()
    if not torch.allclose(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().amax())):
        raise ValueError(
            f"{name} does more to its logits than its output layer says, so that its hidden states do not give them: "
            "work with the logits (no hidden states in a TeacherCache, chunked=False in a Trainer)."
        )
