"""Networks that teach each other: each is pulled by the mean of the others, which feel nothing of it."""

import pytest
import torch
import torch.nn.functional as F

from tests.losses.cases import logits
from workbench.losses.mutual import mutual_learning


def eager(own, peer, temperature):
    return temperature**2 * F.kl_div(
        (own / temperature).log_softmax(-1), (peer.detach() / temperature).softmax(-1), reduction="batchmean"
    )


def test_two_networks_learn_from_each_other():
    first, second = logits(5, 4).requires_grad_(), logits(5, 4, seed=1).requires_grad_()
    losses = mutual_learning([first, second], temperature=2.0)
    torch.testing.assert_close(losses[0], eager(first, second, 2.0))
    torch.testing.assert_close(losses[1], eager(second, first, 2.0))
    assert torch.autograd.grad(losses[0], second, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(losses[1], first, allow_unused=True, retain_graph=True) == (None,)
    together = torch.autograd.grad(sum(losses), [first, second])
    apart = [
        torch.autograd.grad(eager(a, b, 2.0), a)[0] for a, b in ((first, second), (second, first))
    ]  # fmt: skip
    torch.testing.assert_close(list(together), apart)


def test_each_of_three_gets_the_mean_of_its_two_peers():
    networks = [logits(5, 4, seed=seed) for seed in range(3)]
    losses = mutual_learning(networks)
    for own in range(3):
        peers = [eager(networks[own], networks[other], 1.0) for other in range(3) if other != own]
        torch.testing.assert_close(losses[own], sum(peers) / 2)


def test_masks_and_reductions_are_those_of_every_loss():
    networks = [logits(2, 3, 4, seed=seed) for seed in range(2)]
    mask = torch.tensor([[True, False, True], [False, False, False]])
    networks[0][0, 1] = torch.nan
    assert mutual_learning(networks, mask, reduction="none")[0].shape == (2, 3)
    kept = mutual_learning([one[mask] for one in networks])
    torch.testing.assert_close(mutual_learning(networks, mask), kept)
    assert mutual_learning(networks, torch.zeros(2, 3, dtype=torch.bool)) == [0, 0]


def test_fewer_than_two_networks_or_other_shapes_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        mutual_learning([logits(2, 3)])
    with pytest.raises(TypeError, match="one tensor"):
        mutual_learning(logits(2, 2, 3))
    with pytest.raises(ValueError, match=r"list_of_logits\[0\] \(2, 3\), list_of_logits\[1\] \(2, 4\)"):
        mutual_learning([logits(2, 3), logits(2, 4)])
