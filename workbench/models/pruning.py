"""Structured pruning: a smaller Llama made of the heads, neurons and channels that a larger one needs most."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import check_between
from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, size_in, size_of
from workbench.runtime import seeded

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Importance:
    """Mean ``|d loss / d mask|`` over the calibration batches, masks being 1."""

    heads: Tensor  # [layers, heads], each layer scaled to L2 norm 1
    neurons: Tensor  # [layers, feed_forward]
    channels: Tensor  # [width], one mask for the residual stream of all layers
    layers: Tensor  # [layers], one mask for all that a block adds


def structured_prune(
    model: LlamaForCausalLM,
    target: ModelSize | float,
    calibration: Iterable[Any],
    *,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> LlamaForCausalLM:
    """A new model of the target size with the most important parts of ``model``, which is left untouched.

    Importance and per-axis sparsity follow MiniMA's code (Zhang et al. 2025, "Towards the Law of Capacity
    Gap in Distilling Language Models"). Differences: the paper ranks heads and neurons over all layers
    together, which gives layers of different sizes; a transformers Llama has one size for all, so every
    layer keeps its own top heads and neurons. A target with fewer layers drops the blocks of least
    importance (the paper prunes width only).

    Args:
        target: a :class:`ModelSize` (head width as in ``model``), or a sparsity in percent from 0 to below 100.
        calibration: batches for ``loss``.
        loss: ``loss(model, batch) -> scalar``; by default next-token cross-entropy of windows ``[batch, time + 1]``.

    Raises:
        ValueError: a target larger than the model, another head width, fewer heads of a model whose heads share
            keys and values, not a Llama, or no calibration batch.
    """
    size = size_of(model)
    wanted = target if isinstance(target, ModelSize) else sparser(size, float(target))
    check_prunable(model.config, wanted)
    found = importance(model, calibration, loss=loss)
    layers = _top(found.layers, wanted.layers)
    channels = _top(found.channels, wanted.width)
    smaller = _empty(model, wanted)
    with torch.no_grad():
        smaller.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight[:, channels])
        smaller.lm_head.weight.copy_(model.lm_head.weight[:, channels])
        smaller.model.norm.weight.copy_(model.model.norm.weight[channels])
        for new, index in zip(smaller.model.layers, layers.tolist(), strict=True):
            heads = _top(found.heads[index], wanted.heads)
            within = torch.arange(size.head_width, device=heads.device)
            rows = (heads[:, None] * size.head_width + within).flatten()
            neurons = _top(found.neurons[index], wanted.feed_forward)
            _copy_block(model.model.layers[index], new, rows, neurons, channels)
    return smaller.to(model.device, model.dtype).train(model.training)


def axis_sparsity(sparsity: float) -> int:
    """Percent to take off each of two axes whose product loses ``sparsity``: 100 - round(100 sqrt(1 - s / 100))."""
    check_between(0, 100, sparsity=sparsity)
    return 100 - round(100 * (1 - sparsity / 100) ** 0.5)


def sparser(size: ModelSize, sparsity: float) -> ModelSize:
    """``size`` with about ``sparsity`` percent of the weights of its blocks gone.

    Above 90 percent per axis heads stay at 90 and 4/3 of the rest is taken from neurons, as MiniMA does.
    """
    check_between(0, 99.9, sparsity=sparsity)
    per_axis = axis_sparsity(sparsity)
    heads = min(per_axis, 90)
    neurons = per_axis if per_axis <= 90 else min(99.0, per_axis + (per_axis - 90) / 3)

    def keep(count: int, percent: float) -> int:
        return max(1, round(count * (1 - percent / 100)))

    return ModelSize(
        keep(size.width, per_axis),
        size.layers,
        keep(size.heads, heads),
        keep(size.feed_forward, neurons),
        size.head_width,
    )


def importance(
    model: LlamaForCausalLM, calibration: Iterable[Any], *, loss: Callable[[nn.Module, Any], Tensor] | None = None
) -> Importance:
    """How much each part matters: mean over batches of ``|d loss / d mask|`` (Michel et al. 2019; MiniMA).

    Raises:
        ValueError: no calibration batch.
    """
    loss = next_token_loss if loss is None else loss
    size, device = size_of(model), model.device
    masks = {
        "heads": torch.ones(size.layers, size.heads, device=device, requires_grad=True),
        "neurons": torch.ones(size.layers, size.feed_forward, device=device, requires_grad=True),
        "channels": torch.ones(size.width, device=device, requires_grad=True),
        "layers": torch.ones(size.layers, device=device, requires_grad=True),
    }
    sums, batches = {name: torch.zeros_like(mask) for name, mask in masks.items()}, 0
    was_training = model.training
    model.eval()
    with _masked(model, masks):
        for batch in calibration:
            # autograd.grad leaves the .grad of the model's weights alone.
            slopes = torch.autograd.grad(loss(model, batch), list(masks.values()))
            for name, slope in zip(masks, slopes, strict=True):
                sums[name] += slope.abs()
            batches += 1
    model.train(was_training)
    if not batches:
        raise ValueError("calibration gave no batch: importance needs at least one.")
    mean = {name: total.detach() / batches for name, total in sums.items()}
    norm = mean["heads"].norm(dim=1, keepdim=True).clamp(min=1e-20)
    return Importance(mean["heads"] / norm, mean["neurons"], mean["channels"], mean["layers"])


@contextmanager
def _masked(model: LlamaForCausalLM, masks: dict[str, Tensor]) -> Iterator[None]:
    hooks = [model.model.embed_tokens.register_forward_hook(lambda _m, _i, output: output * masks["channels"])]
    width = model.config.head_dim

    def on_inputs(kind: str, layer: int, repeat: int) -> Callable[..., Any]:
        return lambda _m, inputs: (inputs[0] * masks[kind][layer].repeat_interleave(repeat),)

    def on_output(layer: int) -> Callable[..., Any]:
        # All that a block adds to the stream passes here, so the one channel mask covers the whole stream.
        return lambda _m, _i, output: output * masks["channels"] * masks["layers"][layer]

    for index, block in enumerate(model.model.layers):
        hooks += [
            block.self_attn.o_proj.register_forward_pre_hook(on_inputs("heads", index, width)),
            block.mlp.down_proj.register_forward_pre_hook(on_inputs("neurons", index, 1)),
            block.self_attn.o_proj.register_forward_hook(on_output(index)),
            block.mlp.down_proj.register_forward_hook(on_output(index)),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_prunable(config: LlamaConfig, wanted: ModelSize) -> None:
    """Raise ``ValueError`` unless a model of ``wanted`` size can be cut out of the Llama of ``config``."""
    size = size_in(config)
    if wanted.head_width != size.head_width:
        raise ValueError(
            f"the target's heads are {wanted.head_width} channels wide, the model's {size.head_width}: "
            "whole heads are kept, so give the target the model's head_width."
        )
    for axis in ("width", "layers", "heads", "feed_forward"):
        if getattr(wanted, axis) > getattr(size, axis):
            raise ValueError(f"target {axis}={getattr(wanted, axis)} is larger than the model's {getattr(size, axis)}.")
    if config.num_key_value_heads != size.heads != wanted.heads:
        raise ValueError(
            f"the model's {size.heads} heads share keys and values and cannot be pruned one by one: "
            f"give a target with heads={size.heads}, or a model without grouped heads."
        )


def _empty(model: LlamaForCausalLM, size: ModelSize) -> LlamaForCausalLM:
    """A model of ``size`` that shares everything else (positions, norms, vocabulary) with ``model``."""
    config = copy.deepcopy(model.config)
    config.hidden_size, config.num_hidden_layers, config.intermediate_size = size.width, size.layers, size.feed_forward
    if config.num_key_value_heads == config.num_attention_heads:
        config.num_key_value_heads = size.heads
    config.num_attention_heads = size.heads
    with seeded(0):  # its weights are all written over, but drawing them must not move the caller's stream
        return type(model)(config)


def _top(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest scores, in their old order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _copy_block(old: nn.Module, new: nn.Module, rows: Tensor, neurons: Tensor, channels: Tensor) -> None:
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(old.self_attn, name).weight
        # Keys and values that heads share are fewer rows; such heads are all kept.
        kept = rows if len(weight) == len(old.self_attn.q_proj.weight) else slice(None)
        getattr(new.self_attn, name).weight.copy_(weight[kept][:, channels])
    new.self_attn.o_proj.weight.copy_(old.self_attn.o_proj.weight[channels][:, rows])
    for name in ("gate_proj", "up_proj"):
        getattr(new.mlp, name).weight.copy_(getattr(old.mlp, name).weight[neurons][:, channels])
    new.mlp.down_proj.weight.copy_(old.mlp.down_proj.weight[channels][:, neurons])
    for name in ("input_layernorm", "post_attention_layernorm"):
        getattr(new, name).weight.copy_(getattr(old, name).weight[channels])
