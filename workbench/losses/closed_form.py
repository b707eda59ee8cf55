"""Autograd around the kernels: a few rows at a time, only rows that count, the gradient made in the forward.

An eager loss over ``[tokens, vocab]`` keeps half a dozen arrays of that size; this keeps one, the
gradient, and reads the logits in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

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
    inputs = (student_logits, teacher_logits.detach(), weights, kernel, temperature, wants_gradient)
    if torch._C._are_functorch_transforms_active():  # no public name; to be transformable costs a small loss twice
        weighted, _ = Transformable.apply(*inputs)
        return weighted if reduction == "none" else weighted.sum()
    return ClosedForm.apply(*inputs, reduction != "none")


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
    """A kernel's values ``[...]`` times ``weights``, which are 0 where a position does not count, or their sum.

    Differentiable once, in the student's logits.
    """

    @staticmethod
    def forward(ctx, student, teacher, weights, kernel, temperature, wants_gradient, summed):
        # Autocast narrows matrix products only, and the kernels have none.
        values, gradient = _stream(student, teacher, weights, kernel, temperature, wants_gradient)
        ctx.save_for_backward(gradient)
        ctx.student_dtype = student.dtype
        total = values.sum()
        _refuse_nan(total, values, student, teacher)
        return total if summed else values

    @staticmethod
    def backward(ctx, outer):
        (gradient,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = NotTwice.apply(gradient.detach().requires_grad_())
        return _chain(gradient, outer).to(ctx.student_dtype), *[None] * 6


class NotTwice(torch.autograd.Function):
    """The identity, whose own gradient is an error: better than a second derivative that is silently 0."""

    @staticmethod
    def forward(ctx, gradient):
        return gradient.clone()

    @staticmethod
    def backward(ctx, outer):
        refuse_second_derivative()


def refuse_second_derivative() -> NoReturn:
    """Raise the one sentence about it."""
    raise RuntimeError("the losses of workbench.losses are differentiable once; a second derivative was asked for.")


class Transformable(torch.autograd.Function):
    """:class:`ClosedForm` without the sum, under ``torch.func.grad`` and ``vmap``.

    The gradient is an output too, so that the wish for its derivative comes back here, to be refused.
    """

    @staticmethod
    def forward(student, teacher, weights, kernel, temperature, wants_gradient):
        values, gradient = _stream(student, teacher, weights, kernel, temperature, wants_gradient)
        _refuse_nan(values.sum(), values, student, teacher)
        return values, gradient

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)  # so that a second derivative is told from a first
        ctx.student_dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx, outer, second):
        if second is not None:
            refuse_second_derivative()
        if outer is None:
            return (None,) * 6
        return _chain(ctx.saved_tensors[0], outer).to(ctx.student_dtype), *[None] * 5

    @staticmethod
    def vmap(info, in_dims, student, teacher, weights, kernel, temperature, wants_gradient):
        def lead(tensor: Tensor, dim: int | None) -> Tensor:
            return tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

        student, teacher, weights = map(lead, (student, teacher, weights), in_dims[:3])
        if student.dim() == 2:
            weights = weights.reshape(-1)
        elif weights.dim() == 1:  # one weight per example of the batch, for all its positions
            weights = weights.reshape(-1, *[1] * (student.dim() - 2))
        return Transformable.apply(student, teacher, weights, kernel, temperature, wants_gradient), (0, 0)


def _chain(gradient: Tensor, outer: Tensor) -> Tensor:
    """The gradient times what came from outside; a large one is not copied for the 1 of ``loss.backward()``."""
    if gradient.numel() > CPU_PIECE and not torch.is_grad_enabled() and _is_one(outer):
        return gradient
    return gradient * (outer.unsqueeze(-1) if outer.dim() else outer)


def _stream(
    student: Tensor, teacher: Tensor, weights: Tensor, kernel: Kernel, temperature: float, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Weighted values ``[...]`` and, if wanted, their gradient ``[..., vocab]`` (else empty)."""
    *positions, vocab = student.shape
    count, dtype = math.prod(positions), weights.dtype
    step = max(1, (CPU_PIECE if student.device.type == "cpu" else GPU_PIECE) // vocab)
    # float16 would lose the small gradients of a long mean before a gradient scaler could save them.
    kept_dtype = dtype if student.dtype == torch.float16 else student.dtype
    if not weights.dim() and count <= step:  # one piece of which all counts: nothing to gather or to scatter
        student_rows, teacher_rows = (_soften(x.reshape(count, vocab), dtype, temperature) for x in (student, teacher))
        value, slope = kernel(student_rows, teacher_rows, wants_gradient)
        values = value.mul_(weights).reshape(positions)
        if slope is None:
            return values, student.new_empty(0)
        slope.mul_(weights if temperature == 1 else weights / temperature)
        return values, slope.to(kept_dtype).reshape(student.shape)
    counted = None  # every position
    if weights.dim():
        weights = weights.expand(positions or (1,)).reshape(count)
        counted = weights.nonzero().squeeze(-1)
        if counted.numel() == count:
            counted = None
    else:
        weights = weights.expand(count)
    values = weights.new_zeros(count)
    make = student.new_empty if counted is None else student.new_zeros
    gradient = make((count, vocab) if wants_gradient else (0,), dtype=kept_dtype)
    read_student, read_teacher = (_reader(logits, counted) for logits in (student, teacher))
    total = count if counted is None else counted.numel()
    for start in range(0, total, step):
        piece = slice(start, min(start + step, total))
        rows = piece if counted is None else counted[piece]
        student_rows, teacher_rows = (_soften(read(piece), dtype, temperature) for read in (read_student, read_teacher))
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
    return values.reshape(positions), gradient.reshape(student.shape) if wants_gradient else gradient


def _soften(logits: Tensor, dtype: torch.dtype, temperature: float) -> Tensor:
    logits = logits.to(dtype)
    return logits if temperature == 1 else logits / temperature


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


def _refuse_nan(total: Tensor, values: Tensor, student: Tensor, teacher: Tensor) -> None:
    """If the total is NaN, name the argument that made it so; good input pays one look at a number."""
    if not math.isnan(total):
        return
    where = values.isnan()
    first = tuple(where.nonzero()[0].tolist())
    for name, tensor in (("student_logits", student), ("teacher_logits", teacher)):
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
