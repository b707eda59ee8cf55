"""A model's last layer and the loss behind it in one, for vocabularies whose logits do not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.errors import check_mask, check_positive
from workbench.losses.chunked_autograd import IGNORED, ChunkedLoss, Plan
from workbench.losses.closed_form import wide_dtype
from workbench.losses.heads import Head, matmul_dtype
from workbench.losses.reduction import token_weights
from workbench.losses.row_kernels import row_kernel

BUFFER_BYTES = 88 * 2**20  # of logits, both models' together; the gradient of the weight comes on top
ROWS = 16  # a chunk is a multiple of this: matrix products like it


def chunked_linear_distillation(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    mask: Tensor | None = None,
    *,
    loss: str = "forward_kl",
    loss_options: Mapping[str, Any] | None = None,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    labels: Tensor | None = None,
    ce_weight: float = 0.0,
    kd_weight: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    softcap: float | Sequence[float | None] | None = None,
    chunk_size: int | None = None,
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Distillation from hidden states: both last layers, the loss and its gradient, a few rows of logits at a time.

    .. math:: w_{kd} \, \mathrm{mean}_{mask} D(p, q) + w_{ce} \, \mathrm{mean}_{labels} (-\log q_{label})

    The same number and gradients as the loss of that name on ``student_hidden @ student_weight.T`` and
    ``teacher_hidden @ teacher_weight.T``, but no logits beyond a chunk ever exist: memory beyond the result
    (the gradient of the weight, where it is trained) does not grow with the tokens. Positions that
    do not count are never multiplied.

    Args:
        student_hidden: ``[..., width]``, what the last layer reads, of any leading axes.
        student_weight: ``[vocab, width]``; without ``requires_grad`` (a frozen head, LoRA) its gradient costs nothing.
        teacher_hidden: ``[..., width of the teacher]``, the same positions; no gradient flows to the teacher.
        teacher_weight: ``[vocab, width of the teacher]``, of the same vocabulary.
        mask: ``[...]`` bool, True where a position counts; None counts all. What lies elsewhere is not read.
        loss: ``forward_kl | reverse_kl | jeffreys | symmetric_kl | generalized_jsd | skew_kl | taid``.
        loss_options: the loss's own options, such as ``{"beta": 0.5}``; ``taid`` needs ``{"t": ...}``.
        student_bias, teacher_bias: ``[vocab]``, added to the logits.
        labels: ``[...]`` integer, the next words; -100 where there is none, which cross-entropy alone skips.
        ce_weight: of the cross-entropy on ``labels`` (at temperature 1), a mean over those that count.
        kd_weight: of the distillation loss; with 0 the teacher is not read.
        temperature: above 0, which both logits are divided by, for the distillation loss alone.
        scale_by_t2: multiply the distillation loss by its square.
        softcap: ``c`` of ``c * tanh(logits / c)`` (Gemma) for both models, or (student's, teacher's).
        chunk_size: rows of logits at a time; None takes what fits 88 MiB.
        num_items: divide both sums by this instead, so that the parts of an accumulated batch add up to the
            mean over the whole.

    Under ``torch.autocast`` the products run in its type; hidden states and weights in bfloat16 are multiplied
    as such. Sums, softmax and loss are float32 all the same (float64 if an input is): bfloat16 logits move the
    loss by about 1e-3 of itself. A model that scales its logits is served by scaled hidden states.

    Returns:
        A scalar, differentiable once, connected to the graph and exactly 0 when nothing counts.

    Raises:
        ValueError: other shapes or vocabularies, a number outside its range, labels outside the vocabulary,
            logits that are NaN, +inf or nothing but -inf at a position that counts.
        UnknownName: no such loss or option.
        TypeError: tensors that are not floating-point, a mask that is not bool, labels that are not integers.
    """
    kernel = row_kernel(loss, loss_options)
    check_positive(temperature=temperature)
    for name, number in (("ce_weight", ce_weight), ("kd_weight", kd_weight)):
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name}={number!r} must be a finite number from 0 up.")
    if ce_weight and labels is None:
        raise ValueError(f"ce_weight={ce_weight:g} needs labels, the next word at each position.")
    caps = _caps(softcap)
    student = _head("student", student_hidden, student_weight, student_bias, caps[0])
    teacher = _head("teacher", teacher_hidden, teacher_weight, teacher_bias, caps[1])
    _check_pair(student, teacher)
    shape, vocab = student.hidden.shape[:-1], student.weight.shape[0]
    check_mask(mask, shape)
    dtype = wide_dtype(*(x for head in (student, teacher) for x in (head.hidden, head.weight)))
    counted = _counted(mask, shape, student.hidden.device)
    next_words = _labels(labels, shape, vocab, counted) if labels is not None else None
    scale = float(
        token_weights(
            counted.shape, None, reduction="token_mean", num_items=num_items, dtype=torch.float64, device="cpu"
        )
    )
    if ce_weight and num_items is None:  # its mean is over the labels, the scale one over the positions
        ce_weight *= len(counted) / max(1, int((next_words != IGNORED).sum()))
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in
              (student_hidden, student_weight, student_bias)]  # fmt: skip
    plan = Plan(
        student,
        teacher,
        counted,
        next_words if ce_weight else None,
        kernel,
        float(temperature),
        kd_weight * (temperature**2 if scale_by_t2 else 1.0),
        ce_weight,
        scale,
        _chunk_rows(chunk_size, len(counted), student, teacher),
        dtype,
        tuple(wanted),
    )
    return ChunkedLoss.apply(student_hidden, student_weight, student_bias, plan)


def _head(name: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, cap: float | None) -> Head:
    for part, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is None and part == "bias":
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"{name}_{part} must be a floating-point tensor; got {kind}. A quantized layer gives its "
                "dequantized weight."
            )
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(f"{name}_weight has shape {tuple(weight.shape)}: expected [vocab, width], neither of them 0.")
    if hidden.dim() < 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{name}_hidden has shape {tuple(hidden.shape)}: expected [..., {weight.shape[1]}], the width that "
            f"{name}_weight {tuple(weight.shape)} reads."
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"{name}_bias has shape {tuple(bias.shape)}, expected {(weight.shape[0],)}: one per word.")
    bias = None if bias is None else bias.detach()
    return Head(hidden.detach(), weight.detach(), bias, cap, matmul_dtype(hidden, weight))


def _check_pair(student: Head, teacher: Head) -> None:
    if student.weight.shape[0] != teacher.weight.shape[0]:
        raise ValueError(
            f"student_weight {tuple(student.weight.shape)} and teacher_weight {tuple(teacher.weight.shape)} have "
            "different vocabularies: use uld on logits, which compares sorted probabilities."
        )
    if student.hidden.shape[:-1] != teacher.hidden.shape[:-1]:
        raise ValueError(
            f"student_hidden {tuple(student.hidden.shape)} and teacher_hidden {tuple(teacher.hidden.shape)} must "
            "have the same positions, all axes but the last."
        )


def _caps(softcap: float | Sequence[float | None] | None) -> tuple[float | None, float | None]:
    caps = tuple(softcap) if isinstance(softcap, Sequence) else (softcap, softcap)
    if len(caps) != 2:
        raise ValueError(f"softcap={softcap!r} must be one number for both models, or (student's, teacher's).")
    for cap in caps:
        if cap is not None:
            check_positive(softcap=cap)
    return caps


def _counted(mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """Flat positions ``[rows]`` that count."""
    if mask is None:
        return torch.arange(math.prod(shape), device=device)
    return mask.reshape(-1).nonzero().squeeze(-1).to(device)


def _labels(labels: Tensor, shape: torch.Size, vocab: int, counted: Tensor) -> Tensor:
    """Those of the positions that count, ``[rows]``."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be an integer tensor; got {getattr(labels, 'dtype', type(labels).__name__)}.")
    if labels.shape != shape:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, expected {tuple(shape)}: one per position.")
    found = labels.reshape(-1).to(counted.device)[counted].long()
    wrong = found[((found < 0) | (found >= vocab)) & (found != IGNORED)]
    if len(wrong):
        raise ValueError(
            f"labels holds {int(wrong[0])} at a position that counts: expected 0 to {vocab - 1}, "
            f"or {IGNORED} where there is no next word."
        )
    return found


def _chunk_rows(chunk_size: int | None, count: int, student: Head, teacher: Head) -> int:
    """Rows at a time: those asked for, else as many equal chunks as the buffers need."""
    if chunk_size is not None:
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size <= 0:
            raise ValueError(f"chunk_size={chunk_size!r} must be a whole number above 0, the rows at a time.")
        return chunk_size
    row = student.weight.shape[0] * (student.matmul_dtype.itemsize + teacher.matmul_dtype.itemsize)
    fitting = max(ROWS, BUFFER_BYTES // row // ROWS * ROWS)
    chunks = max(1, math.ceil(count / fitting))
    return max(1, math.ceil(count / chunks / ROWS) * ROWS)
