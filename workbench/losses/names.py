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
from workbench.losses.divergence import forward_kl, jeffreys, reverse_kl, symmetric_kl, total_variation
from workbench.losses.mixture import generalized_jsd, skew_kl
from workbench.losses.taid import taid

LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        loss.__name__: loss
        for loss in (
            forward_kl,
            reverse_kl,
            jeffreys,
            symmetric_kl,
            generalized_jsd,
            skew_kl,
            total_variation,
            taid,
        )
    }
)


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults; ``inspect.Parameter.empty`` stands for one that must be given."""
    parameters = inspect.signature(LOSSES[check_choice("loss", name, LOSSES)]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def loss_by_name(name: str, **options: Any) -> Callable[..., Tensor]:
    """The loss called ``name`` with ``options`` set: ``(student_logits, teacher_logits, mask=None) -> Tensor``.

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
    loss = partial(LOSSES[name], **options)
    loss(torch.zeros(2), torch.zeros(2))
    return loss
