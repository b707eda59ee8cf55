"""BD-KD: both directions of the KL, balanced sample by sample, while student and teacher train together.

Paper: Amara et al. 2022, "BD-KD: Balancing the Divergences for Online Knowledge Distillation" (arXiv 2212.12965).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import check_choice, check_mask, check_positive
from workbench.losses.closed_form import CPU_PIECE, check_logits, row_loss, wide_dtype
from workbench.losses.divergence import reverse_kl
from workbench.losses.kernels import SMALL, gap_and_probabilities, sum_possible


class BDKDTerms(NamedTuple):
    """What :func:`bd_kd` gives; the cross-entropies on the labels are the caller's."""

    student_loss: Tensor  # its gradient flows into the student's logits alone
    teacher_loss: Tensor  # its gradient flows into the teacher's logits alone
    forward_weight: Tensor  # [...], of KL(p || q); detached
    reverse_weight: Tensor  # [...], of KL(q || p); detached


def bd_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    delta: float = 2.0,
    mode: str = "sample",
    direction: str = "match",
    entropy_temperature: float = 1.0,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> BDKDTerms:
    r"""The two divergence terms of online distillation that weighs both directions by who is more certain.

    .. math:: L_{student} = T^2 [w_f KL(p \| q) + w_r KL(q \| p)], \qquad L_{teacher} = T^2 KL(p \| q)

    Where the student is over-confident, ``H(p) > H(q)``, the forward KL weighs ``delta`` and the reverse KL 1;
    where it is not (equal entropies included), the other way round. So both weights always add up to ``1 + delta``.
    Each loss is a constant of the other network, and the weights are constants of both. Arguments not named
    here, and errors, are as in :func:`forward_kl`.

    Args:
        student_logits, teacher_logits: ``[..., classes]``; unlike in other losses, the second learns too.
        delta: from 1 up (1 is :func:`jeffreys`); below 1 would be the other direction.
        mode: ``sample`` decides at every position; ``batch`` once, by the mean entropies of the positions
            that count; ``fixed`` never: both weights are ``(1 + delta) / 2``, the control of the same total.
        direction: ``match`` as above; ``swap`` exchanges the two weights.
        entropy_temperature: what logits are divided by before their entropies are compared.

    Returns:
        Both losses in nats per position, a scalar each (``[...]`` for ``reduction="none"``), and both
        weights ``[...]``.

    Raises:
        ValueError: ``delta`` below 1, an unknown mode or direction, ``entropy_temperature`` not above 0.
    """
    check_logits(student_logits=student_logits, teacher_logits=teacher_logits)
    check_mask(mask, student_logits.shape[:-1])
    check_choice("mode", mode, ("sample", "batch", "fixed"))
    check_choice("direction", direction, ("match", "swap"))
    check_positive(delta=delta, entropy_temperature=entropy_temperature)
    if delta < 1:
        raise ValueError(f"delta={delta!r} must be 1 or above: for the other direction use direction='swap'.")
    forward_weight, reverse_weight = _weights(
        student_logits.detach(), teacher_logits.detach(), mask, delta, mode, direction, entropy_temperature
    )
    options = {
        "temperature": temperature, "scale_by_t2": scale_by_t2, "reduction": reduction, "num_items": num_items,
    }  # fmt: skip
    weights = torch.stack([forward_weight, reverse_weight], -1)
    student_loss = row_loss(_balanced, student_logits, teacher_logits, mask, extra=weights, **options)
    # With the teacher in the student's place, KL(p || q) is the reverse one.
    teacher_loss = reverse_kl(teacher_logits, student_logits, mask, **options)
    return BDKDTerms(student_loss, teacher_loss, forward_weight, reverse_weight)


def _balanced(student: Tensor, teacher: Tensor, wants_gradient: bool, weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """Both KLs with a weight per row each, ``[rows, 2]``; a kernel as in ``kernels.py``."""
    forward, reverse = weights.unbind(-1)
    gap, p, q = gap_and_probabilities(student, teacher)
    value = sum_possible(p * gap, p, q).mul_(forward)
    terms = gap.mul_(q)
    reverse_value = sum_possible(terms, p, q).neg_()
    value.addcmul_(reverse_value, reverse)
    if not wants_gradient:
        return value, None
    slope = terms.addcmul_(q, reverse_value.unsqueeze(-1)).mul_(reverse.unsqueeze(-1))
    return value, torch.sub(q, p, out=p).mul_(forward.unsqueeze(-1)).sub_(slope)


def _weights(
    student: Tensor, teacher: Tensor, mask: Tensor | None, delta: float, mode: str, direction: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """Weights ``[...]`` of the forward and of the reverse KL."""
    dtype = wide_dtype(student, teacher)
    positions = student.shape[:-1]
    if mode == "fixed":
        both = torch.full(positions, (1 + delta) / 2, dtype=dtype, device=student.device)
        return both, both.clone()
    surplus = entropies(teacher, dtype, temperature) - entropies(student, dtype, temperature)
    if mode == "batch":  # the sum has the mean's sign
        surplus = (surplus if mask is None else surplus.masked_fill(~mask, 0.0)).sum().expand(positions)
    over_confident = (surplus > 0).to(dtype)
    forward = over_confident * (delta - 1) + 1
    reverse = 1 + delta - forward
    return (forward, reverse) if direction == "match" else (reverse, forward)


def entropies(logits: Tensor, dtype: torch.dtype, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature), ``[..., vocab] -> [...]``, a few rows at a time."""
    *positions, vocab = logits.shape
    if not positions:
        return entropies(logits.unsqueeze(0), dtype, temperature).squeeze(0)
    rows_each = max(1, CPU_PIECE // max(1, vocab * math.prod(positions[1:])))
    pieces = logits.split(rows_each) if len(logits) > rows_each else (logits,)
    found = [_entropy(piece.to(dtype) if temperature == 1 else piece.to(dtype) / temperature) for piece in pieces]
    return found[0] if len(found) == 1 else torch.cat(found)


def _entropy(logits: Tensor) -> Tensor:
    probabilities = logits.softmax(-1)
    if logits.shape[-1] <= SMALL:
        return torch.special.entr(probabilities).sum(-1)
    # No logarithm per word: H = -log p_max - sum p (z - z_max). A word that cannot be is 0 * -inf, and counts nothing.
    below = (logits - logits.amax(-1, keepdim=True)).mul_(probabilities)
    return -probabilities.amax(-1).log() - below.nan_to_num_(nan=0.0).sum(-1)
