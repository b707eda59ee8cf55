"""Layers to quantise: heavy-tailed weights, inputs of unlike sizes that depend on each other."""

import torch

from workbench.quantizers.hessian import HessianAccumulator


def layer(rows=48, columns=128, seed=0, tokens=None):
    """A weight ``[rows, columns]`` and the Hessian of four tokens for each input."""
    random = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(rows, columns, generator=random)
    weight *= 1 + (30 * weight).square()
    tokens = 4 * columns if tokens is None else tokens
    shared = torch.randn(tokens, max(1, columns // 4), generator=random)
    inputs = shared @ torch.randn(shared.shape[1], columns, generator=random) / shared.shape[1] ** 0.5
    inputs += torch.randn(tokens, columns, generator=random)
    inputs *= torch.randn(columns, generator=random).exp()
    return weight, HessianAccumulator(columns).add(inputs).hessian


def output_error(weight, rounded, hessian):
    """Squared error of the outputs, in proportion to tokens."""
    gap = (weight - rounded).double()
    return float(((gap @ hessian.double()) * gap).sum())


def share(one, other):
    """How many entries are equal, in parts."""
    return (one == other).float().mean().item()
