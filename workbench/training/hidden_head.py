"""The last hidden states of a language model and the layer behind them, so that no logits need to be made."""

from __future__ import annotations

import inspect
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Taken:
    """``softcap * tanh((hidden @ weight.T + bias) / softcap)`` are the logits; without a softcap, the product."""

    hidden: Tensor  # [batch, time, width]
    weight: Tensor  # [vocab, width]
    bias: Tensor | None
    softcap: float | None


class HiddenHead:
    """Catches the last hidden states of every forward pass of ``model``, a causal language model of transformers.

    Raises:
        ValueError: the model has no output layer, or always makes the logits of every position.
    """

    def __init__(self, model: nn.Module):
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        layer = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
        base = getattr(inner, getattr(inner, "base_model_prefix", "") or "-", None)
        takes = "logits_to_keep" in inspect.signature(inner.forward).parameters
        if not isinstance(layer, nn.Linear) or base is None or not takes:
            raise ValueError(
                f"{type(inner).__name__} cannot be distilled with chunked=True: that needs a causal language model of "
                "transformers with a linear output layer that knows logits_to_keep."
            )
        self._layer, self._checked, self._hidden = layer, False, None
        config = inner.config.get_text_config()
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._name = type(inner).__name__
        me = weakref.ref(self)

        def catch(_module: nn.Module, _args: tuple, output: object) -> None:
            mine = me()
            if mine is not None:
                mine._hidden = output[0]

        self._hook = base.register_forward_hook(catch)

    def remove(self) -> None:
        """Let go of the model."""
        self._hook.remove()

    def take(self, last_logits: Tensor) -> Taken:
        """What the last forward pass left, which is then forgotten here.

        Args:
            last_logits: ``[batch, 1, vocab]``, the model's own of the last position.

        Raises:
            ValueError: they are not what this layer makes of the hidden states: the model does more.
        """
        hidden, self._hidden = self._hidden, None
        taken = Taken(hidden, self._layer.weight, self._layer.bias, self._softcap)
        if not self._checked:
            with torch.no_grad():
                own = (hidden[:, -1:] @ taken.weight.to(hidden.dtype).T).float()
                if taken.bias is not None:
                    own = own + taken.bias.float()
                if taken.softcap:
                    own = taken.softcap * torch.tanh(own / taken.softcap)
                wanted = last_logits.float()
                if not torch.allclose(own, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max())):
                    raise ValueError(
                        f"{self._name} does more to its logits than its output layer says: use chunked=False."
                    )
            self._checked = True
        return taken
