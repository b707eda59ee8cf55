"""Running calibration tokens through a model block by block, and what goes into its linear layers meanwhile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LEAST_TOKENS = 32  # below it the statistics of a layer's inputs are those of a handful of words
TOKENS_AT_ONCE = 1024  # of one batch: bounds the activations of a block, whatever the calibration set holds
EXAMPLE = "tokenizer(texts, return_tensors='pt', padding=False).input_ids"


@dataclass(frozen=True)
class BlockCall:
    """What a block is called with besides the hidden state."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """What one sequence showed of a model: how its blocks are called and which layers read the same tensor."""

    calls: list[BlockCall]
    readers: dict[str, str]  # a linear layer -> the layer that read the same tensor first; in the order of reading


class _Enough(Exception):
    """Ends a forward pass whose rest is not needed."""


def check_calibration(tokens: Tensor | None, model: nn.Module, *, widest: int) -> Tensor:
    """Token ids ``[sequences, time]`` as int64 on the model's device, or an error that says what to give.

    Args:
        widest: inputs of the widest layer that is calibrated; fewer tokens than that are warned of.

    Raises:
        TypeError: no tensor, or not of integers.
        ValueError: None, empty, another shape, too few tokens, ids beyond the vocabulary, or longer sequences than
            the model has positions.
    """
    if tokens is None:
        raise ValueError(
            f"the recipe looks at inputs and needs calibration: token ids [sequences, time], as {EXAMPLE}."
        )
    if (
        not isinstance(tokens, Tensor)
        or tokens.dtype.is_floating_point
        or tokens.dtype in (torch.bool, torch.complex64)
    ):
        kind = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"calibration must be a tensor of integer token ids, got {kind}: give {EXAMPLE}.")
    if tokens.dim() != 2:
        raise ValueError(
            f"calibration must be [sequences, time], got shape {tuple(tokens.shape)}: one text is tokens[None]."
        )
    if tokens.numel() < LEAST_TOKENS:
        what = "is empty" if not tokens.numel() else f"has only {tokens.numel()} tokens"
        raise ValueError(f"calibration {what}: give at least {LEAST_TOKENS}, better 32 sequences of 512.")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"calibration has the token id {low if low < 0 else high}, but the model knows 0 to {vocabulary - 1}: "
            "use the model's own tokenizer, and no padding."
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and tokens.shape[1] > positions:
        raise ValueError(
            f"calibration sequences of {tokens.shape[1]} tokens are longer than the model's {positions} positions: "
            "cut them."
        )
    if tokens.numel() < widest:
        warnings.warn(
            f"{tokens.numel()} calibration tokens tell less than the {widest} inputs of the widest layer: "
            "damping fills the rest; give more sequences.",
            stacklevel=3,
        )
    return tokens.to(model.get_input_embeddings().weight.device, torch.int64)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside the block; the mode that modules had comes back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def trace_blocks(model: nn.Module, blocks: list[str], layers: Iterable[str], tokens: Tensor) -> Trace:
    """One pass of ``tokens [1, time]``, seen at every block and every linear layer of ``layers``.

    Raises:
        ValueError: blocks that are not a chain, each reading what the last one gave.
    """
    calls: list[BlockCall] = []
    given: list[Tensor] = []
    readers: dict[str, str] = {}
    seen: list[tuple[Tensor, str]] = []  # kept alive within a block, so that no address comes twice

    def before_block(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, call = _split(args, kwargs)
        if given and not torch.equal(hidden, given[-1]):
            raise ValueError(
                f"block {blocks[len(calls)]} does not read what {blocks[len(calls) - 1]} gave: this model cannot be "
                "calibrated block by block; use rtn or hqq."
            )
        calls.append(call)
        seen.clear()

    def after_block(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given[:] = [_first(output)]

    def before_layer(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            readers[name] = next((first for tensor, first in seen if tensor is args[0]), name)
            seen.append((args[0], name))

        return hook

    modules = [model.get_submodule(name) for name in blocks]
    handles = [module.register_forward_pre_hook(before_block, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(after_block) for module in modules]
    handles += [model.get_submodule(name).register_forward_pre_hook(before_layer(name)) for name in layers]
    with _removed_after(handles):
        _body(model)(input_ids=tokens, use_cache=False)
    if len(calls) != len(blocks):
        raise ValueError(f"{len(calls)} of {len(blocks)} blocks ran: this model cannot be calibrated block by block.")
    return Trace(calls, readers)


def first_hidden(model: nn.Module, block: str, tokens: Tensor, call: BlockCall) -> Tensor:
    """What the first block reads for ``tokens [sequences, time]``: ``[sequences, time, width]``.

    Raises:
        ValueError: the block is also given something else that depends on the tokens.
    """
    kept: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, now = _split(args, kwargs)
        if not _same_for_all(now, call):
            raise ValueError(
                "the blocks of this model take more that depends on the tokens than the hidden state: "
                "it cannot be calibrated block by block; use rtn or hqq."
            )
        if not kept:  # in its final size at once: parts and their concatenation would take twice as much
            kept.append(hidden.new_empty(*tokens.shape, hidden.shape[-1]))
        kept[0][begin : begin + hidden.shape[0]] = hidden
        raise _Enough

    handle = model.get_submodule(block).register_forward_pre_hook(hook, with_kwargs=True)
    step = batch_size(tokens.shape[1])
    with _removed_after([handle]):
        for begin in range(0, tokens.shape[0], step):  # the hook reads begin
            with suppress(_Enough):
                _body(model)(input_ids=tokens[begin : begin + step], use_cache=False)
    return kept[0]


def run_block(block: nn.Module, call: BlockCall, hidden: Tensor) -> None:
    """Replace ``hidden [sequences, time, width]`` by what the block gives for it, batch by batch."""
    for part in hidden.split(batch_size(hidden.shape[1])):
        part.copy_(_first(block(part, *call.args, **call.kwargs)))


def observe_block(
    block: nn.Module, call: BlockCall, hidden: Tensor, watchers: Mapping[nn.Module, Callable[[Tensor], None]]
) -> None:
    """Give every watcher what goes into its layer, ``[tokens, in]``; ``watchers`` in the order layers are reached.

    The pass ends at the last one: what follows it is not computed.
    """
    modules = list(watchers)

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        watchers[module](args[0].reshape(-1, args[0].shape[-1]))
        if module is modules[-1]:
            raise _Enough

    with _removed_after([module.register_forward_pre_hook(hook) for module in modules]):
        for part in hidden.split(batch_size(hidden.shape[1])):
            with suppress(_Enough):
                block(part, *call.args, **call.kwargs)


def batch_size(time: int) -> int:
    """Sequences of one batch."""
    return max(1, TOKENS_AT_ONCE // time)


def _body(model: nn.Module) -> nn.Module:
    """The model without its output layer, which calibration never needs."""
    return model.base_model


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, BlockCall]:
    if args:
        return args[0], BlockCall(args[1:], kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    return kwargs["hidden_states"], BlockCall((), rest)


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _same_for_all(now: BlockCall, call: BlockCall) -> bool:
    """Whether two calls agree in every tensor, up to a first axis of sequences along which all are equal."""
    pairs = list(zip(_tensors((now.args, now.kwargs)), _tensors((call.args, call.kwargs)), strict=False))
    return all(
        one.shape == other.shape or (one.shape[1:] == other.shape[1:] and other.shape[0] == 1) for one, other in pairs
    ) and all(bool((one == other).all()) for one, other in pairs)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@contextmanager
def _removed_after(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
