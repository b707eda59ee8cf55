"""The loss function that is a callback, too, and so knows the student and the batch (see ``trainer.py``)."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from workbench.training.distil import frozen
from workbench.training.hidden_head import HiddenHead
from workbench.training.trainer import IGNORED, TokenObjective

LABELS = ("labels", "shift_labels", "num_items_in_batch")
SAVED_AS = "TAIDSchedule"  # its entry in trainer_state.json


class TrainerDistillation(TrainerCallback):
    """Made by :func:`distillation_loss_for_trainer`, which says how it is used; ``t`` is TAID's interpolation."""

    def __init__(self, objective: TokenObjective, teacher: nn.Module, *, chunked: bool, chunk_size: int | None):
        self.objective, self.teacher, self.chunked, self.chunk_size = objective, teacher, chunked, chunk_size
        self._student: nn.Module | None = None
        self._hooks: list[Any] = []
        self._batch: dict[str, Any] | None = None
        self._calls, self._in_training = 0, False
        self._student_head = self._teacher_head = None

    @property
    def t(self) -> float:
        """TAID's interpolation now; NaN for other losses."""
        return self.objective.t

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of one batch, as ``Trainer`` asks for it.

        Raises:
            ValueError: no labels, or what the loss refuses.
            RuntimeError: the student is not known, since the callback is missing.
        """
        batch, self._batch = self._batch, None
        if batch is None:
            raise RuntimeError(
                "distillation_loss_for_trainer knows no batch: give Trainer what it returned as compute_loss_func and, "
                "so that it sees the student's inputs, in callbacks=[...], too."
            )
        if batch.get("shift_labels") is not None:
            labels = batch["shift_labels"]
        if labels is None:
            raise ValueError(
                "the batch has no labels, which say what counts (-100 does not): let the collator make them, for "
                "instance DataCollatorForLanguageModeling(tokenizer, mlm=False)."
            )
        self._calls += 1
        shifts = batch.get("shift_labels") is None and _shifts_labels(self._student)
        labels = labels[..., 1:] if shifts else labels
        count = int((labels != IGNORED).sum()) if num_items_in_batch is None else float(num_items_in_batch)
        num_items = max(1, count)  # nothing counts in the whole batch: the loss is 0
        if self._makes_no_logits(self._student):
            return self._from_hidden_states(outputs, batch, labels, shifts, num_items)
        student_logits = _cut(_logits(outputs), shifts)
        teacher_logits, teacher_labels = None, None
        if self.objective.kd_weight:
            inputs = self._teacher_inputs(batch, student_logits.device)
            teacher_labels = inputs.pop("labels", None)
            if teacher_labels is not None:
                teacher_labels = teacher_labels[..., 1:] if shifts else teacher_labels
            with torch.no_grad(), frozen(self.teacher):
                teacher_logits = _cut(_logits(self.teacher(**inputs)).to(student_logits.device), shifts)
        return self.objective(
            student_logits, teacher_logits, labels.to(student_logits.device), teacher_labels,
            num_items=num_items, training=self._student.training,
        )  # fmt: skip

    def on_init_end(self, args, state, control, **known):
        """A trainer was made: its model is the student."""
        if known.get("model") is not None:
            self._attach(known["model"])

    def on_train_begin(self, args, state, control, **known):
        """The student may be a new one (``model_init``); the schedule starts, or goes on from a checkpoint."""
        if args.n_gpu > 1:
            raise ValueError(
                f"the trainer would copy the student to {args.n_gpu} devices in one process (DataParallel), where a "
                "batch cannot be followed: start one process per device (torchrun or accelerate launch)."
            )
        if args.torch_compile:
            raise ValueError("torch_compile=True compiles away the hook that sees the batch: leave it out.")
        self._attach(known["model"])
        self._in_training = True
        self.objective.begin((state.stateful_callbacks or {}).get(SAVED_AS) if state.global_step else None)

    def on_train_end(self, args, state, control, **known):
        """The student answers with all logits again."""
        self._in_training = False

    def on_step_begin(self, args, state, control, **known):
        """Count the calls of this step."""
        self._calls = 0

    def on_step_end(self, args, state, control, **known):
        """One optimiser step is done: TAID's t moves.

        Raises:
            RuntimeError: the step was taken without this loss.
        """
        if not self._calls:
            raise RuntimeError(
                "the student was trained without its teacher: give Trainer what distillation_loss_for_trainer returned "
                "as compute_loss_func, too."
            )
        self.objective.advance(state.global_step, state.max_steps)
        if self.objective.schedule is not None:
            state.stateful_callbacks[SAVED_AS] = self.objective.schedule.state_dict()

    def on_log(self, args, state, control, logs=None, **known):
        """TAID's t beside the loss."""
        if self.objective.schedule is not None and logs is not None and "loss" in logs:
            logs["taid_t"] = self.t
            if state.log_history:
                state.log_history[-1]["taid_t"] = self.t

    def _makes_no_logits(self, student: nn.Module) -> bool:
        return self.chunked and self._in_training and student.training

    def _attach(self, student: nn.Module) -> None:
        if student is self._student:
            return
        for hook in self._hooks:
            hook.remove()
        self._student = student
        me = weakref.ref(self)  # the student must not keep a teacher alive that nobody wants any more

        def remember(module: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            mine = me()
            if mine is None or module is not mine._student:  # a copy of the student has this hook, too
                return args, inputs
            return args, mine._remember(module, inputs)

        self._hooks = [student.register_forward_pre_hook(remember, with_kwargs=True)]
        if self.chunked:
            if self._student_head is not None:
                self._student_head.remove()
            self._student_head = HiddenHead(student)
            self._teacher_head = self._teacher_head or HiddenHead(self.teacher)

    def _remember(self, student: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """Keep the batch, and hand the student its own part of it."""
        self._batch = dict(inputs)
        inputs = {name: value for name, value in inputs.items() if not name.startswith("teacher_")}
        if self._makes_no_logits(student):
            inputs["logits_to_keep"] = 1  # enough to see that the head is what it is taken for
        return inputs

    def _teacher_inputs(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """The teacher's own columns if the batch has any, else the student's."""
        own = {name.removeprefix("teacher_"): value for name, value in batch.items() if name.startswith("teacher_")}
        inputs = own or {name: value for name, value in batch.items() if name not in LABELS}
        parameters = inspect.signature(self.teacher.forward).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            inputs = {name: value for name, value in inputs.items() if name in parameters or name == "labels"}
        if "use_cache" in parameters:
            inputs["use_cache"] = False
        here = next(self.teacher.parameters(), torch.zeros(0)).device
        if here != device and getattr(self.teacher, "hf_device_map", None) is None:
            self.teacher.to(device)
        return inputs

    def _from_hidden_states(
        self, outputs: Any, batch: Mapping[str, Any], labels: Tensor, shifts: bool, num_items: float
    ) -> Tensor:
        from workbench.losses.chunked import chunked_linear_distillation

        objective = self.objective
        hidden, student = self._student_head.take(_logits(outputs))
        inputs = self._teacher_inputs(batch, hidden.device)
        inputs.pop("labels", None)
        with torch.no_grad(), frozen(self.teacher):
            teacher_hidden, teacher = self._teacher_head.take(_logits(self.teacher(**inputs, logits_to_keep=1)))
        mask = labels != IGNORED

        def value(ce_weight: float, kd_weight: float) -> Tensor:
            return chunked_linear_distillation(
                _cut(hidden, shifts), student.weight, _cut(teacher_hidden, shifts), teacher.weight, mask,
                loss=objective.loss, student_bias=student.bias, teacher_bias=teacher.bias, labels=labels,
                ce_weight=ce_weight, kd_weight=kd_weight, softcap=(student.softcap, teacher.softcap),
                chunk_size=self.chunk_size, num_items=num_items, **objective.chunked_options(),
            )  # fmt: skip

        loss = value(objective.ce_weight, objective.kd_weight)
        if objective.schedule is not None:
            with torch.no_grad():  # the schedule wants the divergence alone
                objective.note(
                    value(0.0, 1.0) if objective.ce_weight else loss / objective.kd_weight, mask, num_items, True
                )
        return loss


def _logits(outputs: Any) -> Tensor:
    """Logits of a transformers output, a mapping, a tuple without a loss, or a tensor."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        return outputs["logits"]
    return getattr(outputs, "logits", None) if hasattr(outputs, "logits") else outputs[0]


def _cut(states: Tensor, shifts: bool) -> Tensor:
    """Without the last position, which predicts a word that nobody has seen."""
    return states[..., :-1, :] if shifts else states


def _shifts_labels(student: nn.Module) -> bool:
    """Whether labels are the inputs, as for a causal language model; the rule by which ``Trainer`` counts them."""
    inner = student.get_base_model() if hasattr(student, "get_base_model") else student
    encoder_decoder = getattr(getattr(inner, "config", None), "is_encoder_decoder", False)
    return LOSS_MAPPING.get(getattr(inner, "loss_type", None)) is ForCausalLMLoss and not encoder_decoder
