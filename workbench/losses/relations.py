"""What pulls the relations among a student's samples towards those among the teacher's; widths may differ.

Representations are ``[batch, width]`` (more axes are flattened into the width), the mask ``[batch]`` bool.
Computed in float32, or float64 if an input is; the teacher is held fixed. Fewer than two samples have no
relation: the loss is then 0, with zero gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.losses.hidden_states import prepared, unit


def relational_kd(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Tensor:
    r"""Distances of pairs and angles of triples of samples (Park et al. 2019, "Relational Knowledge Distillation").

    .. math:: w_d \, \ell(d_{ij}^s / \bar d^s, d_{ij}^t / \bar d^t)
              + w_a \, \ell(\cos \angle_{ijk}^s, \cos \angle_{ijk}^t)

    with the smooth L1 loss (Huber's, bend at 1) averaged over all ``batch^2`` pairs and ``batch^3`` triples as
    the official code does, and distances over the mean of those above 0. Neither moving, turning nor scaling
    a representation changes it. The angles need memory for ``batch^3`` numbers, 64 MiB a side at 256 samples;
    weight 0 saves it.

    Args:
        student: ``[batch, student_width]``.
        teacher: ``[batch, teacher_width]``; no gradient flows into it.
        mask: ``[batch]`` bool, True where a sample counts.
        distance_weight, angle_weight: 0 or above.

    Raises:
        ValueError: different batches, a weight that is negative or not finite.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    for name, weight in {"distance_weight": distance_weight, "angle_weight": angle_weight}.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}={weight!r} must be a finite number, 0 or above.")
    student, teacher = _samples(student, teacher, mask)
    total = student.sum() * 0.0  # keeps the graph where nothing counts
    if len(student) < 2:
        return total
    apart = [states.unsqueeze(0) - states.unsqueeze(1) for states in (student, teacher)]  # [batch, batch, width]
    if distance_weight:
        total = total + distance_weight * F.smooth_l1_loss(*map(_relative_length, apart))
    if angle_weight:
        with torch.autocast(student.device.type, enabled=False):  # it would narrow the product
            cosines = [directions @ directions.transpose(1, 2) for directions in map(unit, apart)]
        total = total + angle_weight * F.smooth_l1_loss(*cosines)
    return total


def similarity_preserving(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Samples that are alike for the teacher should be alike for the student (Tung & Mori 2019).

    .. math:: \frac{1}{batch^2} \| \tilde G_s - \tilde G_t \|_F^2, \qquad G = A A^\top

    with every row of the Gram matrix divided by its length. Turning or scaling a representation changes
    nothing, moving it does. Arguments and errors as in :func:`relational_kd`.
    """
    student, teacher = _samples(student, teacher, mask)
    if len(student) < 2:
        return student.sum() * 0.0
    with torch.autocast(student.device.type, enabled=False):
        grams = [unit(states @ states.T) for states in map(_of_length_one, (student, teacher))]
    return (grams[0] - grams[1]).square().mean()


def cka(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""One minus the linear centred kernel alignment of the two (Kornblith et al. 2019), from 0 (alike) to 1.

    .. math:: 1 - \frac{\| Y^\top X \|_F^2}{\| X^\top X \|_F \, \| Y^\top Y \|_F}

    X and Y are centred over the samples, which are all positions of ``[..., width]``. Moving, turning and
    scaling change nothing. Where one of the two does not vary at all, the value is 1, without a gradient.
    The estimate is the biased one: with fewer samples than dimensions it is near 0 for unrelated representations, too.

    Args:
        student: ``[..., student_width]``.
        teacher: ``[..., teacher_width]`` with the same leading axes; no gradient flows into it.
        mask: ``[...]`` bool, True where a position counts.

    Raises:
        ValueError: leading axes that differ.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    student, teacher = prepared(student, teacher, mask, names=("student", "teacher"))
    student, teacher = (_counted(states.flatten(0, -2), mask) for states in (student, teacher))
    if len(student) < 2:
        return student.sum() * 0.0
    x, y = (_of_length_one(states - states.mean(0)) for states in (student, teacher))
    with torch.autocast(student.device.type, enabled=False):
        if len(x) < min(x.shape[1], y.shape[1]):  # the same numbers from the smaller matrices
            gram_x, gram_y = x @ x.T, y @ y.T
            shared = (gram_x * gram_y).sum()
        else:
            gram_x, gram_y = x.T @ x, y.T @ y
            shared = (y.T @ x).square().sum()
    scale = torch.linalg.matrix_norm(gram_x) * torch.linalg.matrix_norm(gram_y)
    return 1 - shared / scale.masked_fill(scale == 0, 1.0)


def _samples(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The samples that count, ``[samples, width]`` each."""
    flat = [
        states.flatten(1) if isinstance(states, Tensor) and states.dim() > 2 else states
        for states in (student, teacher)
    ]
    student, teacher = prepared(*flat, mask, names=("student", "teacher"))
    return _counted(student, mask), _counted(teacher, mask)


def _counted(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows if mask is None else rows[mask.flatten()]


def _of_length_one(states: Tensor) -> Tensor:
    """The whole divided by its length, which none of these notices, so that squares of squares stay in range."""
    return states / torch.linalg.matrix_norm(states.detach()).clamp(min=torch.finfo(states.dtype).tiny)


def _relative_length(apart: Tensor) -> Tensor:
    """Lengths ``[batch, batch]`` of differences over the mean of those above 0."""
    lengths = torch.linalg.vector_norm(apart, dim=-1)  # its gradient at 0 is 0
    positive = lengths > 0
    mean = lengths.sum() / positive.sum().clamp(min=1)
    return lengths / mean.masked_fill(mean == 0, 1.0)
