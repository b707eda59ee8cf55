"""What every language model answers: logits, and the loss of predicting the next token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits ``[..., vocab]`` of a plain module or of a transformers model (whose outputs carry ``.logits``)."""
    if hasattr(model, "config") and hasattr(model, "get_output_embeddings"):
        return model(input_ids=inputs, use_cache=False).logits
    outputs = model(inputs)
    return getattr(outputs, "logits", outputs)


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy (nats per token) of predicting every next token of ``batch`` ``[batch, time + 1]``."""
    logits = logits_of(model, batch[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, -2), batch[:, 1:].flatten())
