"""Autograd around a chunked loss: a few rows of logits exist at a time, the gradient is made in the forward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.losses.closed_form import GPU_PIECE, Kernel, NotTwice
from workbench.losses.heads import Head

IGNORED = -100  # the label of a position without a next word
PIECE = 2**19  # logits per thread that the loss is made of at once: fewer gain nothing, more leave the cache


@dataclass(frozen=True)
class Plan:
    """All that one evaluation needs besides the graph.

    ``scale`` multiplies the sum over rows of ``kd_weight * divergence + ce_weight * cross-entropy``.
    """

    student: Head
    teacher: Head
    positions: Tensor  # [rows], flat, of what counts
    labels: Tensor | None  # [rows], IGNORED where there is none
    kernel: Kernel
    temperature: float
    kd_weight: float
    ce_weight: float
    scale: float
    chunk_size: int
    dtype: torch.dtype  # of logits and sums
    wants: tuple[bool, bool, bool]  # gradients of hidden states, weight, bias


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class ChunkedLoss(torch.autograd.Function):
    """The loss of a plan, differentiable once in the student's hidden states, weight and bias."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, plan):
        with torch.autocast(plan.student.hidden.device.type, enabled=False):  # the heads know what to multiply in
            total, gradients = _stream(plan)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        # float16 would lose the small gradients of a long mean before a gradient scaler could save them.
        ctx.save_for_backward(
            *(
                gradient if gradient is None or dtype == torch.float16 else gradient.to(dtype)
                for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
            )
        )
        return total

    @staticmethod
    def backward(ctx, outer):
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *[None if gradient is None else _chain(gradient, outer).to(dtype) for gradient, dtype in pairs], None


def _chain(gradient: Tensor, outer: Tensor) -> Tensor:
    """The gradient times what came from outside, without a copy unless the graph is used again."""
    if torch.is_grad_enabled():
        return NotTwice.apply(gradient.detach().requires_grad_()) * outer
    if torch._C._autograd._get_current_graph_task_keep_graph():  # no public name; backward() could not be repeated
        return gradient * outer
    return gradient if outer == 1 else gradient.mul_(outer)


def _stream(plan: Plan) -> tuple[Tensor, Gradients]:
    """The loss and its gradients; nothing of size ``[tokens, vocab]`` beyond two buffers of a chunk."""
    student, count = plan.student, len(plan.positions)
    vocab = student.weight.shape[0]
    values = student.hidden.new_zeros(count, dtype=plan.dtype)
    gradients = _empty_gradients(plan)
    rows = min(plan.chunk_size, count)
    buffers = [head.hidden.new_empty((rows, vocab), dtype=head.matmul_dtype) for head in (student, plan.teacher)]
    for chunk in _spans(count, plan.chunk_size):
        positions = plan.positions[chunk]
        hidden = student.rows(positions)
        student_logits, teacher_logits = (buffer[: len(positions)] for buffer in buffers)
        student.project(hidden, out=student_logits)
        if plan.kd_weight:
            plan.teacher.project(plan.teacher.rows(positions), out=teacher_logits)
        for piece in _spans(len(positions), _piece_rows(vocab, student.hidden.device)):
            labels = None if plan.labels is None else plan.labels[chunk][piece]
            values[chunk][piece] = _rows(plan, student_logits[piece], teacher_logits[piece], labels)
        _accumulate(plan, gradients, student_logits, hidden, positions, first=chunk.start == 0)
    total = values.sum().mul_(plan.scale)
    if math.isnan(total):
        _refuse_nan(plan, values)
    return total, gradients


def _rows(plan: Plan, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
    """Values ``[rows]``; the student's logits ``[rows, vocab]`` give way to the gradient, the teacher's to anything."""
    logits = plan.student.finish(student.to(plan.dtype))
    wants_gradient = any(plan.wants)
    value, slope = logits.new_zeros(len(logits)), None
    if plan.kd_weight:
        teacher = plan.teacher.finish(teacher.to(plan.dtype))
        soft = logits
        if plan.temperature != 1:
            soft, teacher = logits / plan.temperature, teacher.div_(plan.temperature)
        value, slope = plan.kernel(soft, teacher, wants_gradient)
        value.mul_(plan.kd_weight)
        if wants_gradient:
            slope.mul_(plan.kd_weight / plan.temperature)
    if labels is not None:
        entropy, ce_slope = _cross_entropy(logits, labels, wants_gradient)
        value.add_(entropy, alpha=plan.ce_weight)
        if wants_gradient:
            slope = ce_slope.mul_(plan.ce_weight) if slope is None else slope.add_(ce_slope, alpha=plan.ce_weight)
    if wants_gradient:
        student.copy_(plan.student.through_cap(slope, logits))
    return value


def _cross_entropy(logits: Tensor, labels: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    counts = labels != IGNORED
    index = labels.clamp(min=0).unsqueeze(-1)
    value = logits.logsumexp(-1).sub_(logits.gather(-1, index).squeeze(-1)).masked_fill_(~counts, 0.0)
    if not wants_gradient:
        return value, None
    slope = logits.softmax(-1)
    slope.scatter_add_(-1, index, slope.new_full(index.shape, -1.0))
    return value, slope.mul_(counts.unsqueeze(-1))


def _empty_gradients(plan: Plan) -> Gradients:
    student, (hidden, weight, bias) = plan.student, plan.wants
    make = torch.empty if len(plan.positions) else torch.zeros  # the first chunk writes, the others add
    like = {"dtype": plan.dtype, "device": student.hidden.device}
    return (
        torch.zeros(student.hidden.shape, **like) if hidden else None,
        make(student.weight.shape, **like) if weight else None,
        torch.zeros(student.weight.shape[:1], **like) if bias else None,
    )


def _accumulate(
    plan: Plan, gradients: Gradients, slope: Tensor, hidden: Tensor, positions: Tensor, *, first: bool
) -> None:
    of_hidden, of_weight, of_bias = gradients
    rows = None if of_hidden is None else of_hidden.new_zeros(hidden.shape)
    plan.student.gradients(slope, hidden, of_hidden=rows, of_weight=of_weight, scale=plan.scale, first=first)
    if of_hidden is not None:
        of_hidden.view(-1, hidden.shape[-1]).index_copy_(0, positions, rows)
    if of_bias is not None:
        of_bias.add_(slope.sum(0, dtype=of_bias.dtype), alpha=plan.scale)


def _piece_rows(vocab: int, device: torch.device) -> int:
    return max(1, (PIECE * torch.get_num_threads() if device.type == "cpu" else GPU_PIECE) // vocab)


def _spans(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _refuse_nan(plan: Plan, values: Tensor) -> None:
    """Say whose logits are unusable at the first row that is."""
    row = int(values.isnan().nonzero()[0])
    position = plan.positions[row : row + 1]
    where = torch.unravel_index(position, plan.student.hidden.shape[:-1])
    found = [int(axis) for axis in where]
    for name, head in (("student", plan.student), ("teacher", plan.teacher)):
        logits = values.new_empty((1, head.weight.shape[0]), dtype=head.matmul_dtype)
        head.project(head.rows(position), out=logits)
        logits = head.finish(logits.to(plan.dtype))
        if bool(logits.isnan().any() | logits.isposinf().any() | logits.isneginf().all()):
            raise ValueError(
                f"the {name}'s hidden states, weight and bias give no usable logits (NaN, +inf or nothing but -inf) "
                f"at a position that counts ({int(values.isnan().sum())} rows are unusable, the first at {found}): "
                "mask such positions, or find what made the model diverge."
            )
    raise ValueError(
        f"student and teacher give no number at position {found} although each is a distribution: "
        "they share no word, or the temperature is too small for the size of their logits."
    )
