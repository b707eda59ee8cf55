"""Autograd around the kernels: a few rows at a time, only rows that count, the gradient made in the forward.

An eager loss over ``[tokens, vocab]`` keeps half a dozen arrays of that size; this keeps one, the
gradient, and reads the logits in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from workbench.errors import check_mask, check_positive, check_same_shape
from workbench.losses.reduction import token_weights

Kernel = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]

CPU_PIECE = 2**17  # numbers in a piece: half a MiB of float32, a few of which fit a core's cache
GPU_PIECE = 2**26  # 256 MiB; launches cost more than memory there


def closed_form_loss(
    kernel: Kernel,
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None,
    *,
    temperature: float,
    scale_by_t2: bool,
    reduction: str,
    num_items: float | Tensor | None,
) -> Tensor:
    """The reduced loss whose value and gradient per row ``kernel`` gives; arguments as in every loss here."""
    check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    check_positive(temperature=temperature)
    positions = student_logits.shape[:-1]
    check_mask(mask, positions)
    weights = token_weights(
        positions,
        mask,
        reduction=reduction,
        num_items=num_items,
        dtype=wide_dtype(student_logits, teacher_logits),
        device=student_logits.device,
    )
    if mask is not None and not positions:  # a weight with an axis may be 0, one without counts everything
        weights = weights.reshape(1)
    if scale_by_t2 and temperature != 1:
        weights = weights * temperature**2
    wants_gradient = torch.is_grad_enabled() and student_logits.requires_grad
    weighted, _ = ClosedForm.apply(
        student_logits, teacher_logits.detach(), weights, kernel, temperature, wants_gradient
    )
    return weighted if reduction == "none" else weighted.sum()


def check_logits(**logits: Tensor) -> None:
    """Raise unless all named logits are floating tensors of one shape ``[..., vocab]``."""
    for name, tensor in logits.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of floating-point logits [..., vocab]; got {kind}.")
        if tensor.dim() == 0 or tensor.shape[-1] == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected [..., vocab] with at least one word.")
    check_same_shape(**logits)


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """What losses are computed in: float64 if any input is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


class ClosedForm(torch.autograd.Function):
    """``[...]`` values of a kernel times ``weights``, which are 0 where a position does not count.

    Differentiable once, in the student's logits; works under ``torch.func.grad`` and ``vmap``. A second
    derivative is refused by ``backward``, but torch.func, nested, takes the first for a constant.
    """

    @staticmethod
    def forward(student, teacher, weights, kernel, temperature, wants_gradient):
        # Autocast narrows matrix products only, and the kernels have none.
        return _stream(student, teacher, weights, kernel, temperature, wants_gradient)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, gradient = output
        ctx.mark_non_differentiable(gradient)
        ctx.save_for_backward(gradient)
        ctx.student_dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx, outer, _):
        (gradient,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = _once(gradient)
        if not _is_one(outer):
            gradient = gradient * outer.unsqueeze(-1)
        return gradient.to(ctx.student_dtype), None, None, None, None, None

    @staticmethod
    def vmap(info, in_dims, student, teacher, weights, kernel, temperature, wants_gradient):
        def lead(tensor: Tensor, dim: int | None) -> Tensor:
            return tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

        student, teacher, weights = map(lead, (student, teacher, weights), in_dims[:3])
        if student.dim() == 2:
            weights = weights.reshape(-1)
        elif weights.dim() == 1:  # one weight per example of the batch, for all its positions
            weights = weights.reshape(-1, *[1] * (student.dim() - 2))
        return ClosedForm.apply(student, teacher, weights, kernel, temperature, wants_gradient), (0, 0)


class NotTwice(torch.autograd.Function):
    """The identity, whose own gradient is an error: better than a second derivative that is silently 0."""

    @staticmethod
    def forward(ctx, gradient):
        return gradient.clone()

    @staticmethod
    def backward(ctx, outer):
        raise RuntimeError("the losses of workbench.losses are differentiable once; a second derivative was asked for.")


def _once(gradient: Tensor) -> Tensor:
    try:
        return NotTwice.apply(gradient.detach().requires_grad_())
    except RuntimeError:  # torch.func keeps the graph always, and forbids this
        return gradient


def _stream(
    student: Tensor, teacher: Tensor, weights: Tensor, kernel: Kernel, temperature: float, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Weighted values ``[...]`` and, if wanted, their gradient ``[..., vocab]`` (else empty)."""
    *positions, vocab = student.shape
    count, dtype = math.prod(positions), weights.dtype
    counted = None  # every position
    if weights.dim():
        weights = weights.expand(positions or (1,)).reshape(count)
        counted = weights.nonzero().squeeze(-1)
        if counted.numel() == count:
            counted = None
    else:
        weights = weights.expand(count)
    values = weights.new_zeros(count)
    # float16 would lose the small gradients of a long mean before a gradient scaler could save them.
    kept_dtype = dtype if student.dtype == torch.float16 else student.dtype
    make = student.new_empty if counted is None else student.new_zeros
    gradient = make((count, vocab) if wants_gradient else (0,), dtype=kept_dtype)
    read_student, read_teacher = (_reader(logits, counted) for logits in (student, teacher))
    total = count if counted is None else counted.numel()
    step = max(1, (CPU_PIECE if student.device.type == "cpu" else GPU_PIECE) // vocab)
    for start in range(0, total, step):
        piece = slice(start, min(start + step, total))
        rows = piece if counted is None else counted[piece]
        student_rows, teacher_rows = read_student(piece).to(dtype), read_teacher(piece).to(dtype)
        if temperature != 1:
            student_rows, teacher_rows = student_rows / temperature, teacher_rows / temperature
        value, slope = kernel(student_rows, teacher_rows, wants_gradient)
        weight = weights[rows]
        values[rows] = value.mul_(weight)
        if slope is None:
            continue
        factor = (weight if temperature == 1 else weight / temperature).unsqueeze(-1)
        if counted is None:
            torch.mul(slope, factor, out=gradient[rows])
        else:
            gradient.index_copy_(0, rows, slope.mul_(factor).to(kept_dtype))
    values = values.reshape(positions)
    if math.isnan(values.sum()):
        _refuse_nan(values.isnan(), student_logits=student, teacher_logits=teacher)
    return values, gradient.reshape(student.shape) if wants_gradient else gradient


def _reader(logits: Tensor, counted: Tensor | None) -> Callable[[slice], Tensor]:
    """A function from a piece of the counted positions to their logits ``[rows, vocab]``.

    Logits shifted by one (``logits[:, :-1]``) have no flat view; their rows are gathered piece by
    piece, so that the whole is never copied.
    """
    *positions, vocab = logits.shape
    count = math.prod(positions)
    try:
        flat = logits.view(count, vocab)
    except RuntimeError:
        every = torch.arange(count, device=logits.device) if counted is None else counted
        axes = torch.unravel_index(every, positions)
        return lambda piece: logits[tuple(axis[piece] for axis in axes)]
    if counted is None:
        return lambda piece: flat[piece]
    return lambda piece: flat.index_select(0, counted[piece])


def _is_one(outer: Tensor) -> bool:
    """Whether nothing needs to be multiplied, as after ``loss.backward()``."""
    try:
        return bool((outer == 1).all())
    except RuntimeError:  # inside torch.func.vmap no value can be read
        return False


def _refuse_nan(where: Tensor, **logits: Tensor) -> None:
    """Name the argument that made the loss NaN; only called when it is, so that good input pays nothing."""
    first = tuple(where.nonzero()[0].tolist())
    for name, tensor in logits.items():
        rows = tensor[where]
        for found, what in (
            (rows.isnan().any(-1), "NaN"),
            (rows.isposinf().any(-1), "+inf"),
            (rows.isneginf().all(-1), "nothing but -inf"),
        ):
            if bool(found.any()):
                raise ValueError(
                    f"{name} holds {what} at a position that counts ({int(where.sum())} of them are unusable, "
                    f"the first at {list(first)}): mask such positions, or find what made the model diverge."
                )
    raise ValueError(
        f"student_logits and teacher_logits give no number at position {list(first)} although each is a "
        "distribution: they share no word, or the temperature is too small for their size."
    )
