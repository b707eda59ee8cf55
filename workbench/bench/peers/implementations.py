"""What is measured, by name: ``<who>:<loss>`` to a function of the inputs that gives the loss.

Peers are imported by name inside a process of theirs only: this package does not depend on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from workbench.bench.peers.eager import EAGER, SKEW, TAID_T, naive_forward_kl
from workbench.losses.chunked import chunked_linear_distillation
from workbench.losses.names import loss_by_name
from workbench.runtime import generator

OURS = {
    "forward_kl": ("forward_kl", {}),
    "reverse_kl": ("reverse_kl", {}),
    "generalized_jsd": ("generalized_jsd", {"beta": 0.5}),
    "skew_kl": ("skew_kl", {"alpha": SKEW}),
    "skew_reverse_kl": ("skew_kl", {"alpha": SKEW, "direction": "reverse"}),
    "taid": ("taid", {"t": TAID_T}),
}
BETA = {"forward_kl": 0.0, "generalized_jsd": 0.5, "reverse_kl": 1.0}  # as TRL and Liger count it
IGNORED = 8  # one position in so many does not count


@dataclass(frozen=True)
class Shape:
    """Sizes of one evaluation; ``width`` 0 starts from logits."""

    tokens: int
    vocab: int
    width: int


@dataclass
class Inputs:
    """Random hidden states, weights and labels; or logits in the place of hidden states."""

    student: Tensor
    student_weight: Tensor | None
    teacher: Tensor
    teacher_weight: Tensor | None
    mask: Tensor
    labels: Tensor  # -100 where the mask is False

    @property
    def trained(self) -> list[Tensor]:
        return [one for one in (self.student, self.student_weight) if one is not None]

    def logits(self) -> tuple[Tensor, Tensor]:
        """Whole logits ``[tokens, vocab]`` of student and teacher, the teacher's without a graph."""
        if self.student_weight is None:
            return self.student, self.teacher
        with torch.no_grad():
            teacher = self.teacher @ self.teacher_weight.T
        return self.student @ self.student_weight.T, teacher


def make_inputs(shape: Shape) -> Inputs:
    """Logits of standard deviation 2, one position in eight ignored; the same in every process."""
    draw = partial(torch.randn, generator=generator(0))
    mask = torch.arange(shape.tokens) % IGNORED != 0
    labels = torch.randint(shape.vocab, (shape.tokens,), generator=generator(1)).masked_fill(~mask, -100)
    if not shape.width:
        student, teacher = (draw(shape.tokens, shape.vocab).mul_(2) for _ in "st")
        return Inputs(student.requires_grad_(), None, teacher, None, mask, labels)
    student, teacher = (draw(shape.tokens, shape.width) for _ in "st")
    weights = [draw(shape.vocab, shape.width).mul_(2 * shape.width**-0.5) for _ in "st"]
    return Inputs(student.requires_grad_(), weights[0].requires_grad_(), teacher, weights[1], mask, labels)


def implementation(name: str) -> Callable[[Inputs], Tensor]:
    """The function called ``name``; a peer's package is imported now."""
    who, _, loss = name.partition(":")
    if who in ("ours", "ours bf16"):
        return partial(_ours, loss=loss, narrow=who == "ours bf16")
    if who == "naive":
        return lambda inputs: naive_forward_kl(*inputs.logits(), inputs.mask)
    if who == "eager":
        return lambda inputs: EAGER[loss](*inputs.logits(), inputs.mask)
    if who == "trl":
        return _trl(BETA[loss])
    if who == "trl chunked":
        return _trl_chunked(BETA[loss])
    if who == "torchdistill":
        return _torchdistill()
    return _liger(BETA[loss], int(who.removeprefix("liger ")))


def _ours(inputs: Inputs, *, loss: str, narrow: bool) -> Tensor:
    name, options = OURS[loss]
    if inputs.student_weight is None:
        return loss_by_name(name, **options)(inputs.student, inputs.teacher, inputs.mask)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        return chunked_linear_distillation(
            inputs.student, inputs.student_weight, inputs.teacher, inputs.teacher_weight, inputs.mask,
            loss=name, loss_options=options,
        )  # fmt: skip


def _trl(beta: float) -> Callable[[Inputs], Tensor]:
    loss = importlib.import_module("trl.experimental.gkd.gkd_trainer").GKDTrainer.generalized_jsd_loss

    def call(inputs: Inputs) -> Tensor:
        student, teacher = (logits.unsqueeze(0) for logits in inputs.logits())
        return loss(student, teacher, labels=inputs.labels.unsqueeze(0), beta=beta)

    return call


def _trl_chunked(beta: float) -> Callable[[Inputs], Tensor]:
    loss = importlib.import_module("trl.trainer.distillation_trainer")._chunked_divergence_loss
    return lambda inputs: loss(
        inputs.student.unsqueeze(0), inputs.teacher.unsqueeze(0), inputs.student_weight, inputs.teacher_weight,
        inputs.mask.unsqueeze(0), beta,
    )[0]  # fmt: skip


def _liger(beta: float, chunk_size: int) -> Callable[[Inputs], Tensor]:
    # Its own module: the package around it wants Triton, which there is on GPUs only.
    module = importlib.import_module("liger_kernel.chunked_loss.jsd_loss")
    loss = module.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=False, chunk_size=chunk_size
    )
    return lambda inputs: loss(
        inputs.student, inputs.student_weight, inputs.teacher, inputs.teacher_weight, inputs.labels
    )


def _torchdistill() -> Callable[[Inputs], Tensor]:
    loss = importlib.import_module("torchdistill.losses.mid_level").KDLoss("m", "output", "m", "output", 1.0, alpha=0.0)

    def call(inputs: Inputs) -> Tensor:
        student, teacher = ({"m": {"output": logits[inputs.mask]}} for logits in inputs.logits())
        return loss(student, teacher)

    return call
