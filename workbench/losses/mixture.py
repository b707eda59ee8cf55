"""Losses that hold student q and teacher p against a mixture of both, and so never become infinite."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from workbench.errors import check_between, check_choice
from workbench.losses.closed_form import Kernel, closed_form_loss
from workbench.losses.kernels import kl_to_blend, weighted_kl, weighted_mixture


def generalized_jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Jensen-Shannon divergence with teacher share ``beta`` (Agarwal et al. 2024, GKD).

    .. math:: T^2 [\beta KL(p \| m) + (1 - \beta) KL(q \| m)], \qquad m = \beta p + (1 - \beta) q

    It vanishes at both ends of ``beta``; divided by ``beta`` it tends to the forward KL as ``beta`` goes to 0,
    divided by ``1 - beta`` to the reverse KL as ``beta`` goes to 1. At 0.5 it is at most log 2 (times T^2).
    Arguments, result and errors as in :func:`forward_kl`, but always finite.

    Raises:
        ValueError: ``beta`` not strictly between 0 and 1.
    """
    return closed_form_loss(
        jsd_kernel(beta), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def jsd_kernel(beta: float = 0.5) -> Kernel:
    """Value and gradient of :func:`generalized_jsd` on rows of logits; raises what it raises."""
    if not 0 < beta < 1:
        raise ValueError(
            f"beta={beta!r} must lie strictly between 0 and 1, where the divergence does not vanish: "
            "its rescaled limits are forward_kl (beta to 0) and reverse_kl (beta to 1), use those."
        )
    return partial(weighted_mixture, share=beta, forward=beta, reverse=1.0 - beta)


def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 0.1,
    direction: str = "forward",
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL to a mixture that keeps a share ``alpha`` of the first argument (Ko et al. 2024, DistiLLM).

    .. math:: KL(p \| \alpha p + (1 - \alpha) q) \text{ or, reverse, } KL(q \| \alpha q + (1 - \alpha) p)

    At most ``-log(alpha)`` (times T^2). Arguments, result and errors as in :func:`forward_kl`, and:

    Args:
        alpha: from 0 (the plain KL, infinite where that is) to 1 (always 0).
        direction: ``forward | reverse``.
    """
    return closed_form_loss(
        skew_kernel(alpha, direction), student_logits, teacher_logits, mask,
        temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
    )  # fmt: skip


def skew_kernel(alpha: float = 0.1, direction: str = "forward") -> Kernel:
    """Value and gradient of :func:`skew_kl` on rows of logits; raises what it raises."""
    check_between(0, 1, alpha=alpha)
    check_choice("direction", direction, ("forward", "reverse"))
    forward, reverse = float(direction == "forward"), float(direction == "reverse")
    if alpha == 0:
        return partial(weighted_kl, forward=forward, reverse=reverse)
    if alpha == 1:
        return partial(kl_to_blend, t=0.0)  # the first argument to itself: 0, exactly
    share = alpha if forward else 1.0 - alpha
    return partial(weighted_mixture, share=share, forward=forward, reverse=reverse)
