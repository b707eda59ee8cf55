"""The losses as one writes them with autograd: on whole logits, in the forms of DistiLLM's and TAID's papers' codes.

Their guards against infinite logits are left out, which makes them faster than the originals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

SKEW, TAID_T = 0.1, 0.4


def naive_forward_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(p || q) by ``kl_div``, a mean over the positions of ``mask``."""
    values = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True)
    return _mean(values.sum(-1), mask)


def forward_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy form: higher by the teacher's entropy, with the gradient of the KL."""
    return _mean(-(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1), mask)


def reverse_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(q || p)."""
    log_q, q = student.log_softmax(-1), student.softmax(-1)
    return _mean((q * log_q).sum(-1) - (q * teacher.log_softmax(-1)).sum(-1), mask)


def generalized_jsd(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Half of KL(p || m) and half of KL(q || m), m in probabilities."""
    p, q = teacher.softmax(-1), student.softmax(-1)
    log_mixture = (0.5 * p + 0.5 * q).log()
    of_student = (q * student.log_softmax(-1)).sum(-1) - (q * log_mixture).sum(-1)
    of_teacher = (p * teacher.log_softmax(-1)).sum(-1) - (p * log_mixture).sum(-1)
    return _mean(0.5 * of_student + 0.5 * of_teacher, mask)


def skew_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(p || a p + (1 - a) q) without the teacher's entropy."""
    p, q = teacher.softmax(-1), student.softmax(-1)
    return _mean(-(p * (SKEW * p + (1 - SKEW) * q).log()).sum(-1), mask)


def skew_reverse_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(q || a q + (1 - a) p)."""
    p, q = teacher.softmax(-1), student.softmax(-1)
    log_mixture = ((1 - SKEW) * p + SKEW * q).log()
    return _mean((q * student.log_softmax(-1)).sum(-1) - (q * log_mixture).sum(-1), mask)


def taid(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy form of KL to the blend of both logits."""
    target = ((1 - TAID_T) * student.detach() + TAID_T * teacher).softmax(-1)
    return forward_kl(student, target.log(), mask)


def _mean(per_token: Tensor, mask: Tensor) -> Tensor:
    return (per_token * mask).sum() / mask.sum()


EAGER: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "generalized_jsd": generalized_jsd,
        "skew_kl": skew_kl,
        "skew_reverse_kl": skew_reverse_kl,
        "taid": taid,
    }
)
WITHOUT_ENTROPY = frozenset({"forward_kl", "skew_kl", "taid"})  # whose value is not the divergence's
