"""Networks that teach each other (Zhang et al. 2018, "Deep Mutual Learning")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workbench.losses.closed_form import check_logits
from workbench.losses.divergence import forward_kl


def mutual_learning(
    list_of_logits: Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale_by_t2: bool = True,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> list[Tensor]:
    r"""One loss per network: the mean of ``KL(other || self)`` over the other networks, which are held fixed.

    .. math:: L_k = \frac{T^2}{K - 1} \sum_{l \ne k} KL(p_l \| p_k)

    Each loss pulls its own network alone, so the sum of all of them may be minimised at once, with one
    optimiser over everything or with one each; cross-entropies on the labels are the caller's.

    Args:
        list_of_logits: two or more tensors ``[..., vocab]`` of one shape, one per network.

    Returns:
        As many losses as networks, in their order; each is reduced as :func:`forward_kl` does, from which
        the other arguments and errors come, too.

    Raises:
        ValueError: fewer than two networks, or logits of different shapes.
        TypeError: a single tensor in place of a list.
    """
    if isinstance(list_of_logits, Tensor):
        raise TypeError("list_of_logits is one tensor: give a list with the logits of each network.")
    networks = list(list_of_logits)
    if len(networks) < 2:
        raise ValueError(f"list_of_logits holds {len(networks)} network(s): mutual learning needs at least two.")
    check_logits(**{f"list_of_logits[{index}]": logits for index, logits in enumerate(networks)})
    losses = []
    for own, logits in enumerate(networks):
        pulls = [
            forward_kl(
                logits, peer, mask,
                temperature=temperature, scale_by_t2=scale_by_t2, reduction=reduction, num_items=num_items,
            )
            for index, peer in enumerate(networks)
            if index != own
        ]  # fmt: skip
        losses.append(sum(pulls[1:], pulls[0]) / len(pulls))
    return losses
