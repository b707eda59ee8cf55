"""Forward and reverse KL, each weighed by where student and teacher differ (Wu et al. 2025, adaptive KL)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from workbench.errors import check_between
from workbench.losses.closed_form import Kernel, closed_form_loss
from workbench.losses.kernels import SMALL, gap_and_probabilities, sum_possible, weighted_kl

FIRST_LOOK = 64  # likeliest words that are sorted at first; half of the probability seldom needs more


def adaptive_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    mu: float = 0.5,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""A mean of both directions: forward KL by the gap in the teacher's head, reverse KL by that in its tail.

    .. math:: T^2 \left[\frac{g_h}{g_h + g_t} KL(p \| q) + \frac{g_t}{g_h + g_t} KL(q \| p)\right], \qquad
        g = \sum |p_v - q_v|

    The head of a position are its likeliest words under the teacher while their probabilities, added
    up from the top, stay at or below ``mu``, and always the first; the tail are all others. Words of
    exactly equal probability come in the order in which torch sorts them. The weights hold still: no gradient flows
    through them. Where p equals q both gaps are 0, and so is the loss.

    Arguments, result and errors as in :func:`forward_kl`, and ``mu`` from 0 (the head is one word) to
    1 (all words: forward KL); +inf where either side forbids what the other allows, unless that
    direction has no weight at all.
    """
    return closed_form_loss(
        adaptive_kernel(mu), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def adaptive_kernel(mu: float = 0.5) -> Kernel:
    """Value and gradient of :func:`adaptive_kl` on rows of logits; raises what it raises."""
    check_between(0, 1, mu=mu)
    if mu == 1:  # no rounding of a sum near 1 shall decide where the head ends
        return partial(weighted_kl, forward=1.0, reverse=0.0)
    return partial(_weighted_by_gaps, mu=mu)


def _weighted_by_gaps(
    student: Tensor, teacher: Tensor, wants_gradient: bool, *, mu: float, careful: bool = True
) -> tuple[Tensor, Tensor | None]:
    gap, p, q = gap_and_probabilities(student, teacher)
    forward, reverse = _weights(p, q, mu)
    forward_value = sum_possible(p * gap, p, q, careful=careful)
    terms = gap.mul_(q)
    reverse_value = sum_possible(terms, p, q, careful=careful).neg_()
    if careful:  # an infinite direction without weight counts nothing, and unusable logits stay NaN
        value = (forward_value * forward).masked_fill_(forward == 0, 0.0)
        value += (reverse_value * reverse).masked_fill_(reverse == 0, 0.0)
        value += (p[..., 0] + q[..., 0]).mul_(0)
    else:
        value = (forward_value * forward).addcmul_(reverse_value, reverse)
    if not wants_gradient:
        return value, None
    slope = terms.addcmul_(q, reverse_value.unsqueeze(-1)).mul_(reverse.neg().unsqueeze(-1))
    if careful and not reverse_value.isfinite().all():
        slope.masked_fill_((reverse == 0).unsqueeze(-1), 0.0)
    return value, slope.addcmul_(q.sub_(p), forward.unsqueeze(-1))


def _weights(p: Tensor, q: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """The shares ``[rows]`` of the gap |p - q| that lie in the head and in the tail; both 0 where there is no gap."""
    vocab = p.shape[-1]
    looked_at = vocab if vocab <= SMALL else FIRST_LOOK
    while True:
        if looked_at < vocab:
            top, words = p.topk(looked_at, dim=-1)
        else:
            top, words = p.sort(dim=-1, descending=True, stable=True)
        cumulative = top.cumsum(-1)
        if looked_at == vocab or bool((cumulative[..., -1] > mu).all()):
            break
        looked_at = min(vocab, 16 * looked_at)
    tail = cumulative > mu
    tail[..., 0] = False
    gaps = top.sub_(q.gather(-1, words)).abs_().masked_fill_(tail, 0.0)
    head_gap = gaps.sum(-1)
    total = (p - q).abs_().sum(-1)
    tail_gap = (total - head_gap).clamp_(min=0)
    total.clamp_(min=torch.finfo(p.dtype).tiny)
    return head_gap / total, tail_gap / total
