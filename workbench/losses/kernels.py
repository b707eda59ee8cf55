"""Values and gradients of the divergences in closed form, on rows of logits.

A kernel maps student and teacher logits ``[rows, vocab]`` to the value of each row, ``[rows]`` in nats,
and the gradient with respect to the student's logits, ``[rows, vocab]``, or None where nobody asks.
It never writes to what it is given, and takes any axes for ``rows``. Not ``careful``, it may give NaN or
infinity for logits of -inf that a careful one has a number for. Symbols: p teacher, q student, m a mixture of both.

Nothing here goes through autograd: a word costs two softmaxes and, in a mixture, one logarithm; no
intermediate outlives the call, so that a caller who hands over few rows at a time needs little memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALL = 128  # words; below, a reduction's cost per row exceeds that of an exponential per word
LOG2_E = math.log2(math.e)
FAR = 1e4  # nats; exp(-FAR) is 0 in every float type, and FAR times that 0 is still 0
NEAR = 80.0  # nats; exp(NEAR) is finite in float32, and a word that much likelier on one side counts as exp(-NEAR)


def gap_and_probabilities(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``log p - log q``, p and q of logits ``[rows, vocab]``; a row is NaN in all words if its logits are unusable.

    The gap is NaN where both forbid a word; a softmax is NaN in every word or in none.

    Of many words, the logarithm of what softmax divided by is read off the likeliest, so that no other
    pass is needed; softmax's own kernel is faster than ``exp``. Equal logits give a gap of exactly 0.
    """
    if student.shape[-1] <= SMALL:
        log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
        gap = log_p - log_q
        return gap, log_p.mul_(LOG2_E).exp2_(), log_q.mul_(LOG2_E).exp2_()  # twice as fast as exp in torch
    p, q = teacher.softmax(-1), student.softmax(-1)
    offset = _log_normaliser(teacher, p).sub_(_log_normaliser(student, q))
    return (teacher - student).sub_(offset), p, q


def sum_possible(terms: Tensor, *probabilities: Tensor, careful: bool = True) -> Tensor:
    """Sums over words ``[rows]`` without those of probability 0, which are 0 * inf or NaN; infinite terms stay.

    Those terms are set to 0. They are rare, so one look at the total decides whether to look for
    them; what is NaN in ``probabilities`` too is unusable and stays NaN.
    """
    value = terms.sum(-1)
    if careful and math.isnan(value.sum()):
        value = terms.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(-1)
        for one in probabilities:
            value.add_(one[..., 0] * 0)
    return value


def _log_normaliser(logits: Tensor, probabilities: Tensor) -> Tensor:
    return logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log_()


def weighted_kl(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, forward: float, reverse: float, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``forward * KL(p || q) + reverse * KL(q || p)``; +inf where a word is possible on one side only."""
    if not forward:
        return _reverse_kl(student, teacher, wants_gradient, reverse, careful)
    gap, p, q = gap_and_probabilities(student, teacher)
    value, gradient = sum_possible(p * gap if reverse else gap.mul_(p), p, q, careful=careful), None
    if forward != 1:
        value.mul_(forward)
    if wants_gradient:
        gradient = torch.sub(q, p, out=p)  # q may be needed below, p is not
        if forward != 1:
            gradient.mul_(forward)
    if reverse:
        terms = gap.mul_(q)
        reverse_value = sum_possible(terms, p, q, careful=careful).neg_()
        value.add_(reverse_value, alpha=reverse)
        if wants_gradient:  # q * ((log q - log p) - KL(q || p)), here with the other sign
            gradient.sub_(terms.addcmul_(q, reverse_value.unsqueeze(-1)), alpha=reverse)
    return value, gradient


def _reverse_kl(
    student: Tensor, teacher: Tensor, wants_gradient: bool, reverse: float, careful: bool
) -> tuple[Tensor, Tensor | None]:
    gap, q, p = gap_and_probabilities(teacher, student)  # exchanged: log q - log p
    terms = gap.mul_(q)
    value, slope = sum_possible(terms, p, q, careful=careful), None
    if wants_gradient:
        slope = terms.addcmul_(q, value.unsqueeze(-1), value=-1)
    if reverse != 1:
        value, slope = value.mul_(reverse), slope if slope is None else slope.mul_(reverse)
    return value, slope


def weighted_mixture(
    student: Tensor,
    teacher: Tensor,
    wants_gradient: bool,
    *,
    share: float,
    forward: float,
    reverse: float,
    careful: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """``forward * KL(p || m) + reverse * KL(q || m)`` with ``m = share * p + (1 - share) * q``; always finite.

    The mixture is never formed: ``log(p / m)`` and ``log(q / m)`` follow from ``log p - log q`` alone,
    so that nothing overflows and equal inputs give exactly 0.
    """
    if forward and not reverse:  # exchanged: log q - log p
        gap, q, p = gap_and_probabilities(teacher, student)
    else:
        gap, p, q = gap_and_probabilities(student, teacher)
    unusable = None
    if careful and not math.isfinite(gap.sum()):  # NaN: impossible for both, counts nothing
        gap.nan_to_num_(nan=0.0, posinf=FAR, neginf=-FAR)
        unusable = (p[..., 0] + q[..., 0]) * 0
    if forward and reverse:
        value, gradient = _to_mixture_of_both(gap, p, q, wants_gradient, share, forward, reverse)
    elif forward:
        value, gradient = _to_mixture_of_teacher(gap, p, q, wants_gradient, share, forward)
    else:
        value, gradient = _to_mixture_of_student(gap, p, q, wants_gradient, share, reverse)
    return value if unusable is None else value.add_(unusable), gradient


def _to_mixture_of_teacher(
    gap: Tensor, p: Tensor, q: Tensor, wants_gradient: bool, share: float, forward: float
) -> tuple[Tensor, Tensor | None]:
    """``forward * KL(p || share p + (1 - share) q)`` by ``m / p`` from ``log q - log p``, which is overwritten."""
    excess = gap.clamp_(max=NEAR).expm1_().mul_(1 - share)  # m / p - 1, above -1
    value = _log1p(excess, share).mul_(p).sum(-1).mul_(-forward)
    if not wants_gradient:
        return value, None
    overlap = torch.div(q, _plus_one(excess, share), out=p)  # p * q / m
    slope = overlap.addcmul_(q, overlap.sum(-1, keepdim=True), value=-1)
    return value, slope.mul_(-forward * (1 - share))


def _to_mixture_of_student(
    gap: Tensor, p: Tensor, q: Tensor, wants_gradient: bool, share: float, reverse: float
) -> tuple[Tensor, Tensor | None]:
    """``reverse * KL(q || share p + (1 - share) q)`` by ``m / q`` from ``log p - log q``, which is overwritten."""
    excess = gap.clamp_(max=NEAR).expm1_().mul_(share)  # m / q - 1, above -1
    terms = _log1p(excess, 1 - share).mul_(q)
    value = terms.sum(-1).mul_(-reverse)
    if not wants_gradient:
        return value, None
    overlap = torch.div(p, _plus_one(excess, 1 - share), out=p)  # p * q / m
    slope = torch.sub(overlap.mul_(share), terms, out=terms)
    slope.addcmul_(q, slope.sum(-1, keepdim=True), value=-1)
    return value, slope if reverse == 1 else slope.mul_(reverse)


def _to_mixture_of_both(
    gap: Tensor, p: Tensor, q: Tensor, wants_gradient: bool, share: float, forward: float, reverse: float
) -> tuple[Tensor, Tensor | None]:
    """Both divergences, measured from the larger of p and q, so that one logarithm serves them; gap overwritten."""
    # m / max(p, q) - 1 = (share of the smaller) * (min(p, q) / max(p, q) - 1)
    excess = gap.abs().neg_().expm1_()
    if share == 0.5:
        excess.mul_(share)
    else:  # arithmetic on the sign: torch.where costs several times as much
        teacher_is_larger = gap.sign().clamp_(min=0)
        student_is_larger = teacher_is_larger.neg().add_(1)
        excess.mul_(teacher_is_larger.mul_(1 - share).add_(student_is_larger, alpha=share))
    # log(max(p, q) / m), between 0 and -log(the share of the larger)
    log_larger = _log1p(excess, min(share, 1 - share)).neg_()
    value = gap.clamp(max=0).add_(log_larger).mul_(p).sum(-1).mul_(forward)
    log_q_over_m = log_larger.sub_(gap.clamp_(min=0))
    reverse_value = (log_q_over_m * q).sum(-1)
    value.add_(reverse_value, alpha=reverse)
    if not wants_gradient:
        return value, None
    gradient = log_q_over_m.sub_(reverse_value.unsqueeze(-1)).mul_(q).mul_(reverse)
    # What log m itself contributes; in the Jensen-Shannon divergence the two halves cancel.
    overlap_weight = reverse * share - forward * (1 - share)
    if overlap_weight:
        overlap = torch.minimum(p, q).div_(_plus_one(excess, min(share, 1 - share)))  # p * q / m
        gradient.add_(overlap.addcmul_(q, overlap.sum(-1, keepdim=True), value=-1), alpha=overlap_weight)
    return value, gradient


TINY_SHARE = 1e-6  # below, 1 - share may round to 1 and what is measured from it to log(0) or 1 / 0


def _log1p(excess: Tensor, share: float) -> Tensor:
    logarithm = excess.log1p()
    return logarithm if share > TINY_SHARE else logarithm.clamp_(min=-FAR)


def _plus_one(excess: Tensor, share: float) -> Tensor:
    excess.add_(1)
    return excess if share > TINY_SHARE else excess.clamp_(min=torch.finfo(excess.dtype).tiny)


def distance(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``sum |p - q|``; the slope at a tie is taken as 0."""
    del careful  # nothing here is infinite
    q = student.softmax(-1)
    difference = q - teacher.softmax(-1)
    value = difference.abs().sum(-1)  # six times as fast as the norm
    if not wants_gradient:
        return value, None
    slope = difference.sign_().mul_(q)
    return value, slope.addcmul_(q, slope.sum(-1, keepdim=True), value=-1)


def kl_to_blend(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, t: float, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``KL(softmax((1 - t) * student + t * teacher) || q)``, the blend held fixed; exactly 0 at t = 0."""
    target = blend(student, teacher, t)
    return weighted_kl(student, target, wants_gradient, forward=1.0, reverse=0.0, careful=careful)


def blend(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """``(1 - t) * student + t * teacher`` of logits; a word that is -inf on a side of weight 0 is not lost."""
    if t == 0:
        return student
    if t == 1:
        return teacher
    return ((1 - t) * student).add_(teacher, alpha=t)
