"""Which kernel on rows of logits stands behind a loss's name and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from workbench.errors import check_between, check_choice
from workbench.losses.closed_form import Kernel
from workbench.losses.kernels import kl_to_blend, weighted_kl
from workbench.losses.mixture import jsd_kernel, skew_kernel


def _symmetric(weight: float = 0.5) -> Kernel:
    check_between(0, 1, weight=weight)
    return partial(weighted_kl, forward=1.0 - weight, reverse=weight)


def _taid(t: float) -> Kernel:
    t = float(t)
    check_between(0, 1, t=t)
    return partial(kl_to_blend, t=t)


ROW_KERNELS: Mapping[str, Callable[..., Kernel]] = MappingProxyType(
    {
        "forward_kl": lambda: partial(weighted_kl, forward=1.0, reverse=0.0),
        "reverse_kl": lambda: partial(weighted_kl, forward=0.0, reverse=1.0),
        "jeffreys": lambda: partial(weighted_kl, forward=1.0, reverse=1.0),
        "symmetric_kl": _symmetric,
        "generalized_jsd": jsd_kernel,
        "skew_kl": skew_kernel,
        "taid": _taid,
    }
)


def row_kernel(loss: str, options: Mapping[str, Any] | None = None) -> Kernel:
    """The kernel of the loss called ``loss`` with its own ``options`` (``beta``, ``alpha``, ``direction``, ...).

    Raises:
        UnknownName: no such loss or option ("did you mean").
        ValueError: an option missing or outside its range.
    """
    make = ROW_KERNELS[check_choice("loss", loss, ROW_KERNELS)]
    known = inspect.signature(make).parameters
    options = dict(options or {})
    for option in options:
        check_choice(f"option of {loss}", option, known)
    missing = [name for name, one in known.items() if one.default is one.empty and name not in options]
    if missing:
        raise ValueError(f"{loss} needs loss_options={{{missing[0]!r}: ...}}, which has no default.")
    return make(**options)
