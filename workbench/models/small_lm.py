"""Small Llama language models: 10^4 to 10^7 parameters, tied embeddings, seeded weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import check_positive
from workbench.runtime import generator, seeded

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

HEAD_WIDTH = 16  # one head width for a whole family, so that pruning can hand whole heads to a smaller model


@dataclass(frozen=True)
class ModelSize:
    """Shape of a decoder; ``feed_forward`` defaults to 8/3 of the width, as gated layers have it.

    Raises:
        ValueError: a size below 1, or heads that do not divide the width into even parts (rotary pairs).
    """

    width: int  # channels of the residual stream
    layers: int  # decoder blocks
    heads: int  # attention heads per block
    feed_forward: int | None = None  # neurons per block; None = 8/3 width, rounded up to a multiple of 8
    head_width: int | None = None  # channels per head; None = width / heads

    def __post_init__(self) -> None:
        check_positive(width=self.width, layers=self.layers, heads=self.heads)
        if self.head_width is None:
            if self.width % self.heads:
                raise ValueError(
                    f"width={self.width} is not a multiple of heads={self.heads}: every head must be full."
                )
            object.__setattr__(self, "head_width", self.width // self.heads)
        if self.head_width % 2:
            raise ValueError(
                f"a head is {self.head_width} channels wide: rotary positions need an even number, "
                "choose heads or head_width accordingly."
            )
        if self.feed_forward is None:
            object.__setattr__(self, "feed_forward", -(-8 * self.width // 24) * 8)
        check_positive(feed_forward=self.feed_forward, head_width=self.head_width)

    @property
    def name(self) -> str:
        """A short label, e.g. ``64x2``: width times layers."""
        return f"{self.width}x{self.layers}"

    def parameters(self, vocab_size: int, *, embeddings: bool = True) -> int:
        """How many parameters :func:`small_lm` of this size has, without building it."""
        attention = 4 * self.width * self.heads * self.head_width
        block = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return self.layers * block + self.width + (vocab_size * self.width if embeddings else 0)


def is_size_name(name: str) -> bool:
    """Whether ``name`` has the form ``64x2``."""
    return re.fullmatch(r"\d+x\d+", name) is not None


def named_size(name: str) -> ModelSize:
    """The size called ``64x2``, width times layers, with heads of 16 (one narrower head below that).

    Raises:
        ValueError: another form, or a width above 16 that is not a multiple of 16.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", name)
    if match is None:
        raise ValueError(f"size {name!r} is not of the form width x layers, such as '64x2'.")
    width, layers = map(int, match.groups())
    return ModelSize(width, layers, heads=max(1, width // HEAD_WIDTH))


def initial_weights(vocab_size: int, size: ModelSize, *, seed: int) -> dict[str, Tensor]:
    """Fresh weights by their name in a transformers Llama: normal, norms at 1; they depend on ``seed`` alone.

    The tied output layer is left out.
    """
    random = generator(seed)
    # The usual 0.02 is meant for widths of thousands; narrow models start far too flat with it.
    spread = size.width**-0.5 / 2
    return {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=random) * spread
        for name, shape in weight_shapes(vocab_size, size).items()
    }


def weight_shapes(vocab_size: int, size: ModelSize) -> dict[str, tuple[int, ...]]:
    """Shape ``[out, in]`` of every weight of a Llama of this size, in the order of its parameters."""
    inside = size.heads * size.head_width
    block = {
        "self_attn.q_proj": (inside, size.width),
        "self_attn.k_proj": (inside, size.width),
        "self_attn.v_proj": (inside, size.width),
        "self_attn.o_proj": (size.width, inside),
        "mlp.gate_proj": (size.feed_forward, size.width),
        "mlp.up_proj": (size.feed_forward, size.width),
        "mlp.down_proj": (size.width, size.feed_forward),
        "input_layernorm": (size.width,),
        "post_attention_layernorm": (size.width,),
    }
    layers = {f"model.layers.{layer}.{part}": shape for layer in range(size.layers) for part, shape in block.items()}
    shapes = {"model.embed_tokens": (vocab_size, size.width), **layers, "model.norm": (size.width,)}
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def small_lm(vocab_size: int, size: ModelSize, *, context: int, seed: int) -> LlamaForCausalLM:
    """A fresh Llama decoder with tied embeddings and the weights of :func:`initial_weights`.

    Raises:
        ValueError: a vocabulary or context below 1.
    """
    check_positive(vocab_size=vocab_size, context=context)
    return llama(initial_weights(vocab_size, size, seed=seed), size, context=context).train()


def llama(weights: Mapping[str, Tensor], size: ModelSize, *, context: int) -> LlamaForCausalLM:
    """The transformers model that has ``weights``, in evaluation mode.

    Raises:
        ValueError: weights that are not those of this size.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    vocab_size = len(weights["model.embed_tokens.weight"])
    wanted = weight_shapes(vocab_size, size)
    if {name: tuple(weight.shape) for name, weight in weights.items()} != wanted:
        raise ValueError(f"the weights are not those of a model of size {size}.")
    config = LlamaConfig(**llama_config(vocab_size, size, context=context), attn_implementation="sdpa")
    with seeded(0):  # drawing weights that are written over must not move the caller's stream
        model = LlamaForCausalLM(config)
    model.load_state_dict(dict(weights), strict=False)
    return model.eval()


def llama_config(vocab_size: int, size: ModelSize, *, context: int) -> dict[str, Any]:
    """What ``LlamaConfig`` is told of a small model; nothing here needs transformers."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": size.width,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.head_width,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "use_cache": False,
    }


def size_of(model: LlamaForCausalLM) -> ModelSize:
    """The :class:`ModelSize` of a Llama model."""
    return size_in(model.config)


def size_in(config: LlamaConfig) -> ModelSize:
    """The :class:`ModelSize` that a Llama's configuration tells.

    Raises:
        ValueError: the configuration of another kind of model.
    """
    if config.model_type != "llama":
        raise ValueError(f"a {config.model_type} model has another build than the Llama whose size is wanted here.")
    return ModelSize(
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.head_dim,
    )


def count_parameters(model: nn.Module, *, embeddings: bool = True) -> int:
    """Parameters of ``model``, each tensor once; without ``embeddings``, those of ``nn.Embedding`` are left out.

    A tied output layer counts as the embedding it shares; an untied one is an embedding too.
    """
    left_out: set[int] = set()
    if not embeddings:
        left_out = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        output = getattr(model, "get_output_embeddings", lambda: None)()
        if output is not None:
            left_out.add(id(output.weight))
    return sum(tensor.numel() for tensor in model.parameters() if id(tensor) not in left_out)


def size_for(parameters: int, vocab_size: int, *, embeddings: bool = True) -> ModelSize:
    """The size whose parameter count lies nearest to ``parameters``: heads of 16, width 24 to 32 times the depth.

    Width and depth come in steps; the neurons of the feed-forward layers (1 to 4 times the width, near 8/3
    where there is a choice) make up the rest.

    Raises:
        ValueError: clearly fewer parameters than the smallest model has with this vocabulary.
    """
    check_positive(parameters=parameters, vocab_size=vocab_size)
    candidates = [
        _with_neurons(parameters, vocab_size, width, layers, embeddings)
        for width in (8, *range(16, 1025, 16))
        for layers in {max(1, round(width / 32)), max(1, round(width / 24))}
    ]

    def distance(size: ModelSize) -> tuple[int, float]:
        error = abs(math.log(size.parameters(vocab_size, embeddings=embeddings) / parameters))
        return math.floor(error / 0.02), abs(math.log(size.feed_forward / size.width / (8 / 3)))

    best = min(candidates, key=distance)
    if best.parameters(vocab_size, embeddings=embeddings) > 1.5 * parameters:
        smallest = min(size.parameters(vocab_size, embeddings=embeddings) for size in candidates)
        raise ValueError(
            f"parameters={parameters} is too few: the smallest model over a vocabulary of {vocab_size} has {smallest}."
        )
    return best


def _with_neurons(parameters: int, vocab_size: int, width: int, layers: int, embeddings: bool) -> ModelSize:
    heads, head_width = max(1, width // HEAD_WIDTH), min(width, HEAD_WIDTH)
    least = ModelSize(width, layers, heads, 1, head_width).parameters(vocab_size, embeddings=embeddings)
    neurons = 1 + round((parameters - least) / (3 * width * layers))
    return ModelSize(width, layers, heads, min(max(neurons, width), 4 * width), head_width)
