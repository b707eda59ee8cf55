"""Models cut into stages: inputs -> lower state -> upper state (-> logits)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from workbench.errors import check_between

# Whose layers can be run by hand, checked against the model's own hidden states; others handle masks or
# positions in ways of their own.
SPLITTABLE = ("BertModel", "LlamaModel", "LlamaForCausalLM")


class SplitModel(nn.Module):
    """A model as ordered stages: ``lower`` makes the lower state, ``upper`` the upper one of it, ``head`` logits.

    Args:
        lower, upper: modules ``[batch, ...] -> [batch, hidden]``; both states have the width ``hidden_dim``.
        head: ``[batch, hidden] -> [batch, classes]``; a teacher of another task needs none.
        hidden_dim: width of both states.
        nonnegative: whether both states come out of a ReLU.
    """

    def __init__(
        self, lower: nn.Module, upper: nn.Module, head: nn.Module | None = None, *, hidden_dim: int,
        nonnegative: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.lower, self.upper, self.head = lower, upper, head
        self.hidden_dim, self.nonnegative = hidden_dim, nonnegative

    def states(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper state, each ``[batch, hidden]``.

        Raises:
            ValueError: a state of another width than ``hidden_dim``.
        """
        lower = self.lower(inputs)
        upper = self.upper(lower)
        widths = (lower.shape[-1], upper.shape[-1])
        if widths != (self.hidden_dim, self.hidden_dim):
            raise ValueError(
                f"the states have the widths {widths}, expected both to be hidden_dim={self.hidden_dim}: one encoder "
                "speaks for both; cut the model at layers of one width."
            )
        return lower, upper

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[batch, classes]``.

        Raises:
            ValueError: the model has no head.
        """
        if self.head is None:
            raise ValueError("this model was cut without a head: it has states but no logits.")
        return self.head(self.states(inputs)[1])


def split_mlp(inputs: int, hidden: int, classes: int | None, *, generator: torch.Generator | None = None) -> SplitModel:
    """Two hidden layers with ReLU, ``inputs-hidden-hidden-classes``, cut behind each ReLU.

    Args:
        generator: of the first weights; None takes torch's global stream.
    """

    def linear(wide_in: int, wide_out: int) -> nn.Linear:
        layer = nn.Linear(wide_in, wide_out)
        if generator is not None:
            bound = wide_in**-0.5  # as torch's own initialiser, but from a stream that one can name
            for tensor in (layer.weight, layer.bias):
                nn.init.uniform_(tensor, -bound, bound, generator=generator)
        return layer

    lower, upper = nn.Sequential(linear(inputs, hidden), nn.ReLU()), nn.Sequential(linear(hidden, hidden), nn.ReLU())
    head = None if classes is None else linear(hidden, classes)
    return SplitModel(lower, upper, head, hidden_dim=hidden, nonnegative=True)


class TransformerLayers(nn.Module):
    """Layers ``first + 1`` to ``last`` of a transformers model, run on given hidden states with the model's own mask.

    ``hidden_states[first]`` in gives ``hidden_states[last]`` out, where the model counts its embeddings as number 0.
    Gradients pass through; freeze the parameters where they shall not be trained. The layers are the model's own, not
    copies. Supported are :data:`SPLITTABLE`: of Llama the last state includes the final norm, as in its own output.

    Raises:
        TypeError: a model of another class.
        ValueError: not ``0 <= first < last <=`` the number of layers.
    """

    def __init__(self, model: nn.Module, first: int, last: int):
        super().__init__()
        kind = type(model).__name__
        if kind not in SPLITTABLE:
            raise TypeError(f"model is a {kind}, its layers can be run by hand only for {', '.join(SPLITTABLE)}.")
        inner = model.model if kind == "LlamaForCausalLM" else model
        layers = inner.encoder.layer if kind == "BertModel" else inner.layers
        check_between(0, len(layers), first=first, last=last)
        if first >= last:
            raise ValueError(f"first={first} must be below last={last}: there is no layer between them.")
        self.layers = layers[first:last]
        self.causal = kind != "BertModel"
        self.rotary = inner.rotary_emb if self.causal else None
        self.norm = inner.norm if self.causal and last == len(layers) else None

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """States ``[batch, time, hidden]`` after the last layer; a state ``[batch, hidden]`` is a text of one token.

        Args:
            mask: ``[batch, time]`` bool, True where a token counts; None counts all.
        """
        single = states.dim() == 2
        hidden = states.unsqueeze(1) if single else states
        allowed = self._allowed(hidden, mask)
        extra = {}
        if self.causal:
            positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
            extra = {"position_embeddings": self.rotary(hidden, position_ids=positions), "position_ids": positions}
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=allowed, **extra)
        if self.norm is not None:
            hidden = self.norm(hidden)
        return hidden.squeeze(1) if single else hidden

    def _allowed(self, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
        """What may be attended to, added to the scores: ``[batch, 1, time, time]``, 0 or the lowest number."""
        batch, time = hidden.shape[:2]
        if mask is None and not self.causal:
            return None
        seen = torch.ones(batch, time, dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()
        allowed = seen[:, None, None, :].expand(batch, 1, time, time)
        if self.causal:
            allowed = allowed & torch.ones(time, time, dtype=torch.bool, device=hidden.device).tril()
        return torch.zeros_like(allowed, dtype=hidden.dtype).masked_fill(~allowed, torch.finfo(hidden.dtype).min)


@torch.inference_mode()
def pooled_states(
    model: nn.Module,
    tokenizer: Callable,
    texts: Sequence[str],
    *,
    layers: Sequence[int],
    max_tokens: int = 64,
    batch_size: int = 64,
) -> dict[int, Tensor]:
    """Mean over each text's own tokens of ``hidden_states[layer]``: ``{layer: [texts, hidden]}`` float32.

    Raises:
        TypeError: ``texts`` is one string instead of a list of them.
    """  # fmt: skip
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, got one string: put it into a list.")
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # like lengths together: little padding
    for start in range(0, len(order), batch_size):
        chosen = [texts[index] for index in order[start : start + batch_size]]
        batch = tokenizer(chosen, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        batch = batch.to(model.device)
        found = model(**batch, output_hidden_states=True).hidden_states
        counts = batch["attention_mask"].unsqueeze(-1)
        for layer in layers:
            mean = (found[layer].float() * counts).sum(1) / counts.sum(1).clamp(min=1)
            rows[layer].append(mean.cpu())
    back = torch.tensor(order).argsort()
    return {layer: torch.cat(parts)[back] for layer, parts in rows.items()}
