"""One student of a real teacher: trained from the teacher's stored answers, and judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.losses import chunked_linear_distillation, topk_kl
from workbench.models.last_layer import last_hidden_states, last_layer
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import LeanLM
from workbench.runtime import measure
from workbench.training.checkpoints import save_weights
from workbench.training.loop import History, TrainingDiverged, fit
from workbench.training.objective import DistillationLoss, Objective
from workbench.training.teacher_cache import TeacherCache

TOP_K = "topk_kl"  # from the stored top k; every other objective is exact over the whole vocabulary
SCORED_AT_ONCE = 4  # windows


@dataclass(frozen=True)
class RealTask:
    """What trains one student. The cache answers about the transfer windows first, then about the held-out ones."""

    objective: Objective
    seed: int
    size: ModelSize
    cache: Path
    windows: Path  # .npy [windows, context + 1]
    transfer: int  # windows to learn from; the rest is held out
    vocab: int
    steps: int
    batch_size: int
    lr: float
    warmup: float
    precision: str
    bytes_per_token: float
    record_every: int
    keep: Path | None  # where the trained weights go

    def read_windows(self) -> Tensor:
        """Tokens ``[windows, context + 1]``."""
        return torch.from_numpy(np.load(self.windows).astype(np.int64))


def train_student(task: RealTask) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measures of one student on the held-out windows, and its loss (and t) over the steps."""
    windows, cache = task.read_windows(), TeacherCache(task.cache)
    context = windows.shape[1] - 1
    model = LeanLM(initial_weights(task.vocab, task.size, seed=task.seed), task.size, context=context)
    with measure() as cost:
        try:
            history = _train(task, model, windows, cache)
            found = scores(model, windows, cache, task)
        except TrainingDiverged:
            history, found = History(), dict.fromkeys(MEASURES, math.nan)
    if task.keep is not None:
        save_weights(model.replica(0), task.size, task.keep, context=context)
    row = {"objective": task.objective.name, "seed": task.seed, **found, "seconds": cost.cpu_seconds}
    curve = history.table
    curve = curve[curve["quantity"].isin(["loss", "t"])]
    return row, pd.DataFrame({"objective": task.objective.name, "seed": task.seed, **{c: curve[c] for c in curve}})


MEASURES = ("nats", "nats_per_token", "perplexity", "kl_to_teacher", "reverse_kl_to_teacher")


def _train(task: RealTask, model: LeanLM, windows: Tensor, cache: TeacherCache) -> History:
    head, walked = cache.head, History()
    objective = None if task.objective.loss == TOP_K else DistillationLoss.of(task.objective, total_steps=task.steps)

    def loss(student: LeanLM, numbers: Tensor) -> Tensor:
        tokens = windows[numbers]
        hidden, mine = last_hidden_states(student, tokens[:, :-1]), last_layer(student)
        if objective is None:
            return topk_kl(mine.logits(hidden), *cache.top_k(numbers))
        return objective.from_hidden_states(hidden, mine, cache.hidden_states(numbers), head, tokens[:, 1:])

    def after(step: int, _known: dict[str, float]) -> None:
        if objective is None:
            return
        if step % task.record_every == 0 or step in (1, task.steps):
            walked.record(step, **objective.walking)
        objective.advance()

    history = fit(
        model, _numbers(task), loss, steps=task.steps, lr=task.lr, warmup=task.warmup, precision=task.precision,
        record_every=task.record_every, on_step=after, seed=task.seed, label=None,
    )  # fmt: skip
    history.observations.extend(walked.observations)
    return history


def _numbers(task: RealTask) -> Iterator[Tensor]:
    """Numbers of transfer windows ``[batch]``; all are read once before any is read again, in the seed's order."""
    random = np.random.default_rng(task.seed)
    order = np.empty(0, dtype=np.int64)
    while True:
        while len(order) < task.batch_size:
            order = np.concatenate([order, random.permutation(task.transfer)])
        yield torch.from_numpy(order[: task.batch_size])
        order = order[task.batch_size :]


@torch.no_grad()
def scores(model: LeanLM | None, windows: Tensor, cache: TeacherCache, task: RealTask) -> dict[str, float]:
    """Held-out loss in nats per byte and per token, perplexity per token, and both divergences to the teacher.

    In float32, without logits of more than a few rows. ``None`` judges the teacher by its own answers.
    """
    if model is not None:
        model.eval()
    head, sums = cache.head, dict.fromkeys(("nats_per_token", "kl_to_teacher", "reverse_kl_to_teacher"), 0.0)
    head_weight = head.weight.float()
    held_out = range(task.transfer, len(windows))
    for start in range(0, len(held_out), SCORED_AT_ONCE):
        numbers = list(held_out[start : start + SCORED_AT_ONCE])
        tokens, taught = windows[numbers], cache.hidden_states(numbers).float()
        if model is None:
            mine = {"student_hidden": taught, "student_weight": head_weight, "student_bias": head.bias}
        else:
            mine = {
                "student_hidden": model.hidden_states(tokens[:, :-1]).squeeze(0),
                "student_weight": model.embedding.squeeze(0),
            }
        caps = (head.softcap if model is None else None, head.softcap)
        parts = {
            "nats_per_token": {"labels": tokens[:, 1:], "ce_weight": 1.0, "kd_weight": 0.0},
            "kl_to_teacher": {"loss": "forward_kl"},
            "reverse_kl_to_teacher": {"loss": "reverse_kl"},
        }
        for name, options in parts.items() if model is not None else [("nats_per_token", parts["nats_per_token"])]:
            value = chunked_linear_distillation(
                **mine,
                teacher_hidden=taught,
                teacher_weight=head_weight,
                teacher_bias=head.bias,
                softcap=caps,
                **options,
            )
            sums[name] += float(value) * len(numbers)
    means = {name: total / len(held_out) for name, total in sums.items()}
    nats = means["nats_per_token"]
    return {"nats": nats / task.bytes_per_token, "nats_per_token": nats, "perplexity": math.exp(nats), **means}
