"""What a layer's inputs say about which weights matter: the mean of ``2 x x^T`` over calibration tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantizers.grid import CHECKED

CHUNK = 4096  # tokens that are converted and multiplied at a time
TILE = 384  # columns of one product; only tiles on and above the diagonal are computed


class HessianAccumulator:
    """Running mean ``2/n sum x x^T`` of the inputs of one layer, for GPTQ and SpQR.

    The squared error of an output is a quadratic form of this matrix in the error of its weights
    (Frantar et al. 2023, GPTQ); ``n`` counts tokens, so that batches of any shape weigh alike.

    Args:
        width: inputs of the layer.
        dtype: ``torch.float32``, or ``torch.float64`` for ill-conditioned inputs; the factorisation follows it.
        layer: name that errors are told with.
    """

    def __init__(
        self,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        layer: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.layer = layer or "layer"
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(f"{self.layer}: width={width!r} must be a whole number of inputs, at least 1.")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{self.layer}: dtype={dtype} must be torch.float32 or torch.float64.")
        self.width = width
        self.tokens = 0
        self._upper = torch.zeros(width, width, dtype=dtype, device=device)  # below the diagonal tiles: not kept up

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> HessianAccumulator:
        """Count every token of ``inputs [..., width]``, or those where bool ``mask [...]`` is True.

        Raises:
            TypeError: inputs are not floating, or the mask is not bool.
            ValueError: another width, a mask of another shape, or NaN or infinite inputs; what was added before
                stays as it was.
        """
        tokens = self._checked(inputs, mask)
        for chunk in tokens.split(CHUNK) if len(tokens) else ():
            chunk = chunk.to(self._upper)
            before, self.tokens = self.tokens, self.tokens + len(chunk)
            for start in range(0, self.width, TILE):
                stop = min(start + TILE, self.width)
                self._upper[start:stop, start:].addmm_(
                    chunk[:, start:stop].t(), chunk[:, start:], beta=before / self.tokens, alpha=2 / self.tokens
                )
        return self

    @property
    def hessian(self) -> Tensor:
        """Symmetric ``[width, width]`` in the accumulator's dtype.

        Raises:
            ValueError: no token was added.
        """
        if not self.tokens:
            raise ValueError(
                f"{self.layer}: the calibration is empty, no input was added: run at least one batch of text through "
                "the model (a few thousand tokens as a rule), and check that the mask leaves some."
            )
        return self._upper.triu() + self._upper.triu(1).t()

    def _checked(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """The tokens that count, ``[tokens, width]``."""
        if not isinstance(inputs, Tensor) or inputs.dtype not in CHECKED:
            kind = getattr(inputs, "dtype", type(inputs).__name__)
            raise TypeError(f"{self.layer}: expected floating inputs [..., {self.width}], got {kind}.")
        if inputs.dim() < 1 or inputs.shape[-1] != self.width:
            raise ValueError(
                f"{self.layer}: expected inputs [..., {self.width}], got {tuple(inputs.shape)}: what is added must "
                "be what goes into this layer."
            )
        tokens = inputs.detach().reshape(-1, self.width)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = getattr(mask, "dtype", type(mask).__name__)
                raise TypeError(f"{self.layer}: mask must be a bool tensor, True where a token counts; got {kind}.")
            if mask.shape != inputs.shape[:-1]:
                raise ValueError(
                    f"{self.layer}: mask has shape {tuple(mask.shape)}, expected {tuple(inputs.shape[:-1])}."
                )
            tokens = tokens[mask.reshape(-1)]
        bad = sum(len(chunk) - int(torch.isfinite(chunk).all(-1).sum()) for chunk in tokens.split(CHUNK))
        if bad:
            raise ValueError(
                f"{self.layer}: {bad} of {len(tokens)} tokens have NaN or infinite inputs: calibrate in float32 or "
                "bfloat16, and mask padding that has no value."
            )
        return tokens


def check_hessian(hessian: Tensor, width: int, layer: str = "") -> Tensor:
    """``hessian [width, width]`` in float32 (float64 stays), or an error that names the layer.

    Raises:
        TypeError: not a floating tensor.
        ValueError: another shape, NaN or infinite entries, a negative diagonal, or nothing but zeros.
    """
    name = layer or "hessian"
    if not isinstance(hessian, Tensor) or hessian.dtype not in CHECKED:
        kind = getattr(hessian, "dtype", type(hessian).__name__)
        raise TypeError(f"{name}: expected a floating Hessian [{width}, {width}], got {kind}.")
    if tuple(hessian.shape) != (width, width):
        raise ValueError(
            f"{name}: the weight has {width} inputs and needs a Hessian of shape ({width}, {width}), got "
            f"{tuple(hessian.shape)}: it belongs to another layer, or the weight is transposed (GPT-2's Conv1D)."
        )
    hessian = hessian.detach() if hessian.dtype == torch.float64 else hessian.detach().float()
    diagonal = hessian.diagonal()
    # A sum is finite unless an entry is not, or it overflows: then they are counted, which takes ten times as long.
    bad = 0 if bool(torch.isfinite(hessian.sum())) else hessian.numel() - int(torch.isfinite(hessian).sum())
    if bad:
        raise ValueError(
            f"{name}: {bad} of {hessian.numel()} entries of the Hessian are NaN or infinite: calibrate in float32 "
            "or bfloat16 and accumulate with HessianAccumulator, which refuses such inputs."
        )
    if bool((diagonal < 0).any()):
        raise ValueError(
            f"{name}: the Hessian has {int((diagonal < 0).sum())} negative diagonal entries, so it is no mean of "
            "x x^T: accumulate it with HessianAccumulator."
        )
    if not bool(diagonal.any()):
        raise ValueError(
            f"{name}: the Hessian is zero, every input of this layer was 0 in the calibration: calibrate with text "
            "that reaches it, or use a method without data (rtn, hqq)."
        )
    return hessian
