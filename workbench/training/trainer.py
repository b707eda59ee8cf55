"""Distillation inside the Hugging Face ``Trainer``: any loss of this package, an unmodified trainer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import check_choice, check_positive
from workbench.losses.cross_tokenizer import uld
from workbench.losses.names import LOSSES, NEEDS_LABELS, loss_by_name
from workbench.losses.taid import TAIDLoss
from workbench.losses.taid_schedule import TAIDSchedule

if TYPE_CHECKING:
    from workbench.training.trainer_callback import TrainerDistillation

IGNORED = -100
OURS = ("reduction", "num_items")  # a trainer counts tokens over the whole accumulated batch


def distillation_loss_for_trainer(
    loss: str | Callable[..., Tensor],
    teacher: nn.Module,
    *,
    loss_options: Mapping[str, Any] | None = None,
    ce_weight: float = 0.0,
    kd_weight: float = 1.0,
    temperature: float = 1.0,
    chunked: bool = False,
    chunk_size: int | None = None,
) -> TrainerDistillation:
    """What a ``transformers.Trainer`` is given twice, as its ``compute_loss_func`` and among its ``callbacks``.

    The trainer hands a loss function outputs and labels, but not the inputs, which the teacher needs: as a
    callback it learns which model is the student and remembers each batch that goes through it. So it works with
    ``Trainer`` and its subclasses as they are, and no model has to be wrapped.

    >>> distillation = distillation_loss_for_trainer("skew_kl", teacher, ce_weight=0.1)       # doctest: +SKIP
    >>> Trainer(student, args, compute_loss_func=distillation, callbacks=[distillation], ...)  # doctest: +SKIP

    Every optimiser step minimises the mean over the tokens of its whole accumulated batch, however it is cut.
    Labels of -100 do not count; for a causal language model labels are the inputs and are shifted here, for any
    other model they belong to the logits at the same place. The teacher answers in evaluation mode, without
    gradients, on the student's device, in its own type; checkpoints do not hold it. A batch may bring a teacher
    of another tokenizer its own columns, ``teacher_input_ids``, ``teacher_attention_mask``, ``teacher_labels``
    (with ``remove_unused_columns=False``), for ``uld``.

    Args:
        loss: a name of :data:`workbench.losses.LOSSES`, ``decoupled_kd`` or ``uld``; or
            ``f(student_logits, teacher_logits, mask)``, a mean over the positions that count (if it takes
            ``num_items``, it is to divide its sum by that instead; if it takes ``labels``, they come before the mask).
            The schedule of ``taid`` moves once per optimiser step, is saved with checkpoints and logged as ``taid_t``.
        loss_options: of the loss (for ``taid`` of :class:`TAIDSchedule`, too).
        ce_weight, kd_weight: of the cross-entropy on the labels and of the loss to the teacher.
        temperature: of the loss to the teacher.
        chunked: never make the logits of a whole batch while training: the loss is computed from the last hidden
            states by :func:`chunked_linear_distillation`. For causal language models of transformers whose output
            layer is a plain matrix (and cap), not sharded over processes.
        chunk_size: rows of logits at a time of ``chunked``.

    Raises:
        UnknownName: no such loss or option.
        ValueError: a number outside its range, both weights 0, a loss that cannot be used so.
    """
    from workbench.training.trainer_callback import TrainerDistillation

    objective = TokenObjective(
        loss, options=loss_options, ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature
    )
    if chunked:
        objective.check_chunked()
    elif chunk_size is not None:
        raise ValueError(f"chunk_size={chunk_size} is of chunked=True.")
    return TrainerDistillation(objective, teacher, chunked=chunked, chunk_size=chunk_size)


class TokenObjective:
    """Cross-entropy and distillation as sums over tokens divided by ``num_items``; drives TAID's schedule."""

    def __init__(
        self,
        loss: str | Callable[..., Tensor],
        *,
        options: Mapping[str, Any] | None,
        ce_weight: float,
        kd_weight: float,
        temperature: float,
    ) -> None:
        for name, weight in {"ce_weight": ce_weight, "kd_weight": kd_weight}.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}={weight!r} must be a finite number, 0 or above.")
        if ce_weight == 0 and kd_weight == 0:
            raise ValueError("ce_weight and kd_weight are both 0: the student would not be pulled by anything.")
        check_positive(temperature=temperature)
        self.loss, self.ce_weight, self.kd_weight, self.temperature = loss, ce_weight, kd_weight, temperature
        self.options = dict(options or {})
        for name in (*OURS, "temperature"):
            if name in self.options:
                what = "an argument of its own" if name == "temperature" else "set here: the trainer counts the tokens"
                raise ValueError(f"loss_options holds {name!r}, which is {what}.")
        self.schedule = self._schedule()
        self._divergence, self._accepts = self._resolve()
        self._nats, self._tokens = 0.0, 0

    @property
    def t(self) -> float:
        """TAID's interpolation now; NaN for other losses."""
        return math.nan if self.schedule is None else self.schedule.t

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor,
        teacher_labels: Tensor | None,
        *,
        num_items: float,
        training: bool,
    ) -> Tensor:
        """The share of the whole batch's mean that logits ``[..., vocab]`` with ``labels [...]`` contribute."""
        mask = labels != IGNORED
        total = None
        if self.kd_weight:
            kl = self._distance(student_logits, teacher_logits, labels, mask, teacher_labels, num_items)
            self.note(kl, mask, num_items, training)
            total = kl if self.kd_weight == 1 else self.kd_weight * kl
        if self.ce_weight:
            counted = student_logits[mask]
            wide = counted if counted.dtype.itemsize > 2 else counted.float()
            ce = F.cross_entropy(wide, labels[mask], reduction="sum") * (self.ce_weight / num_items)
            total = ce if total is None else total + ce
        return total

    def note(self, kl: Tensor, mask: Tensor, num_items: float, training: bool) -> None:
        """Remember this part's divergence for TAID's schedule."""
        if self.schedule is not None and training:
            self._nats = self._nats + kl.detach() * num_items
            self._tokens = self._tokens + mask.sum()

    def begin(self, saved: Mapping[str, Any] | None) -> None:
        """Start of a training: a fresh schedule, or the one that a checkpoint holds."""
        self.schedule, self._nats, self._tokens = self._schedule(), 0.0, 0
        if self.schedule is not None and saved:
            self.schedule.load_state_dict(saved)

    def advance(self, step: int, total_steps: int) -> None:
        """End of an optimiser step: the schedule sees the mean over all tokens of all processes."""
        if self.schedule is None or isinstance(self._tokens, int):
            return
        seen = torch.stack([torch.as_tensor(self._nats).double(), self._tokens.double()])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(seen)
        self._nats, self._tokens = 0.0, 0
        nats, tokens = seen.tolist()
        if tokens:
            self.schedule.update(nats / tokens, step, total_steps)

    def check_chunked(self) -> None:
        """Raise unless :func:`chunked_linear_distillation` has this loss with these options."""
        from workbench.losses.chunked import chunked_linear_distillation

        if not isinstance(self.loss, str):
            raise ValueError("chunked=True takes a loss by name: it makes the gradient of the logits by itself.")
        one = torch.zeros(1, 1)
        chunked_linear_distillation(one, one, one, one, loss=self.loss, **self.chunked_options())

    def chunked_options(self) -> dict[str, Any]:
        """Of :func:`chunked_linear_distillation`: the loss's own, and what all losses have."""
        own = {name: value for name, value in self._loss_options().items() if name != "scale_by_t2"}
        if self.schedule is not None:
            own["t"] = self.t
        scale = self.options.get("scale_by_t2", True)
        return {"loss_options": own, "temperature": self.temperature, "scale_by_t2": scale}

    def _schedule(self) -> TAIDSchedule | None:
        if self.loss != "taid":
            return None
        known = inspect.signature(TAIDSchedule).parameters
        if "t" in self.options:
            raise ValueError("taid's t moves by its schedule here: give t_start and t_end in loss_options.")
        return TAIDSchedule(**{name: value for name, value in self.options.items() if name in known})

    def _loss_options(self) -> dict[str, Any]:
        """Those that are not the schedule's."""
        known = inspect.signature(TAIDSchedule).parameters if self.schedule is not None else ()
        return {name: value for name, value in self.options.items() if name not in known}

    def _resolve(self) -> tuple[Callable[..., Tensor], set[str]]:
        """The loss and the names of its arguments."""
        if isinstance(self.loss, TAIDLoss):
            raise ValueError("a TAIDLoss would never be moved here: give loss='taid', loss_options={'t_start': ...}.")
        if callable(self.loss):
            accepts = set(inspect.signature(getattr(self.loss, "forward", self.loss)).parameters)
            if self.temperature != 1 and "temperature" not in accepts:
                raise ValueError(f"temperature={self.temperature:g} is not taken by the loss given: set it there.")
            return self.loss, accepts
        known = {**LOSSES, **NEEDS_LABELS, "uld": uld}
        loss = known[check_choice("loss", self.loss, known)]
        accepts = set(inspect.signature(loss).parameters)
        options = {"temperature": self.temperature, **self._loss_options()}
        if self.loss == "uld":
            for option in options:
                check_choice("option of uld", option, accepts)
            uld(torch.zeros(1, 2), torch.zeros(1, 2), **options)
        elif self.loss == "taid":
            for option in self._loss_options():
                check_choice("option of taid", option, ("scale_by_t2", *inspect.signature(TAIDSchedule).parameters))
        else:
            loss_by_name(self.loss, **options)  # refuses what it would refuse later
        return loss, accepts

    def _distance(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor,
        teacher_labels: Tensor | None,
        num_items: float,
    ) -> Tensor:
        own = not isinstance(self.loss, str)
        if own and not bool(mask.any()):
            return student_logits[mask].sum()  # 0, connected; a mean over nothing would be NaN
        given: dict[str, Any] = {"num_items": num_items, "labels": labels}
        if not own or self.temperature != 1:  # functools.partial may have set one
            given["temperature"] = self.temperature
        if self.schedule is not None:
            given["t"] = self.t
        options = self._loss_options() | {name: value for name, value in given.items() if name in self._accepts}
        masks = (mask,)
        if "teacher_mask" in self._accepts:
            masks = (mask, mask if teacher_labels is None else teacher_labels != IGNORED)
        if "labels" in options:
            masks = (options.pop("labels"), mask)
        value = self._divergence(student_logits, teacher_logits, *masks, **options)
        # A mean over this part's tokens becomes its share of the whole batch's mean.
        return value if "num_items" in self._accepts else value * (mask.sum() / num_items)
