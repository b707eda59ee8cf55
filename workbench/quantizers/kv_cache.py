"""Keys and values of attention in 2, 4 or 8 bits, as a cache that ``model.generate`` takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

from workbench.errors import check_choice
from workbench.quantizers.grid import STORED
from workbench.quantizers.kv_packed import Packed

BITS = (2, 4, 8)


class QuantizedKVCache(Cache):
    """A growing cache whose older tokens are packed: keys per channel, values per token (Liu et al. 2024, KIVI).

    The last ``residual`` tokens stay as the model made them. As soon as ``group`` more have gathered before them, the
    oldest ``group`` are rounded: a channel's keys of these tokens share a range, and so do ``group`` neighbouring
    channels of a token's values (all channels of a head where ``group`` does not divide them). Ranges are those of the
    group as it is, ``value = low + scale * code``; no token is ever rounded twice. A forward pass sees its own tokens
    unrounded, older ones as they are stored: what a prompt is answered with at first does not depend on the bits.

    ``model.generate(**inputs, past_key_values=QuantizedKVCache(bits=4))``; one cache serves one generation, or several
    after :meth:`reset`. Every step unpacks the whole cache of a layer: memory is what is saved, not time.

    Args:
        bits: of a code: 2, 4 or 8.
        group: tokens of a key's group, channels of a value's.
        residual: tokens that stay in full precision, 0 or more (128 in the paper).
        scale_dtype: in which scales and lows are stored.
        config: of the model, to refuse one whose layers keep a window or a state in the place of all tokens.

    Raises:
        ValueError, UnknownName: arguments that cannot be.
    """

    def __init__(
        self,
        *,
        bits: int = 4,
        group: int = 32,
        residual: int = 128,
        scale_dtype: str = "float16",
        config: PreTrainedConfig | None = None,
    ):
        if isinstance(bits, bool) or bits not in BITS:
            raise ValueError(f"bits={bits!r} must be one of {', '.join(map(str, BITS))}: so codes fill whole bytes.")
        check_choice("scale_dtype", scale_dtype, STORED)
        for name, value, least in (("group", group, 1), ("residual", residual, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of tokens, {least} or above.")
        if config is not None:
            _check_attention(config)
        self.bits, self.group, self.residual, self.scale_dtype = bits, group, residual, scale_dtype
        super().__init__(layer_class_to_replicate=self._new_layer)

    def _new_layer(self) -> QuantizedCacheLayer:
        return QuantizedCacheLayer(
            bits=self.bits, group=self.group, residual=self.residual, scale_dtype=self.scale_dtype
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept: codes, scales, lows and the last tokens in full precision."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def full_nbytes(self) -> int:
        """Bytes that the same tokens take without rounding."""
        return sum(layer.full_nbytes for layer in self.layers)


class QuantizedCacheLayer(DynamicLayer):
    """The cache of one attention layer; ``keys`` and ``values`` are the tokens in full precision."""

    def __init__(self, *, bits: int, group: int, residual: int, scale_dtype: str):
        super().__init__()
        self.bits, self.group, self.residual = bits, group, residual
        self._kind = STORED[scale_dtype]
        self._old_keys: Packed | None = None
        self._old_values: Packed | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Take in keys and values ``[batch, heads, new tokens, channels]``; return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = self.keys = torch.cat([self.keys, key_states], dim=-2)
        values = self.values = torch.cat([self.values, value_states], dim=-2)
        if self._old_keys is not None:
            keys = torch.cat([self._old_keys.unpack(keys.dtype), keys], dim=-2)
            values = torch.cat([self._old_values.unpack(values.dtype), values], dim=-2)
        self._pack_old()
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens in the cache, packed or not."""
        return self._old_length + self.keys.shape[-2] if self._has_states else 0

    def reset(self) -> None:
        """Forget all tokens."""
        self._old_keys = self._old_values = None
        super().reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens.

        Where a group of packed tokens is cut, what remains of it is kept at its rounded values in full precision.

        Raises:
            ValueError: a number above 0, the older meaning of transformers (tokens to keep).
        """
        count = -tokens_to_remove
        if count < 0:
            raise ValueError(f"crop({tokens_to_remove}): give the number of tokens to remove as a negative number.")
        if count == 0 or not self._has_states:
            return
        keep = max(0, self.get_seq_length() - count)
        old = min(self._old_length, keep // self.group * self.group)
        if old < self._old_length:
            keys = torch.cat([self._old_keys.tokens(old, None).unpack(self.keys.dtype), self.keys], dim=-2)
            values = torch.cat([self._old_values.tokens(old, None).unpack(self.values.dtype), self.values], dim=-2)
            self.keys, self.values = keys, values
            self._old_keys = self._old_keys.tokens(0, old) if old else None
            self._old_values = self._old_values.tokens(0, old) if old else None
        self.keys = self.keys[..., : keep - old, :].clone()
        self.values = self.values[..., : keep - old, :].clone()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the sequences ``beam_idx`` of the batch, in this order; nothing is rounded again."""
        self._each(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the sequences ``indices`` (numbers or bool) of the batch."""
        self._each(lambda tensor: tensor[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence of the batch."""
        self._each(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def offload(self) -> None:
        """Move all of it to the CPU."""
        self._each(lambda tensor: tensor.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Move all of it back to where the model computes."""
        if self._has_states:
            self._each(lambda tensor: tensor.to(self.device, non_blocking=True))

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        kept = [] if not self.is_initialized else [self.keys, self.values]
        for old in (self._old_keys, self._old_values):
            kept += [] if old is None else old.parts()
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    @property
    def full_nbytes(self) -> int:
        """Bytes that the same tokens take in the model's dtype."""
        if not self._has_states:
            return 0
        batch, heads, _, channels = self.keys.shape
        numbers = batch * heads * (channels + self.values.shape[-1])
        return numbers * self.get_seq_length() * self.keys.element_size()

    @property
    def _has_states(self) -> bool:
        """Whether keys ever came: only then have ``keys`` and ``values`` their axes."""
        return self.is_initialized and self.keys.dim() > 1

    @property
    def _old_length(self) -> int:
        return 0 if self._old_keys is None else self._old_keys.length

    def _pack_old(self) -> None:
        """Round whole groups of the oldest tokens while there is one before the last ``residual``."""
        count = max(0, self.keys.shape[-2] - self.residual) // self.group * self.group
        if not count:
            return
        channels = self.values.shape[-1]
        width = self.group if channels % self.group == 0 else channels
        keys = Packed.of(self.keys[..., :count, :], self.bits, (self.group, 1), self._kind, "keys")
        values = Packed.of(self.values[..., :count, :], self.bits, (1, width), self._kind, "values")
        self._old_keys = keys if self._old_keys is None else self._old_keys.and_then(keys)
        self._old_values = values if self._old_values is None else self._old_values.and_then(values)
        # Copies: views would keep the tokens alive that were just packed.
        self.keys, self.values = self.keys[..., count:, :].clone(), self.values[..., count:, :].clone()

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply ``change`` to everything that is kept."""
        if not self._has_states:
            return
        self.keys, self.values = change(self.keys), change(self.values)
        if self._old_keys is not None:
            self._old_keys, self._old_values = self._old_keys.each(change), self._old_values.each(change)


def _check_attention(config: PreTrainedConfig) -> None:
    text = config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or (["full_attention"] if window is None else ["sliding_attention"])
    if others := sorted(set(kinds) - {"full_attention"}):
        raise ValueError(
            f"QuantizedKVCache keeps all tokens of every layer; this {config.model_type} model has layers of kind "
            f"{', '.join(others)}: let transformers make its cache."
        )
