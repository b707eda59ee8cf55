"""Autograd around the kernels: a few rows at a time, only rows that count, the gradient made in the forward.

An eager loss over ``[tokens, vocab]`` keeps half a dozen arrays of that size; this keeps one, the
gradient, and reads the logits in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from workbench.errors import check_mask, check_positive, check_same_shape
from workbench.losses.reduction import token_weights, uniform_weight

Kernel = Callable[..., tuple[Tensor, Tensor | None]]

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
    factor: float = 1.0,
) -> Tensor:
    """``factor`` times the reduced loss whose value and gradient per row ``kernel`` gives; other arguments as ever."""
    if not _alike(student_logits, teacher_logits):
        check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    return row_loss(
        kernel, student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items, factor=factor,
    )  # fmt: skip


def row_loss(
    kernel: Kernel,
    student_logits: Tensor,
    teacher_rows: Tensor,
    mask: Tensor | None,
    *,
    temperature: float,
    scale_by_t2: bool,
    reduction: str,
    num_items: float | Tensor | None,
    factor: float = 1.0,
    extra: Tensor | None = None,
    teacher_name: str = "teacher_logits",
) -> Tensor:
    """:func:`closed_form_loss` where a teacher's row may have another length, ``[..., any]``.

    Of ``extra`` ``[..., any]`` the kernel is given the same rows, undivided by the temperature, as its
    fourth argument. The caller has checked the shapes; ``teacher_name`` is what an error calls the teacher.
    """
    check_positive(temperature=temperature)
    positions = student_logits.shape[:-1]
    dtype = wide_dtype(student_logits, teacher_rows)
    if mask is None:
        weights = uniform_weight(positions, reduction=reduction, num_items=num_items)
    else:
        check_mask(mask, positions)
        weights = token_weights(
            positions, mask, reduction=reduction, num_items=num_items, dtype=dtype, device=student_logits.device
        )
        if not positions:  # a weight with an axis may be 0, one without counts everything
            weights = weights.reshape(1)
    if scale_by_t2:
        factor *= temperature**2
    if factor != 1:
        weights = weights * factor
    wants_gradient = student_logits.requires_grad and torch.is_grad_enabled()
    job = Job(kernel, temperature, dtype, wants_gradient, teacher_name)
    if teacher_rows.requires_grad:
        teacher_rows = teacher_rows.detach()
    try:
        return ClosedForm.apply(student_logits, teacher_rows, extra, weights, job, reduction != "none")
    except RuntimeError as refusal:  # the only public way to learn that torch.func is at work
        if "setup_context" not in str(refusal):
            raise
    if mask is None:
        weights = torch.full((), weights, dtype=dtype, device=student_logits.device)
    weighted, _ = Transformable.apply(student_logits, teacher_rows, extra, weights, job)
    return weighted if reduction == "none" else weighted.sum()


class Job(NamedTuple):
    """What is done with the rows, apart from the rows."""

    kernel: Kernel
    temperature: float
    dtype: torch.dtype
    wants_gradient: bool
    teacher_name: str


def _alike(student: Tensor, teacher: Tensor) -> bool:
    """Whether :func:`check_logits` has nothing to say, at a tenth of its cost."""
    return (
        isinstance(student, Tensor)
        and isinstance(teacher, Tensor)
        and student.is_floating_point()
        and teacher.is_floating_point()
        and student.shape == teacher.shape
        and student.dim() > 0
        and student.shape[-1] > 0
    )


def check_logits(**logits: Tensor) -> None:
    """Raise unless all named logits are floating tensors of one shape ``[..., vocab]``."""
    check_floating(**logits)
    check_same_shape(**logits)


def check_floating(**logits: Tensor) -> None:
    """Raise unless all named logits are floating tensors ``[..., vocab]`` of at least one word."""
    for name, tensor in logits.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of floating-point logits [..., vocab]; got {kind}.")
        if tensor.dim() == 0 or tensor.shape[-1] == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected [..., vocab] with at least one word.")


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """What losses are computed in: float64 if any input is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


class ClosedForm(torch.autograd.Function):
    """A kernel's values ``[...]`` times ``weights``, which are 0 where a position does not count, or their sum.

    Differentiable once, in the student's logits.
    """

    @staticmethod
    def forward(ctx, student, teacher, extra, weights, job, summed):
        # Autocast narrows matrix products only, and the kernels have none.
        values, gradient, factor = _stream(student, teacher, extra, weights, job)
        total = values.sum()
        if not math.isfinite(total) and factor is not None:  # a piece that was computed carelessly
            values, gradient, factor = _stream(student, teacher, extra, weights, job, careful=True)
            total = values.sum()
        if math.isnan(total):
            refuse_nan(values, student, teacher, job.teacher_name)
        ctx.save_for_backward(gradient)
        ctx.student_dtype, ctx.factor = student.dtype, factor
        outcome = total if summed else values
        return outcome if factor is None else outcome.mul_(factor)

    @staticmethod
    def backward(ctx, outer):
        (gradient,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = NotTwice.apply(gradient.detach().requires_grad_())
        if ctx.factor is not None:
            outer = outer * ctx.factor
        gradient = _chain(gradient, outer)
        if gradient.dtype != ctx.student_dtype:
            gradient = gradient.to(ctx.student_dtype)
        return gradient, None, None, None, None, None


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
    def forward(student, teacher, extra, weights, job):
        values, gradient, _ = _stream(student, teacher, extra, weights, job)
        if math.isnan(values.sum()):
            refuse_nan(values, student, teacher, job.teacher_name)
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
            return (None,) * 5
        return _chain(ctx.saved_tensors[0], outer).to(ctx.student_dtype), None, None, None, None

    @staticmethod
    def vmap(info, in_dims, student, teacher, extra, weights, job):
        def lead(tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None:
                return None
            return tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

        student, teacher, extra, weights = map(lead, (student, teacher, extra, weights), in_dims[:4])
        if student.dim() == 2:
            weights = weights.reshape(-1)
        elif weights.dim() == 1:  # one weight per example of the batch, for all its positions
            weights = weights.reshape(-1, *[1] * (student.dim() - 2))
        return Transformable.apply(student, teacher, extra, weights, job), (0, 0)


def _chain(gradient: Tensor, outer: Tensor) -> Tensor:
    """The gradient times what came from outside; a large one is not copied for the 1 of ``loss.backward()``."""
    if gradient.numel() > CPU_PIECE and not torch.is_grad_enabled() and _is_one(outer):
        return gradient
    return gradient * (outer.unsqueeze(-1) if outer.dim() else outer)


def _stream(
    student: Tensor,
    teacher: Tensor,
    extra: Tensor | None,
    weights: Tensor | float,
    job: Job,
    *,
    careful: bool = False,
) -> tuple[Tensor, Tensor, float | None]:
    """Values ``[...]``, if wanted their gradient ``[..., vocab]`` (else empty), and what both must yet be times.

    With such a factor they may be infinite or NaN for want of care, and are worth a second, ``careful`` try.
    """
    *positions, vocab = student.shape
    count, step = math.prod(positions), _rows_of_a_piece(student)
    everything = isinstance(weights, float)
    if everything and count <= step:
        return _one_piece(student, teacher, extra, weights, job, careful)
    counted = None  # every position
    if everything:
        weights = torch.full((count,), weights, dtype=job.dtype, device=student.device)
    else:
        weights = weights.expand(positions or (1,)).reshape(count)
        counted = weights.nonzero().squeeze(-1)
        if counted.numel() == count:
            counted = None
    values = weights.new_zeros(count)
    make = student.new_empty if counted is None else student.new_zeros
    gradient = make((count, vocab) if job.wants_gradient else (0,), dtype=_kept_dtype(student, job))
    read_student, read_teacher = (_reader(logits, counted) for logits in (student, teacher))
    read_extra = None if extra is None else _reader(extra, counted)
    total = count if counted is None else counted.numel()
    for start in range(0, total, step):
        piece = slice(start, min(start + step, total))
        rows = piece if counted is None else counted[piece]
        value, slope = job.kernel(
            *(_soften(read(piece), job) for read in (read_student, read_teacher)),
            job.wants_gradient,
            *(() if read_extra is None else (read_extra(piece),)),
        )
        weight = weights[rows]
        values[rows] = value.mul_(weight)
        if slope is None:
            continue
        factor = (weight if job.temperature == 1 else weight / job.temperature).unsqueeze(-1)
        if counted is None:
            torch.mul(slope, factor, out=gradient[rows])
        else:
            gradient.index_copy_(0, rows, slope.mul_(factor).to(gradient.dtype))
    return values.reshape(positions), gradient.reshape(student.shape) if job.wants_gradient else gradient, None


def _one_piece(
    student: Tensor, teacher: Tensor, extra: Tensor | None, weight: float, job: Job, careful: bool
) -> tuple[Tensor, Tensor, float | None]:
    """:func:`_stream` where all counts alike and fits: nothing to gather or to scatter, and few operations."""
    rows = _soften(student, job), _soften(teacher, job)
    if extra is None:
        values, slope = job.kernel(*rows, job.wants_gradient, careful=careful)
    else:
        flat = [x.reshape(-1, x.shape[-1]) for x in (*rows, extra)]
        values, slope = job.kernel(*flat[:2], job.wants_gradient, flat[2])
        values = values.reshape(student.shape[:-1])
        slope = slope if slope is None else slope.reshape(student.shape)
    if slope is None:
        return values, values.new_empty(0), weight
    if job.temperature != 1:
        slope.mul_(1 / job.temperature)
    if slope.numel() > CPU_PIECE and (careful or math.isfinite(values.sum())):
        # Multiplied now, in place, so that backward need not copy.
        return values.mul_(weight), slope.mul_(weight).to(_kept_dtype(student, job)), None
    return values, slope, weight


def _rows_of_a_piece(student: Tensor) -> int:
    return max(1, (CPU_PIECE if student.device.type == "cpu" else GPU_PIECE) // student.shape[-1])


def _kept_dtype(student: Tensor, job: Job) -> torch.dtype:
    # float16 would lose the small gradients of a long mean before a gradient scaler could save them.
    return job.dtype if student.dtype == torch.float16 else student.dtype


def _soften(logits: Tensor, job: Job) -> Tensor:
    if logits.dtype != job.dtype:
        logits = logits.to(job.dtype)
    return logits if job.temperature == 1 else logits / job.temperature


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


def refuse_nan(values: Tensor, student: Tensor, teacher: Tensor, teacher_name: str = "teacher_logits") -> NoReturn:
    """Name the argument that made a value NaN; good input has paid one look at the total."""
    where = values.isnan()
    first = tuple(where.nonzero()[0].tolist())
    for name, tensor in (("student_logits", student), (teacher_name, teacher)):
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
        f"student_logits and {teacher_name} give no number at position {list(first)} although each is a "
        "distribution: they share no word, or the temperature is too small for their size."
    )
