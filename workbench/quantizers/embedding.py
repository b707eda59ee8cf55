"""An embedding whose rows are packed, looked up and dequantised one by one; its matrix may be the output layer's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from workbench.quantizers.kernels import Kernel, automatic, make_kernel
from workbench.quantizers.kernels.int8_dynamic import Int8Dynamic
from workbench.quantizers.kernels.state import kernel_of, save_weight, split_weight
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.tensor import QuantizedTensor


class QuantizedEmbedding(nn.Module):
    """Rows ``[in]`` of a packed matrix ``[vocab, in]`` for token ids ``[...]``.

    The matrix is held once, in the layout of the kernel that :meth:`tied_head` multiplies with, from which rows are
    read. Rows come in the dtype the float embedding had, and follow ``model.to(dtype)``.
    """

    def __init__(
        self, kernel: Kernel, *, dtype: torch.dtype, padding_idx: int | None = None, scale: Tensor | float | None = None
    ):
        super().__init__()
        rest = kernel._rest
        if rest.outliers is not None or rest.transform is not None or rest.permutation is not None or rest.axis != 1:
            raise ValueError(
                "an embedding is looked up by row: outliers, transforms, permuted inputs and groups along the outputs "
                "are for products; quantise it with quantize_rtn."
            )
        self.num_embeddings, self.embedding_dim = kernel.shape
        self.padding_idx, self._kernel = padding_idx, kernel
        self.register_buffer("_dtype", torch.empty(0, dtype=dtype), persistent=False)  # .to(dtype) changes it
        self.register_buffer("embed_scale", scale if isinstance(scale, Tensor) else None, persistent=False)
        self._factor = scale if isinstance(scale, int | float) else None

    @classmethod
    def from_embedding(
        cls, embedding: nn.Embedding, quantized: QuantizedTensor, *, kernel: str = "auto", layer: str = ""
    ) -> QuantizedEmbedding:
        """The embedding that looks up ``quantized`` in the place of the rows of ``embedding``.

        Args:
            embedding: an ``nn.Embedding``; the ``embed_scale`` of a scaled one is kept.
            quantized: its weight ``[vocab, in]``, by :func:`quantize_rtn` with 8 or 4 bits as a rule.
            kernel: that of a tied output layer, as :func:`make_kernel` takes it; not ``int8_dynamic``, which cannot
                read single rows.

        Raises:
            TypeError: not an embedding, or not a quantised weight.
            UnknownName, ValueError: shapes differ, rows are renormalised (``max_norm``), the kernel cannot run this
                format, or the weight has what only a product can use.
        """
        name = layer or "embedding"
        if not isinstance(embedding, nn.Embedding):
            raise TypeError(f"{name}: expected an nn.Embedding, got {type(embedding).__name__}.")
        if not isinstance(quantized, QuantizedTensor):
            raise TypeError(f"{name}: expected a QuantizedTensor, got {type(quantized).__name__}.")
        if embedding.max_norm is not None:
            raise ValueError(f"{name}: max_norm rescales rows in place, which packed rows cannot: set it to None.")
        shape = (embedding.num_embeddings, embedding.embedding_dim)
        if shape != quantized.shape:
            raise ValueError(f"{name}: expected a quantised weight {list(shape)}, got {list(quantized.shape)}.")
        if kernel == "auto" and automatic(quantized) == Int8Dynamic.name:
            kernel = "int8_weight"
        if kernel == Int8Dynamic.name:
            raise ValueError(f"{name}: kernel='int8_dynamic' cannot read single rows: take 'int8_weight' or 'auto'.")
        made = cls(
            make_kernel(quantized, kernel, layer=layer),
            dtype=embedding.weight.dtype,
            padding_idx=embedding.padding_idx,
            scale=getattr(embedding, "embed_scale", None),
        )
        return made.train(embedding.training)

    def tied_head(self, bias: Tensor | None = None, *, layer: str = "") -> QuantizedLinear:
        """An output layer ``[..., in]`` to ``[..., vocab]`` that multiplies by this very storage."""
        return QuantizedLinear(self._kernel, bias, layer=layer).train(self.training)

    @property
    def storage(self) -> Kernel:
        """The kernel that holds the matrix; the tied output layer has the same."""
        return self._kernel

    @property
    def kernel(self) -> str:
        """The name of the kernel in whose layout the matrix is held."""
        return self._kernel.name

    @property
    def quantized(self) -> QuantizedTensor:
        """The matrix as its quantiser gave it."""
        return self._kernel.quantized

    @property
    def nbytes(self) -> int:
        """Bytes that are held; a tied output layer holds the same ones."""
        return self._kernel.nbytes

    def forward(self, ids: Tensor) -> Tensor:
        """Rows ``[..., in]`` of token ids ``[...]``.

        Raises:
            TypeError: ids that are not whole numbers.
            IndexError: an id outside the vocabulary.
        """
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"expected token ids in int64 or int32, got {ids.dtype}.")
        index = ids.reshape(-1).long()
        if index.numel() and not (int(index.amin()) >= 0 and int(index.amax()) < self.num_embeddings):
            raise IndexError(f"token ids must be from 0 to {self.num_embeddings - 1}, got {_outside(index, self)}.")
        rows = self._kernel.rows(index).to(self._dtype.dtype)
        rows = rows.view(*ids.shape, self.embedding_dim)
        if self.embed_scale is not None:
            rows = rows * self.embed_scale.to(rows.dtype)
        return rows if self._factor is None else rows * self._factor

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedEmbedding:
        super()._apply(function, recurse)
        if self._dtype.device != self._kernel._rest.packed.device:
            self._kernel = make_kernel(self.quantized.to(self._dtype.device))
        return self

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_weight(self._kernel, destination, prefix)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given, rest = split_weight(state_dict, prefix)
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        if kernel := kernel_of(given, self._kernel, prefix, error_msgs):
            self._kernel = kernel

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self._kernel.spec.label}, kernel={self.kernel}"


def _outside(index: Tensor, embedding: QuantizedEmbedding) -> int:
    return int(index[(index < 0) | (index >= embedding.num_embeddings)][0])
