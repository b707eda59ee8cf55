"""Values and gradients of the divergences in closed form, on rows of logits.

A kernel maps student and teacher logits ``[rows, vocab]`` to the value of each row, ``[rows]`` in nats,
and the gradient with respect to the student's logits, ``[rows, vocab]``, or None where nobody asks.
It never writes to what it is given. Symbols: p teacher, q student, m a mixture of both.

Nothing here goes through autograd: a word costs two softmaxes and, in a mixture, one logarithm; no
intermediate outlives the call, so that a caller who hands over few rows at a time needs little memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 128  # words; below, a reduction's cost per row exceeds that of an exponential per word
FAR = 1e4  # nats; exp(-FAR) is 0 in every float type, and FAR times that 0 is still 0


def gap_and_probabilities(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``log p - log q``, p and q of logits ``[rows, vocab]``, and 0 per row, NaN if its logits are unusable.

    The gap is NaN where both forbid a word; a softmax is NaN in every word or in none.

    Of many words, the logarithm of what softmax divided by is read off the likeliest, so that no other
    pass is needed; softmax's own kernel is faster than ``exp``. Equal logits give a gap of exactly 0.
    """
    if student.shape[-1] <= SMALL:
        log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
        gap = log_p - log_q
        p, q = log_p.exp_(), log_q.exp_()
        return gap, p, q, (p[:, 0] + q[:, 0]).mul_(0)
    p, q = teacher.softmax(-1), student.softmax(-1)
    offset = _log_normaliser(teacher, p).sub_(_log_normaliser(student, q))
    return (teacher - student).sub_(offset), p, q, offset.squeeze(-1).mul_(0)


def _log_normaliser(logits: Tensor, probabilities: Tensor) -> Tensor:
    return logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log_()


def weighted_kl(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, forward: float, reverse: float
) -> tuple[Tensor, Tensor | None]:
    """``forward * KL(p || q) + reverse * KL(q || p)``; +inf where a word is possible on one side only."""
    gap, p, q, value = gap_and_probabilities(student, teacher)
    gradient = None
    if forward:
        terms = p * gap if reverse else gap.mul_(p)
        value.add_(_drop_impossible(terms).sum(-1), alpha=forward)
        if wants_gradient:
            gradient = torch.sub(q, p, out=p)  # q may be needed below, p is not
            if forward != 1:
                gradient.mul_(forward)
    if reverse:
        terms = _drop_impossible(gap.mul_(q).neg_())
        reverse_value = terms.sum(-1)
        value.add_(reverse_value, alpha=reverse)
        if wants_gradient:  # q * ((log q - log p) - KL(q || p))
            slope = terms.addcmul_(q, reverse_value.unsqueeze(-1), value=-1)
            gradient = slope.mul_(reverse) if gradient is None else gradient.add_(slope, alpha=reverse)
    return value, gradient


def weighted_mixture(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, share: float, forward: float, reverse: float
) -> tuple[Tensor, Tensor | None]:
    """``forward * KL(p || m) + reverse * KL(q || m)`` with ``m = share * p + (1 - share) * q``; always finite.

    The mixture is never formed: ``log(p / m)`` and ``log(q / m)`` follow from ``log p - log q`` alone,
    measured from the larger of the two, so that nothing overflows and equal inputs give exactly 0.
    """
    gap, p, q, value = gap_and_probabilities(student, teacher)
    gap.nan_to_num_(nan=0.0, posinf=FAR, neginf=-FAR)  # NaN: impossible for both, counts nothing
    # m / max(p, q) - 1 = (share of the smaller) * (min(p, q) / max(p, q) - 1)
    excess = gap.abs().neg_().expm1_()
    if share == 0.5:
        excess.mul_(share)
    else:  # arithmetic on the sign: torch.where costs several times as much
        teacher_is_larger = gap.sign().clamp_(min=0)
        student_is_larger = teacher_is_larger.neg().add_(1)
        excess.mul_(teacher_is_larger.mul_(1 - share).add_(student_is_larger, alpha=share))
    # log(max(p, q) / m), between 0 and -log(the share of the larger); a share of 1 may round to log(0)
    log_larger = excess.log1p().neg_().clamp_(max=FAR)
    gradient = None
    if forward:
        value.add_(gap.clamp(max=0).add_(log_larger).mul_(p).sum(-1), alpha=forward)
    if reverse:
        log_q_over_m = log_larger.sub_(gap.clamp_(min=0))
        reverse_value = (log_q_over_m * q).sum(-1)
        value.add_(reverse_value, alpha=reverse)
        if wants_gradient:
            gradient = log_q_over_m.sub_(reverse_value.unsqueeze(-1)).mul_(q).mul_(reverse)
    # What log m itself contributes; in the Jensen-Shannon divergence the two halves cancel.
    overlap_weight = reverse * share - forward * (1 - share)
    if wants_gradient and overlap_weight:
        m_over_larger = excess.add_(1).clamp_(min=torch.finfo(q.dtype).tiny)
        overlap = torch.minimum(p, q).div_(m_over_larger)  # p * q / m
        overlap = overlap.addcmul_(q, overlap.sum(-1, keepdim=True), value=-1).mul_(overlap_weight)
        gradient = overlap if gradient is None else gradient.add_(overlap)
    return value, gradient


def _drop_impossible(terms: Tensor) -> Tensor:
    """Terms of a sum over p without those of p = 0, which are 0 * inf or 0 * NaN; infinite terms stay."""
    return terms.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def half_distance(student: Tensor, teacher: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """``0.5 * sum |p - q|``; the slope at a tie is taken as 0."""
    q = student.softmax(-1)
    difference = q - teacher.softmax(-1)
    value = difference.abs().sum(-1).mul_(0.5)
    if not wants_gradient:
        return value, None
    slope = difference.sign_().mul_(q)
    return value, slope.addcmul_(q, slope.sum(-1, keepdim=True), value=-1).mul_(0.5)


def kl_to_blend(student: Tensor, teacher: Tensor, wants_gradient: bool, *, t: float) -> tuple[Tensor, Tensor | None]:
    """``KL(softmax((1 - t) * student + t * teacher) || q)``, the blend held fixed; exactly 0 at t = 0."""
    return weighted_kl(student, blend(student, teacher, t), wants_gradient, forward=1.0, reverse=0.0)


def blend(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """``(1 - t) * student + t * teacher`` of logits; a word that is -inf on a side of weight 0 is not lost."""
    if t == 0:
        return student
    if t == 1:
        return teacher
    return (1 - t) * student + t * teacher
