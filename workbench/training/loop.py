"""The training loop: any model, any batches, any loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from workbench import telemetry
from workbench.errors import check_choice, check_positive
from workbench.progress import progress
from workbench.runtime import seeded
from workbench.training.fit_checkpoint import FitCheckpoint, Stateful
from workbench.training.schedule import lr_factor

Loss = Callable[[nn.Module, Any], Tensor]


class TrainingDiverged(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass
class History:
    """What happened: ``table`` has one observation a row (``step, quantity, value``)."""

    steps: int = 0  # optimiser steps done
    stopped: str = "steps"  # steps | patience | asked
    best_step: int | None = None  # step of the best evaluation, whose weights the model now has (with patience)
    observations: list[tuple[int, str, float]] = field(default_factory=list, repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """All observations, tidy."""
        return pd.DataFrame(self.observations, columns=["step", "quantity", "value"])

    def record(self, step: int, **values: float) -> None:
        """Note values at ``step``."""
        self.observations.extend((step, name, float(value)) for name, value in values.items())

    def last(self, quantity: str) -> float:
        """The latest value of ``quantity``; NaN when never seen."""
        return next((value for _, name, value in reversed(self.observations) if name == quantity), math.nan)

    def state_dict(self) -> dict[str, Any]:
        """The observations so far."""
        return {"observations": self.observations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these observations."""
        self.observations[:] = [tuple(one) for one in state["observations"]]


def fit(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    steps: int,
    lr: float,
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
    label: str | None = "training",
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    state: Mapping[str, Stateful] | None = None,
) -> History:
    """Train ``model`` in place with AdamW by ``steps`` optimiser steps.

    Args:
        batches: anything to iterate over; what can be iterated again starts over when it ends.
        loss: ``loss(model, batch) -> scalar``.
        lr: highest learning rate; ``schedule`` (cosine, linear, constant) and ``warmup`` (share of steps) shape it.
        weight_decay: decoupled, on matrices only (not on norms and biases).
        clip: largest gradient norm; a model with its own ``clip_gradients(limit)`` is asked to do it.
        accumulate: batches per step; their mean is the loss, so equal batches act as one large batch.
        precision: ``float32``, or ``bfloat16`` for autocast (weights stay float32).
        evaluate: gives one number or named numbers; the first is the one to make small. Called every
            ``evaluate_every`` steps and at the end.
        patience: stop after so many evaluations without a new best one, and give the model the best weights.
        on_step: called after each step with its number (from 1) and what is known (``loss``, ``lr``).
        stop: asked before each step; True ends the run and keeps what is done.
        seed: of everything random inside the model (dropout).
        label: of the progress bar; ``None`` shows none.
        checkpoint: a file that a stopped run leaves. The same call with a fresh model and fresh batches goes on
            from it and ends as if it had never been stopped, bit for bit; the batches that were used are drawn
            again and passed over. It is gone once the run has come to its end.
        checkpoint_every: write it every so many steps too, for the case that the process is killed.
        state: what else must be stopped and taken up with the model, such as the schedule of a loss.

    Raises:
        AssetError: the checkpoint cannot be written.
        TrainingDiverged: the loss is not finite any more.
        ValueError: batches ran out, an argument that cannot work, or a checkpoint of another run.
    """
    check_positive(steps=steps, lr=lr, accumulate=accumulate, record_every=record_every)
    check_choice("precision", precision, ("float32", "bfloat16"))
    if checkpoint_every is not None:
        check_positive(checkpoint_every=checkpoint_every)
    if patience is not None and evaluate is None:
        raise ValueError("patience needs evaluate: without an evaluation nothing can fail to improve.")
    every = evaluate_every or (max(1, steps // 10) if patience is not None else steps)
    trainable = [tensor for tensor in model.parameters() if tensor.requires_grad]
    if not trainable:
        raise ValueError("the model has no parameter that requires a gradient: there is nothing to train.")
    optimizer = _adamw(model, lr, betas, weight_decay)
    supply = _supply(batches, steps * accumulate)
    history, keeper = History(), _Keeper(model, patience)
    device = trainable[0].device
    was_training = model.training
    model.train()
    saved = FitCheckpoint(
        checkpoint,
        {"model": model, "optimizer": optimizer, "history": history, "keeper": keeper, **(state or {})},
        {
            "steps": steps, "lr": lr, "schedule": schedule, "warmup": warmup, "weight_decay": weight_decay,
            "betas": tuple(betas), "clip": clip, "accumulate": accumulate, "precision": precision, "seed": seed,
        },
        every=checkpoint_every,
        device=device,
    )  # fmt: skip
    with seeded(seed):
        history.steps = saved.resume()
        for _ in range(history.steps * accumulate):
            next(supply)
        left = range(history.steps, steps)
        try:
            for step in left if label is None else progress(left, label=label):
                if stop is not None and stop():
                    history.stopped = "asked"
                    break
                telemetry.check_stop()
                saved.begin_step()
                factor = lr_factor(step, steps, schedule=schedule, warmup=warmup)
                for group in optimizer.param_groups:
                    group["lr"] = lr * factor
                optimizer.zero_grad(set_to_none=True)
                value = 0.0
                for _ in range(accumulate):
                    with torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext():
                        part = loss(model, next(supply)) / accumulate
                    part.backward()
                    value += part.item()
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"the loss is {value} at step {step + 1} of {steps}: lower lr={lr:g}, raise warmup or set clip."
                    )
                if clip is not None:
                    _clip(model, trainable, clip)
                optimizer.step()
                history.steps = step + 1
                known = {"loss": value, "lr": lr * factor}
                if (step + 1) % record_every == 0 or step in (0, steps - 1):
                    history.record(step + 1, **known)
                    if label is not None:
                        telemetry.publish(label, step + 1, value)
                if on_step is not None:
                    on_step(step + 1, known)
                if evaluate is not None and ((step + 1) % every == 0 or step == steps - 1):
                    found = _evaluate(model, evaluate)
                    history.record(step + 1, **found)
                    if keeper.tired(step + 1, next(iter(found.values()))):
                        history.stopped = "patience"
                        break
                saved.end_step(step + 1)
        except telemetry.Stopped:
            saved.write()
            raise
        if history.stopped == "asked":
            saved.write()
        else:
            saved.remove()
    keeper.restore()
    history.best_step = keeper.best_step
    model.train(was_training)
    return history


def _adamw(model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    trainable = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    # A stack of replicas has one axis more: its norms are matrices and its matrices are cubes.
    matrix = getattr(model, "matrix_dimensions", 2)
    groups = [
        {"params": [tensor for _, tensor in trainable if tensor.dim() >= matrix], "weight_decay": weight_decay},
        {"params": [tensor for _, tensor in trainable if tensor.dim() < matrix], "weight_decay": 0.0},
    ]
    fused = all(tensor.device.type in ("cpu", "cuda") and tensor.is_floating_point() for _, tensor in trainable)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=fused)


def _supply(batches: Iterable[Any], needed: int) -> Iterator[Any]:
    given = 0
    while True:
        before = given
        for batch in batches:
            yield batch
            given += 1
        if iter(batches) is batches or given == before:
            raise ValueError(f"batches ended after {given} of the {needed} that the steps need.")


def _clip(model: nn.Module, trainable: list[Tensor], limit: float) -> None:
    own = getattr(model, "clip_gradients", None)
    if own is not None:
        own(limit)
    else:
        nn.utils.clip_grad_norm_(trainable, limit)


def _evaluate(model: nn.Module, evaluate: Callable[[nn.Module], dict[str, float] | float]) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        found = evaluate(model)
    model.train()
    return found if isinstance(found, dict) else {"evaluation": float(found)}


class _Keeper:
    """Remembers the best weights of a run that may stop early."""

    def __init__(self, model: nn.Module, patience: int | None) -> None:
        self.model, self.patience = model, patience
        self.best, self.best_step, self.waited = math.inf, None, 0
        self.weights: dict[str, Tensor] = {}

    def tired(self, step: int, value: float) -> bool:
        if value < self.best:
            self.best, self.best_step, self.waited = value, step, 0
            if self.patience is not None:
                self.weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            return False
        self.waited += 1
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
        own = self.model.state_dict()
        self.weights = {name: tensor.to(own[name].device) for name, tensor in state["weights"].items()}

    def restore(self) -> None:
        if self.weights:
            self.model.load_state_dict(self.weights)
