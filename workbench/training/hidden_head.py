"""The last hidden states of a language model and the layer behind them, so that no logits need to be made."""

from __future__ import annotations

import inspect
import weakref

from torch import Tensor, nn

from workbench.models.last_layer import LastLayer, check_last_layer, last_layer


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
        self._model, self._checked, self._hidden = inner, False, None
        me = weakref.ref(self)

        def catch(_module: nn.Module, _args: tuple, output: object) -> None:
            mine = me()
            if mine is not None:
                mine._hidden = output[0]

        self._hook = base.register_forward_hook(catch)

    def remove(self) -> None:
        """Let go of the model."""
        self._hook.remove()

    def take(self, last_logits: Tensor) -> tuple[Tensor, LastLayer]:
        """What the last forward pass left ``[batch, time, width]``, then forgotten here, and the layer behind it.

        Args:
            last_logits: ``[batch, 1, vocab]``, the model's own of the last position.

        Raises:
            ValueError: they are not what this layer makes of the hidden states: the model does more.
        """
        hidden, self._hidden = self._hidden, None
        layer = last_layer(self._model)
        if not self._checked:
            check_last_layer(layer, hidden[:, -1:], last_logits, name=type(self._model).__name__)
            self._checked = True
        return hidden, layer
