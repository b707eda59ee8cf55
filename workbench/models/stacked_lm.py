"""Many small language models of one size as one: every operation serves all of them at once.

A model of some thousand parameters spends its time between operations, not in them. Stacking the
weights of the replicas shares that overhead; each replica computes what it would compute alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_positive
from workbench.models.replica_layers import clip_each
from workbench.models.small_lm import ModelSize, weight_shapes

ROPE_THETA = 10_000.0  # both are the defaults of LlamaConfig
NORM_EPSILON = 1e-6


class StackedLM(nn.Module):
    """Replicas of one :class:`ModelSize` and vocabulary, each given by its weights; held as ``[replicas, out, in]``.

    Its logits equal those of :func:`workbench.models.small_lm.llama` with the same weights, to rounding.
    It does not need transformers, whose import takes longer than training such a model.

    Raises:
        ValueError: no replica, or one whose weights are not of ``size``.
    """

    matrix_dimensions = 3  # a weight matrix has the replicas' axis in front; weight decay looks at it

    def __init__(self, replicas: Sequence[Mapping[str, Tensor]], size: ModelSize, *, context: int) -> None:
        super().__init__()
        check_positive(replicas=len(replicas), context=context)
        wanted = weight_shapes(len(replicas[0]["model.embed_tokens.weight"]), size)
        for weights in replicas:
            if {name: tuple(weight.shape) for name, weight in weights.items()} != wanted:
                raise ValueError(f"a replica's weights are not those of size {size}: stack each size by itself.")
        self.size, self.replicas, self.names = size, len(replicas), list(wanted)
        self.weights = nn.ParameterList(
            torch.stack([weights[name].detach() for weights in replicas]) for name in self.names
        )
        cosine, sine = _rotary(context, size.head_width)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    @property
    def embedding(self) -> Tensor:
        """The weight of the first and the last layer, ``[replicas, vocab, width]``."""
        return self.weights[self.names.index("model.embed_tokens.weight")]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[replicas, batch, time, vocab]`` of tokens ``[batch, time]`` or ``[replicas, batch, time]``."""
        hidden = self.hidden_states(tokens)
        return torch.bmm(hidden.flatten(1, 2), self.embedding.mT).view(*hidden.shape[:3], -1)

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """What the last layer reads, ``[replicas, batch, time, width]``; tokens as in :meth:`forward`."""
        weights = dict(zip(self.names, self.weights, strict=True))
        embedding = self.embedding
        if tokens.dim() == 2:
            tokens = tokens.expand(self.replicas, *tokens.shape)
        replicas, batch, time = tokens.shape
        rows = tokens + torch.arange(replicas, device=tokens.device)[:, None, None] * embedding.shape[1]
        hidden = F.embedding(rows.reshape(replicas, batch * time), embedding.flatten(0, 1))
        for layer in range(self.size.layers):
            part = {
                name.split(".", 3)[3]: weights[name] for name in self.names if name.startswith(f"model.layers.{layer}.")
            }
            hidden = self._block(hidden, part, batch, time)
        return self._normalise(hidden, weights["model.norm.weight"]).view(replicas, batch, time, -1)

    def _block(self, hidden: Tensor, part: dict[str, Tensor], batch: int, time: int) -> Tensor:
        normal = self._normalise(hidden, part["input_layernorm.weight"])
        three = torch.cat([part[f"self_attn.{kind}_proj.weight"] for kind in "qkv"], dim=1)
        query, key, value = (
            torch.bmm(normal, three.mT)
            .view(self.replicas * batch, time, 3, self.size.heads, self.size.head_width)
            .permute(2, 0, 3, 1, 4)
        )  # each [replicas * batch, heads, time, head_width]
        query, key = self._rotate(query), self._rotate(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(self.replicas, batch * time, -1)
        hidden = torch.baddbmm(hidden, mixed, part["self_attn.o_proj.weight"].mT)
        normal = self._normalise(hidden, part["post_attention_layernorm.weight"])
        both = torch.cat([part["mlp.gate_proj.weight"], part["mlp.up_proj.weight"]], dim=1)
        gate, up = torch.bmm(normal, both.mT).chunk(2, dim=-1)
        return torch.baddbmm(hidden, F.silu(gate) * up, part["mlp.down_proj.weight"].mT)

    def _normalise(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON) * weight[:, None]

    def _rotate(self, heads: Tensor) -> Tensor:
        time = heads.shape[-2]
        first, second = heads.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return heads * self.cosine[:time] + turned * self.sine[:time]

    def clip_gradients(self, limit: float) -> None:
        """Scale the gradient of every replica to norm ``limit`` or less, each by itself."""
        clip_each(list(self.weights), limit)

    def replica(self, index: int) -> dict[str, Tensor]:
        """The weights of one replica by name, copied."""
        return {name: weight[index].detach().clone() for name, weight in zip(self.names, self.weights, strict=True)}


class LeanLM(StackedLM):
    """One model alone in a stack; logits ``[batch, time, vocab]``."""

    def __init__(self, weights: Mapping[str, Tensor], size: ModelSize, *, context: int) -> None:
        super().__init__([weights], size, context=context)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[batch, time, vocab]`` of tokens ``[batch, time]``."""
        return super().forward(tokens)[0]


def _rotary(context: int, head_width: int) -> tuple[Tensor, Tensor]:
    frequency = ROPE_THETA ** -(torch.arange(0, head_width, 2).float() / head_width)
    angle = torch.outer(torch.arange(context).float(), frequency).repeat(1, 2)
    return angle.cos(), angle.sin()
