"""Many small models trained at once: one run, a trajectory for each, the same as if it were trained alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.replicas import Replicas
from workbench.training.loop import History, fit

__all__ = ["Replicas", "fit_many"]

ManyLosses = Callable[[nn.Module, Any], Tensor]
DIVERGED = "diverged"  # what ``History.stopped`` says of a replica whose loss was not finite any more


def fit_many(
    models: Sequence[nn.Module] | nn.Module,
    batches: Iterable[Any],
    loss: ManyLosses,
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
    evaluate: Callable[[nn.Module], dict[str, Tensor] | Tensor] | None = None,
    evaluate_every: int | None = None,
    record_every: int = 10,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] | None = None,
    seed: int = 0,
    label: str | None = "training",
) -> list[History]:
    """Train ``models`` of one architecture in place, side by side; each as :func:`fit` trains it alone, to rounding.

    A replica whose loss or output is not finite any more is out (``stopped`` is ``diverged``): its weights stay as
    they were before that step, the others do not notice. Worth its while for small models: where one matrix product
    keeps a core busy there is no overhead left to share.

    Args:
        models: modules for :class:`Replicas`; or a stack that is ready (``Replicas``, ``StackedLM``: a module with
            ``replicas``, ``clip_gradients``, ``matrix_dimensions`` and parameters ``[replicas, ...]``).
        batches: whatever ``loss`` wants; tensors ``[replicas, batch, ...]`` as a rule.
        loss: ``loss(stack, batch) -> [replicas]``, one mean for each. The output of a lost replica is 0 for it.
        evaluate: ``evaluate(stack)`` gives ``[replicas]`` numbers, or several of them by name.
        on_step: called after each step with its number (from 1), the ``loss`` ``[replicas]`` and ``lr``; lost
            replicas have NaN.
        stop: as for :func:`fit`; the run ends, too, when every replica is lost.

    The other arguments are those of :func:`fit`; ``seed`` is of random numbers that ``loss`` draws.

    Returns:
        A history for each replica, in their order.

    Raises:
        ValueError: models that cannot be replicas, a loss of another shape, or what :func:`fit` refuses.
    """
    stack = models if isinstance(models, nn.Module) else Replicas(models)
    run = _Run(stack, loss, accumulate)

    def after(step: int, known: dict[str, float]) -> None:
        values = run.end_of_step()
        known = {"loss": values, "lr": known["lr"]}
        for history, value, alive in zip(run.histories, values.tolist(), run.alive.tolist(), strict=True):
            if not alive:
                continue
            history.steps = step
            if step % record_every == 0 or step in (1, steps):
                history.record(step, loss=value, lr=known["lr"])
        if on_step is not None:
            on_step(step, known)

    def judge(current: nn.Module) -> dict[str, float]:
        found = evaluate(current)
        found = found if isinstance(found, dict) else {"evaluation": found}
        for name, values in found.items():
            for place, value in enumerate(run.check(values, f"evaluate's {name}").tolist()):
                run.histories[place].record(run.steps, **{name: value if run.alive[place] else math.nan})
        return {name: float(values.nanmean()) for name, values in found.items()}

    watch = stack.register_forward_hook(run.look_for_lost)
    try:
        whole = fit(
            stack, batches, run.loss_of_step, steps=steps, lr=lr, schedule=schedule, warmup=warmup,
            weight_decay=weight_decay, betas=betas, clip=clip, accumulate=accumulate, precision=precision,
            evaluate=None if evaluate is None else judge, evaluate_every=evaluate_every, record_every=record_every,
            on_step=after, stop=lambda: not bool(run.alive.any()) or (stop is not None and stop()), seed=seed,
            label=label,
        )  # fmt: skip
    finally:
        watch.remove()
        run.restore_lost()
        if stack is not models:
            stack.write_back(models)
    for history, alive in zip(run.histories, run.alive.tolist(), strict=True):
        history.stopped = whole.stopped if alive else DIVERGED
    return run.histories


class _Run:
    """Values, histories and losses of the replicas of one run."""

    def __init__(self, stack: nn.Module, loss: ManyLosses, accumulate: int) -> None:
        self.stack, self.loss, self.accumulate = stack, loss, accumulate
        self.alive = torch.ones(stack.replicas, dtype=torch.bool)
        self.strange = torch.zeros(stack.replicas, dtype=torch.bool)  # output not finite in this forward
        self.histories = [History() for _ in range(stack.replicas)]
        self.parts: list[Tensor] = []
        self.kept: dict[int, list[Tensor]] = {}  # of lost replicas, the weights with which they were lost
        self.steps = 0

    def loss_of_step(self, stack: nn.Module, batch: Any) -> Tensor:
        """The sum over the replicas that are alive; each weight touches the loss of its own replica alone."""
        self.strange.zero_()
        values = self.check(self.loss(stack, batch), "the loss")
        seen = values.detach().float().cpu().masked_fill(self.strange, math.nan)
        for place in (self.alive & ~seen.isfinite()).nonzero().flatten().tolist():
            self.alive[place] = False
            self.kept[place] = [tensor.detach()[place].clone() for tensor in stack.parameters()]
        self.parts.append(seen.masked_fill(~self.alive, math.nan))
        if self.alive.all():
            return values.sum()
        # Left out, not multiplied by 0: that would be NaN where the value is.
        kept = values[self.alive.to(values.device)]
        return kept.sum() if len(kept) else next(_trained(stack)).nan_to_num().sum() * 0

    @torch.no_grad()
    def look_for_lost(self, stack: nn.Module, _inputs: tuple, output: Any) -> Any:
        """Note whose output is NaN or infinite, and put 0 in its place: losses refuse such numbers, for all at once."""
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        # The largest entry shows NaN and inf in one pass; -inf is what models say of tokens that are not in use.
        lost = ~output.detach().flatten(1).amax(1).isfinite()
        if not lost.any():
            return None
        self.strange |= lost.cpu()
        with torch.enable_grad():
            return output.masked_fill(lost.view(-1, *[1] * (output.dim() - 1)), 0.0)

    def end_of_step(self) -> Tensor:
        """The losses ``[replicas]`` of the step that ended."""
        values = torch.stack(self.parts).mean(0).masked_fill(~self.alive, math.nan)
        self.parts, self.steps = [], self.steps + 1
        return values

    def check(self, values: Tensor, what: str) -> Tensor:
        """Raise unless there is one number for each replica."""
        if not isinstance(values, Tensor) or values.shape != (self.stack.replicas,):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{what} must be a tensor [replicas], here ({self.stack.replicas},); got {got}.")
        return values

    @torch.no_grad()
    def restore_lost(self) -> None:
        """Take back what the optimiser's momentum did to the lost ones."""
        for place, weights in self.kept.items():
            for tensor, weight in zip(self.stack.parameters(), weights, strict=True):
                tensor[place] = weight


def _trained(stack: nn.Module) -> Any:
    return (tensor for tensor in stack.parameters() if tensor.requires_grad)
