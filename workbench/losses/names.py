"""Losses by name, for configurations, sweeps and widgets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from workbench.errors import check_choice
from workbench.losses.adaptive import adaptive_kl
from workbench.losses.decoupled import decoupled_kd
from workbench.losses.divergence import forward_kl, jeffreys, reverse_kl, symmetric_kl, total_variation
from workbench.losses.matching import dist, logit_mse
from workbench.losses.mixture import generalized_jsd, skew_kl
from workbench.losses.taid import taid


def _by_name(*losses: Callable[..., Tensor]) -> Mapping[str, Callable[..., Tensor]]:
    return MappingProxyType({loss.__name__: loss for loss in losses})


# Called as loss(student_logits, teacher_logits, mask=None).
LOSSES: Mapping[str, Callable[..., Tensor]] = _by_name(
    forward_kl,
    reverse_kl,
    jeffreys,
    symmetric_kl,
    generalized_jsd,
    skew_kl,
    adaptive_kl,
    total_variation,
    logit_mse,
    dist,
    taid,
)

# Called as loss(student_logits, teacher_logits, labels, mask=None).
NEEDS_LABELS: Mapping[str, Callable[..., Tensor]] = _by_name(decoupled_kd)


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults; ``inspect.Parameter.empty`` stands for one that must be given.

    Raises:
        UnknownName: no such loss ("did you mean").
    """
    parameters = inspect.signature(_named(name)).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def loss_by_name(name: str, **options: Any) -> Callable[..., Tensor]:
    """The loss called ``name`` with ``options`` set.

    Two kinds have names, each with a call of its own; ``name in NEEDS_LABELS`` tells them apart:

    - those of :data:`LOSSES`: ``loss(student_logits, teacher_logits, mask=None)``;
    - those of :data:`NEEDS_LABELS`: ``loss(student_logits, teacher_logits, labels, mask=None)``, the labels
      integers ``[...]`` that are read only where the mask is True.

    A training objective (``workbench.training.objective``) can be made of both kinds, since a step has
    student, teacher, labels and mask at hand. Losses that take something else (``topk_kl``, ``uld``,
    hidden states, several students) have no name: they are called as functions.

    The options are tried at once, so that a wrong value is refused before any training. A loss whose
    option has no default (``t`` of taid) must be given it here.

    Raises:
        UnknownName: no such loss or option ("did you mean").
        ValueError: an option missing or outside its range.
    """
    known = loss_options(name)
    for option in options:
        check_choice(f"option of {name}", option, known)
    missing = [
        option for option, default in known.items() if default is inspect.Parameter.empty and option not in options
    ]
    if missing:
        raise ValueError(f"{name} needs {', '.join(f'{option}=' for option in missing)}, which has no default.")
    loss = partial(_named(name), **options)
    labels = (torch.tensor(0),) if name in NEEDS_LABELS else ()
    loss(torch.zeros(2), torch.zeros(2), *labels)
    return loss


def _named(name: str) -> Callable[..., Tensor]:
    return {**LOSSES, **NEEDS_LABELS}[check_choice("loss", name, (*LOSSES, *NEEDS_LABELS))]
