"""Distillation: a student learns the distribution of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.last_layer import last_hidden_states, last_layer
from workbench.models.next_token import logits_of
from workbench.training.fit_checkpoint import Stateful
from workbench.training.loop import History, TrainingDiverged, fit
from workbench.training.objective import DistillationLoss, Divergence

LOST = "the student's logits are not finite any more: lower lr={lr:g}."


def distil(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Any],
    loss: str | Divergence,
    *,
    steps: int,
    lr: float,
    loss_options: Mapping[str, Any] | None = None,
    ce_weight: float = 0.0,
    kd_weight: float = 1.0,
    chunked: bool = False,
    schedule: str = "cosine",
    warmup: float = 0.0,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    clip: float | None = 1.0,
    accumulate: int = 1,
    precision: str = "float32",
    evaluate: Callable[[nn.Module], dict[str, float] | float] | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    record_every: int = 10,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    stop: Callable[[], bool] | None = None,
    seed: int = 0,
    label: str | None = "distillation",
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    state: Mapping[str, Stateful] | None = None,
) -> History:
    """Train ``student`` in place towards ``teacher``; the arguments not named here are those of :func:`fit`.

    Args:
        student, teacher: modules or transformers models whose logits have one vocabulary.
        batches: token windows ``[batch, time + 1]``; or pairs ``(inputs, labels)``; or mappings with
            ``input_ids`` and optionally ``labels`` (-100 = does not count) as transformers collators make them.
        loss: a name that :class:`DistillationLoss` knows or ``f(student_logits, teacher_logits, mask)``; what
            walks (``t`` of ``taid``, a learnt ``temperature``) is driven here and recorded with the loss.
        loss_options: of the named loss; of :class:`workbench.losses.TAIDSchedule` for ``taid``.
        ce_weight, kd_weight: weights of cross-entropy on the labels and of the divergence.
        chunked: never make the logits of a whole batch, but the loss from the last hidden states
            (:func:`workbench.losses.chunked_linear_distillation`): for large vocabularies.

    Raises:
        ValueError: vocabularies of different size, with ``chunked`` a loss or a model that cannot be had so, or what
            :func:`fit` refuses.
        TrainingDiverged: the loss is not finite any more.
    """
    _check_vocabularies(student, teacher)
    objective = DistillationLoss(
        loss, options=loss_options, ce_weight=ce_weight, kd_weight=kd_weight, total_steps=steps
    )
    if chunked:
        objective.check_chunked()
        for model in (student, teacher):
            last_layer(model)  # refuses a model without one
    trajectory = History()

    def of_logits(model: nn.Module, inputs: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        student_logits = logits_of(model, inputs)
        with torch.no_grad():
            teacher_logits = logits_of(teacher, inputs).to(student_logits.device)
        if student_logits.shape[-1] != teacher_logits.shape[-1]:
            raise ValueError(_different(student_logits.shape[-1], teacher_logits.shape[-1]))
        try:
            return objective(student_logits, teacher_logits, labels, mask)
        except ValueError as error:
            # The losses refuse NaN; here its cause is known, and it is looked for only when one did.
            if student_logits.isfinite().all() or not teacher_logits.isfinite().any():
                raise
            raise TrainingDiverged(LOST.format(lr=lr)) from error

    def of_hidden_states(model: nn.Module, inputs: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        first = not trajectory.observations  # that the last layer is all there is to the logits is looked at once
        hidden = last_hidden_states(model, inputs, check=first)
        with torch.no_grad():
            taught = last_hidden_states(teacher, inputs, check=first)
        try:
            return objective.from_hidden_states(hidden, last_layer(model), taught, last_layer(teacher), labels, mask)
        except ValueError as error:
            if hidden.isfinite().all() or not taught.isfinite().all():
                raise
            raise TrainingDiverged(LOST.format(lr=lr)) from error

    def value(model: nn.Module, batch: Any) -> Tensor:
        return (of_hidden_states if chunked else of_logits)(model, *unpack(batch))

    def after(step: int, known: dict[str, float]) -> None:
        known |= objective.walking  # what this step's loss used
        if step % record_every == 0 or step in (1, steps):
            trajectory.record(step, **objective.walking)
        objective.advance()
        if on_step is not None:
            on_step(step, known)

    with frozen(teacher):
        history = fit(
            student, batches, value, steps=steps, lr=lr, schedule=schedule, warmup=warmup, weight_decay=weight_decay,
            betas=betas, clip=clip, accumulate=accumulate, precision=precision, evaluate=evaluate,
            evaluate_every=evaluate_every, patience=patience, record_every=record_every, on_step=after, stop=stop,
            seed=seed, label=label, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
            state={"objective": objective, "trajectory": trajectory, **(state or {})},
        )  # fmt: skip
    history.observations.extend(trajectory.observations)
    return history


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[nn.Module]:
    """``teacher`` in evaluation mode inside the block, every part as it was afterwards."""
    modes = {part: part.training for part in teacher.modules()}
    teacher.eval()
    try:
        yield teacher
    finally:
        for part, mode in modes.items():
            part.training = mode


def unpack(batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs ``[batch, time]``, labels and mask ``[batch, time]`` of the kinds of batch that :func:`distil` takes."""
    if isinstance(batch, Tensor):
        return batch[:, :-1], batch[:, 1:], None
    if isinstance(batch, Mapping):
        inputs = batch["input_ids"]
        labels = batch.get("labels", inputs)[:, 1:]
        counts = labels != -100
        return inputs[:, :-1], labels.clamp(min=0), counts
    inputs, labels = batch
    return inputs, labels, None


def _check_vocabularies(student: nn.Module, teacher: nn.Module) -> None:
    sizes = [getattr(getattr(model, "config", None), "vocab_size", None) for model in (student, teacher)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ValueError(_different(*sizes))


def _different(student: int, teacher: int) -> str:
    return (
        f"the student's vocabulary has {student} entries and the teacher's {teacher}: "
        "these losses compare them entry by entry; use uld, or models that share a tokenizer."
    )
