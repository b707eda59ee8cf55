"""Language models of some sizes at several stages of their training, the untrained one among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import check_positive
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import LeanLM
from workbench.training.batches import fixed_windows
from workbench.training.ladder import EVALUATION_WINDOWS, TrainedModel, train_ladder

if TYPE_CHECKING:
    from workbench.training.text_task import TextTask


@dataclass(frozen=True)
class Stage:
    """A model after so many steps."""

    size: ModelSize
    seed: int
    steps: int  # 0: as it was initialised
    nats: float  # per byte of held-out text
    model: LeanLM

    @property
    def name(self) -> str:
        """What tables call it: ``untrained`` or ``400 steps``."""
        return f"{self.steps} steps" if self.steps else "untrained"


def train_stages(
    sizes: Sequence[ModelSize],
    task: TextTask,
    *,
    steps: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
    label: str = "stages",
) -> list[list[TrainedModel]]:
    """Every size trained for every number of ``steps`` with every seed, or found trained; a list per pair of them.

    A shorter training is a run of its own with its own learning-rate schedule, not a moment of a longer one.

    Raises:
        ValueError: no sizes, steps or seeds, or steps below 1: the untrained stage is always there.
    """
    if not steps or not seeds:
        raise ValueError(f"steps={tuple(steps)} and seeds={tuple(seeds)} must not be empty.")
    for count in steps:
        check_positive(steps=count)
    return [
        train_ladder(sizes, task, steps=count, batch_size=batch_size, seed=seed, label=f"{label}, {count} steps")
        for count in steps
        for seed in seeds
    ]


def stages(
    sizes: Sequence[ModelSize], task: TextTask, *, steps: Sequence[int], seeds: Sequence[int], batch_size: int
) -> Iterator[Stage]:
    """Every size, seed and stage in turn, the untrained model first; one model is in memory at a time.

    Raises:
        ValueError: as :func:`train_stages`.
    """
    from workbench.metrics.language import held_out_scores

    trained = train_stages(sizes, task, steps=steps, seeds=seeds, batch_size=batch_size)
    runs = iter(trained)
    by_stage = {(count, seed): next(runs) for count in steps for seed in seeds}
    text = task.prepare()
    windows = fixed_windows(text.held_out, context=task.context, count=EVALUATION_WINDOWS // 4)
    for place, size in enumerate(sizes):
        for seed in seeds:
            fresh = LeanLM(initial_weights(text.vocab_size, size, seed=seed), size, context=task.context).eval()
            nats = held_out_scores(fresh, windows, bytes_per_token=text.bytes_per_token)["nats"]
            yield Stage(size, seed, 0, nats, fresh)
            for count in steps:
                model = by_stage[count, seed][place]
                yield Stage(size, seed, count, model.held_out_nats, model.lean())
