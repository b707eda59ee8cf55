"""Distillation from the teacher's few likeliest words, as they are kept on disk."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from workbench.losses.closed_form import check_floating, row_loss
from workbench.losses.kernels import sum_possible

CERTAIN = -1e-7  # nats; the support never holds more of the probability, so that a tail's logarithm is finite
LOG_TAIL = math.log(-math.expm1(CERTAIN))  # about -16.1: the least that a tail holds
TOO_MUCH = 0.1  # nats by which rounded log-probabilities may sum above 1; bfloat16 stays below half of that


def topk_kl(
    student_logits: Tensor,
    teacher_top_logprobs: Tensor,
    teacher_top_indices: Tensor,
    mask: Tensor | None = None,
    *,
    tail: bool = True,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Forward KL to a teacher of which only ``k`` log-probabilities are known; exact when ``k`` is the vocabulary.

    .. math:: T^2 \sum_{i \in \{1..k, tail\}} p_i (\log p_i - \log q_i), \qquad
        p = \mathrm{softmax}([\ell_1, ..., \ell_k, \ell_{tail}] / T), \quad
        \ell_{tail} = \log(1 - \sum_i e^{\ell_i})

    q is made in the same way from the student's own log-probabilities at temperature 1, so that equal
    models lose nothing: all words outside the support form one bucket, which at other temperatures
    softens as one word would. A bucket holds at least 1e-7. With ``tail=False`` both sides are
    renormalised over the support alone, which says nothing about how much lies outside, and nothing
    at all when ``k`` is 1.

    With a tail it is a lower bound of the full divergence (merging words never adds to it), not
    an unbiased estimate of it: the student learns how much lies outside, not where. Leaving out words without
    a tail or a renormalisation would teach that they are impossible, which is worse.

    Args:
        student_logits: ``[..., vocab]``; the gradient flows into these.
        teacher_top_logprobs: ``[..., k]`` log-probabilities (of a log-softmax over the whole
            vocabulary at temperature 1), in any order; -inf counts nothing.
        teacher_top_indices: ``[..., k]`` integers, the words they belong to, each once.
        mask: ``[...]`` bool; where False nothing is read.
        tail: whether the rest of the vocabulary is one bucket or is left out.

    Other arguments and result as in :func:`forward_kl`.

    Raises:
        ValueError: ``k`` above the vocabulary, other shapes; at positions that count: indices outside
            the vocabulary or repeated, or numbers that are not log-probabilities.
        TypeError: indices that are not integers.
    """
    check_floating(student_logits=student_logits, teacher_top_logprobs=teacher_top_logprobs)
    _check_support(student_logits, teacher_top_logprobs, teacher_top_indices)
    return row_loss(
        partial(_sparse_kl, tail=tail, temperature=temperature), student_logits, teacher_top_logprobs, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
        extra=teacher_top_indices, teacher_name="teacher_top_logprobs",
    )  # fmt: skip


def _check_support(student: Tensor, logprobs: Tensor, indices: Tensor) -> None:
    if not isinstance(indices, Tensor) or indices.is_floating_point() or indices.dtype == torch.bool:
        kind = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"teacher_top_indices must be a tensor of integers [..., k]; got {kind}.")
    if logprobs.shape != indices.shape or logprobs.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"student_logits {tuple(student.shape)}, teacher_top_logprobs {tuple(logprobs.shape)} and "
            f"teacher_top_indices {tuple(indices.shape)} do not fit: expected [..., vocab], [..., k] and [..., k]."
        )
    if logprobs.shape[-1] > student.shape[-1]:
        raise ValueError(
            f"k={logprobs.shape[-1]} words of the teacher are more than the student's vocabulary of "
            f"{student.shape[-1]}: keep fewer, or look whether the two vocabularies are the same."
        )


def _sparse_kl(
    student: Tensor, logprobs: Tensor, wants_gradient: bool, indices: Tensor, *, tail: bool, temperature: float
) -> tuple[Tensor, Tensor | None]:
    """KL of the two bucketed distributions; ``student`` and ``logprobs`` come divided by the temperature."""
    rows, vocab = student.shape
    indices = indices.long()
    _check_words(indices, vocab)
    k = indices.shape[-1]
    if temperature != 1:  # the buckets are made at temperature 1
        student, logprobs = student * temperature, logprobs * temperature
    known = logprobs.logsumexp(-1)
    if bool((known > TOO_MUCH).any()):
        raise ValueError(
            f"teacher_top_logprobs sum to {known.max().exp():.3g} at a position that counts, more than 1: they must "
            "be log-probabilities (log_softmax over the whole vocabulary), not logits."
        )
    log_q = student.log_softmax(-1)
    support = log_q.gather(-1, indices)
    has_tail = tail and k < vocab
    if has_tail:
        outside = log_q.scatter(-1, indices, -math.inf)
        log_rest = outside.logsumexp(-1, keepdim=True)
        support = torch.cat([support, log_rest.clamp(min=LOG_TAIL)], -1)
        teacher_rest = torch.log(-torch.expm1(known.clamp(max=CERTAIN))).unsqueeze(-1)
        logprobs = torch.cat([logprobs, teacher_rest], -1)
    log_s, log_p = (x.div(temperature).log_softmax(-1) for x in (support, logprobs))
    p = log_p.exp()
    value = sum_possible(log_p.sub_(log_s).mul_(p), p)
    value.add_(log_q[:, 0].exp().mul_(0))  # unusable logits stay NaN
    if not wants_gradient:
        return value, None
    # To the buckets' logarithms first, then through the student's softmax at temperature 1. What row_loss
    # divides by the temperature afterwards is the division made here.
    to_bucket = log_s.exp_().sub_(p)
    slope = log_q.new_zeros(rows, vocab)
    if has_tail:
        moves = (log_rest > LOG_TAIL).to(p.dtype)  # a bucket at its floor does not
        slope = torch.sub(outside, log_rest, out=outside).exp_().mul_(to_bucket[:, k:] * moves)
        slope.nan_to_num_(nan=0.0)  # no word at all outside
        to_bucket = to_bucket[:, :k]
    slope.scatter_(-1, indices, to_bucket)
    return value, slope.addcmul_(log_q.exp_(), slope.sum(-1, keepdim=True), value=-1)


def _check_words(indices: Tensor, vocab: int) -> None:
    outside = (indices < 0) | (indices >= vocab)
    if outside.any():
        raise ValueError(
            f"teacher_top_indices hold {int(indices[outside][0])} at a position that counts, expected 0 to {vocab - 1}."
        )
    ordered = indices.sort(-1).values
    twice = ordered[:, 1:] == ordered[:, :-1]
    if twice.any():
        raise ValueError(
            f"teacher_top_indices hold word {int(ordered[:, 1:][twice][0])} more than once at a position that counts."
        )
