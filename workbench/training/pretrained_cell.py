"""One pair of pretrained models: made ready, trained, and judged."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench import runtime
from workbench.errors import check_choice, check_positive
from workbench.metrics.language import LanguageScores, held_out_scores
from workbench.models.next_token import logits_of, next_token_loss
from workbench.models.pretrained import load_pretrained
from workbench.models.pruning import structured_prune
from workbench.models.small_lm import count_parameters, size_in
from workbench.runtime import measure
from workbench.training.batches import fixed_windows, random_windows
from workbench.training.distil import distil
from workbench.training.ladder import TrainedModel
from workbench.training.loop import History, TrainingDiverged, fit
from workbench.training.objective import NO_TEACHER, Objective
from workbench.training.pretrained_text import Family, find_family, prepare_pretrained
from workbench.training.text_task import PreparedText

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_LOGITS = 2**30  # bytes of one model's float32 logits; the loss keeps a few tensors of this size
MEASURES = ("nats", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher", "head_mass", "tail_mass")


@dataclass(frozen=True)
class PretrainedModel:
    """A pretrained language model and what is known of it."""

    name: str
    parameters: int
    parameters_without_embeddings: int
    held_out_nats: float  # nats per byte of held-out text
    seconds: float = math.nan  # what its training took is not known


Teacher = TrainedModel | PretrainedModel


@dataclass(frozen=True)
class Setting:
    """What all cells of a grid share."""

    family: Family
    text: PreparedText
    held_out: Tensor  # [windows, context + 1]
    starts: np.ndarray | None  # where the windows that students learn from begin; None = anywhere
    batch_size: int
    at_once: int  # windows of a batch that are computed at once
    device: torch.device
    precision: str

    def load(self, name: str, *, dtype: str = "float32") -> PreTrainedModel:
        """A model of the grid as it is published, on the CPU."""
        model, _ = load_pretrained(self.family.folders[name], device="cpu", dtype=dtype)
        return model

    def ready(self, model: PreTrainedModel) -> PreTrainedModel:
        """On the device, answering for the family's vocabulary: padding beyond it stands for no token."""
        if model.config.vocab_size != self.family.vocab_size:
            model.resize_token_embeddings(self.family.vocab_size, mean_resizing=False)
        return model.to(self.device)

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Windows ``[at_once, context + 1]`` on the device; their order is the seed's, whatever ``at_once``."""
        context = self.text.context
        if self.starts is None:
            stream = random_windows(self.text.training, context=context, batch_size=self.batch_size, seed=seed)
        else:
            stream = _chosen(self.text.training, self.starts, context, self.batch_size, seed)
        for batch in stream:
            for part in batch.split(self.at_once):
                yield part.to(self.device)


def prepare_setting(
    names: Sequence[str],
    corpus: str,
    *,
    context: int,
    batch_size: int,
    evaluation_windows: int,
    held_out: int | None,
    transfer_windows: int | None,
    device: str,
    precision: str,
) -> Setting:
    """Fetch all models of a grid and its text, and decide how a batch is cut into parts.

    Raises:
        ValueError, UnknownName, AssetError: as :func:`workbench.training.distil_pretrained`.
    """
    check_positive(context=context, batch_size=batch_size, evaluation_windows=evaluation_windows)
    check_choice("precision", precision, ("auto", "float32", "bfloat16"))
    where = runtime.device(device)
    if precision == "auto":
        precision = "bfloat16" if where.type == "cuda" else "float32"
    family = find_family(names, context=context)
    text = prepare_pretrained(family, corpus, context=context, held_out=held_out)
    starts = None
    if transfer_windows is not None:
        check_positive(transfer_windows=transfer_windows)
        starts = np.random.default_rng(0).integers(0, len(text.training) - context, size=transfer_windows)
    most = max(1, LARGEST_LOGITS // (4 * context * family.vocab_size))
    at_once = max(part for part in range(1, min(batch_size, most) + 1) if batch_size % part == 0)
    windows = fixed_windows(text.held_out, context=context, count=evaluation_windows)
    return Setting(family, text, windows, starts, batch_size, at_once, where, precision)


def _chosen(tokens: np.ndarray, starts: np.ndarray, context: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    order, inside = np.random.default_rng(seed), np.arange(context + 1)
    while True:
        chosen = starts[order.integers(0, len(starts), size=batch_size)]
        yield torch.from_numpy(tokens[chosen[:, None] + inside].astype(np.int64))


def load_teacher(setting: Setting, name: str | None) -> tuple[PreTrainedModel | None, PretrainedModel | None]:
    """The teacher on its device with what is measured of it; nothing for ``None``."""
    if name is None:
        return None, None
    model = setting.load(name, dtype=setting.precision)
    parameters, inner = count_parameters(model), count_parameters(model, embeddings=False)
    model = setting.ready(model).requires_grad_(False)
    found = held_out_scores(
        model, setting.held_out, bytes_per_token=setting.text.bytes_per_token, batch_size=setting.at_once
    )
    return model, PretrainedModel(setting.family.label(name), parameters, inner, found["nats"])


def first_student(
    setting: Setting, teacher: PreTrainedModel | None, name: str, init: str, seed: int, calibration_batches: int
) -> PreTrainedModel:
    """A student before training, on the CPU, with as many entries of the vocabulary as were published."""
    if init == "given":
        return setting.load(name)
    config = setting.family.config(name)
    if init == "random":
        from transformers import AutoModelForCausalLM

        with runtime.seeded(seed):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    stream = setting.batches(seed)
    calibration = [next(stream) for _ in range(calibration_batches)]

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        # The masks are float32; with autocast they may meet a teacher in bfloat16.
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.precision == "bfloat16"):
            return next_token_loss(model, batch)

    return structured_prune(teacher, size_in(config), calibration, loss=loss).float().cpu()


def train_cell(
    setting: Setting,
    teacher: PreTrainedModel | None,
    known: PretrainedModel | None,
    first: PreTrainedModel,
    objective: Objective,
    seed: int,
    cell: dict[str, str],
    training: dict[str, Any],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Row and curves of one student."""
    parameters, inner = count_parameters(first), count_parameters(first, embeddings=False)
    student = setting.ready(copy.deepcopy(first))  # all objectives of a seed start equal
    keys = {"teacher": NO_TEACHER if known is None else known.name, **cell}
    label = f"{keys['teacher']} to {cell['student']}, {objective.name}, seed {seed}"
    with measure() as cost:
        try:
            history = _train(student, teacher, setting.batches(seed), objective, seed, label, training)
            scores = _score(setting, student, teacher)
        except TrainingDiverged:
            history, scores = History(), dict.fromkeys(MEASURES, math.nan)
    row = {
        "teacher": keys["teacher"],
        "teacher_parameters": math.nan if known is None else float(known.parameters),
        "teacher_parameters_without_embeddings": (
            math.nan if known is None else float(known.parameters_without_embeddings)
        ),
        "teacher_nats": math.nan if known is None else known.held_out_nats,
        "student": cell["student"],
        "student_parameters": parameters,
        "student_parameters_without_embeddings": inner,
        "ratio": math.nan if known is None else known.parameters / parameters,
        "objective": objective.name,
        "init": cell["init"],
        "seed": seed,
        **scores,
        "seconds": cost.cpu_seconds if setting.device.type == "cpu" else cost.wall_seconds,
    }
    curve = history.table
    curve = curve[curve["quantity"].isin(["loss", "t"])]
    named = {name: keys[name] for name in ("teacher", "student", "init")} | {"seed": seed, "objective": objective.name}
    return row, pd.DataFrame({**named, **{name: curve[name] for name in curve}})


def _train(
    student: nn.Module,
    teacher: nn.Module | None,
    batches: Iterator[Tensor],
    objective: Objective,
    seed: int,
    label: str,
    training: dict[str, Any],
) -> History:
    if teacher is None:

        def loss(model: nn.Module, batch: Tensor) -> Tensor:
            return objective.ce_weight * next_token_loss(model, batch)

        return fit(student, batches, loss, seed=seed, label=label, **training)
    return distil(
        student, teacher, batches, objective.loss, loss_options=dict(objective.options),
        ce_weight=objective.ce_weight, kd_weight=objective.kd_weight, seed=seed, label=label, **training,
    )  # fmt: skip


@torch.no_grad()
def _score(setting: Setting, student: nn.Module, teacher: nn.Module | None) -> dict[str, float]:
    scores = LanguageScores(setting.text.bytes_per_token)
    student.eval()
    for part in setting.held_out.split(setting.at_once):
        inputs, labels = part[:, :-1].to(setting.device), part[:, 1:].to(setting.device)
        answers = None if teacher is None else torch.log_softmax(logits_of(teacher, inputs).float(), dim=-1)
        scores.add(logits_of(student, inputs), labels, answers)
    found = scores.result()
    return {name: found[name] for name in MEASURES}
