"""Keys or values of old tokens in few bits, with one range per block of tokens and channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quantizers.lookup import look_up
from workbench.quantizers.packing import pack_codes


@dataclass(frozen=True)
class Packed:
    """Tokens ``[batch, heads, length, channels]`` in few bits, with one range per block of tokens and channels."""

    codes: Tensor  # uint8 [batch, heads, length, bytes]
    scale: Tensor  # [batch, heads, length / tokens of a block, channels / channels of a block]
    low: Tensor  # the value of code 0, like scale
    bits: int
    channels: int
    block: tuple[int, int]  # tokens, channels

    @classmethod
    def of(cls, states: Tensor, bits: int, block: tuple[int, int], kind: torch.dtype, what: str) -> Packed:
        """Round ``states``; raises ``ValueError`` where a range is beyond the dtype of scales."""
        grouped = _blocks(states.float(), block)
        low, high = grouped.amin((-3, -1), keepdim=True), grouped.amax((-3, -1), keepdim=True)
        scale, low = ((high - low) / (2**bits - 1)).to(kind), low.to(kind)
        if not bool(torch.isfinite(scale).all() and torch.isfinite(low).all()):
            raise ValueError(
                f"the {what} hold NaN or numbers beyond {str(kind).removeprefix('torch.')}: check the model's inputs, "
                "or take QuantizedKVCache(scale_dtype='float32')."
            )
        # Codes for the range as it is stored; a constant block, or one whose scale vanished, has the code 0.
        step = torch.where(scale > 0, scale.float(), torch.inf)
        codes = ((grouped - low.float()) / step).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
        codes = pack_codes(codes.reshape(states.shape), bits)
        return cls(codes, scale[..., 0, :, 0], low[..., 0, :, 0], bits, states.shape[-1], block)

    @property
    def length(self) -> int:
        return self.codes.shape[-2]

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """The tokens' values ``[batch, heads, length, channels]``."""
        codes = look_up(self.codes.flatten(0, -2), self.bits, self.channels).reshape(*self.codes.shape[:-1], -1)
        wide = _blocks(codes, self.block)
        wide = wide.mul_(self.scale.float()[..., None, :, None]).add_(self.low.float()[..., None, :, None])
        return wide.reshape(codes.shape).to(dtype)

    def tokens(self, start: int, stop: int | None) -> Packed:
        """Whole blocks of tokens."""
        step = self.block[0]
        blocks = slice(start // step, None if stop is None else stop // step)
        return self._with(self.codes[..., start:stop, :], self.scale[..., blocks, :], self.low[..., blocks, :])

    def and_then(self, later: Packed) -> Packed:
        """These tokens and ``later`` ones."""
        pairs = zip(self.parts(), later.parts(), strict=True)
        return self._with(*(torch.cat(pair, dim=-2) for pair in pairs))

    def each(self, change: Callable[[Tensor], Tensor]) -> Packed:
        return self._with(*map(change, self.parts()))

    def parts(self) -> list[Tensor]:
        """All tensors that are kept."""
        return [self.codes, self.scale, self.low]

    def _with(self, codes: Tensor, scale: Tensor, low: Tensor) -> Packed:
        return Packed(codes, scale, low, self.bits, self.channels, self.block)


def _blocks(states: Tensor, block: tuple[int, int]) -> Tensor:
    """``[batch, heads, length, channels]`` as ``[..., blocks of tokens, tokens, blocks of channels, channels]``."""
    return states.unflatten(-1, (-1, block[1])).unflatten(-3, (-1, block[0]))
