"""A ladder of language models of growing size, each trained once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from workbench import telemetry
from workbench.errors import check_positive
from workbench.models.small_lm import ModelSize, initial_weights, llama
from workbench.models.stacked_lm import LeanLM
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, made_once, read_weights, save_weights
from workbench.training.parallel import run_tasks
from workbench.training.text_task import PreparedText, TextTask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

EVALUATION_WINDOWS = 512


@dataclass(frozen=True)
class TrainedModel:
    """A language model on disk and what is known of it."""

    name: str
    folder: Path
    size: ModelSize
    parameters: int
    parameters_without_embeddings: int
    held_out_nats: float  # nats per byte of held-out text
    seconds: float  # CPU seconds its training took when it was trained
    task: TextTask

    def load(self) -> LlamaForCausalLM:
        """The transformers model, in evaluation mode."""
        return llama(self.weights(), self.size, context=self.task.context)

    def lean(self) -> LeanLM:
        """The same model without transformers, whose import takes seconds."""
        return LeanLM(self.weights(), self.size, context=self.task.context).eval()

    def weights(self) -> dict[str, Tensor]:
        """Its weights by name."""
        return read_weights(self.folder / "model")


@dataclass(frozen=True)
class _Recipe:
    size: ModelSize
    task: TextTask
    text: PreparedText
    steps: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    evaluation_windows: int
    seed: int
    folder: Path = Path()  # filled in at once: known before any process starts

    def __post_init__(self) -> None:
        # The text's folder is named by a hash of its content; where it lies does not matter.
        left_out = ("size", "task", "text", "folder")
        made_of = {name: value for name, value in self.__dict__.items() if name not in left_out}
        key = content_hash(size=self.size, text=self.text.key, context=self.text.context, code=code_hash(), **made_of)
        object.__setattr__(self, "folder", cache_folder("models", key))


def train_ladder(
    sizes: Sequence[ModelSize],
    task: TextTask,
    *,
    steps: int,
    batch_size: int = 8,
    lr: float | None = None,
    warmup: float = 0.05,
    weight_decay: float = 0.1,
    evaluation_windows: int = EVALUATION_WINDOWS,
    seed: int = 0,
    cores: int | None = None,
    stop: Callable[[], bool] | None = None,
    label: str = "teachers",
) -> list[TrainedModel]:
    """Train a model of every size on ``task`` (or find it trained), in the order given.

    Args:
        steps: optimiser steps of each.
        lr: highest learning rate; ``None`` takes :func:`default_lr` of each width.
        stop: asked whenever a model is done; what is left then is missing from the list.

    Raises:
        ValueError: no sizes, or numbers that cannot work.
        TrainingDiverged: a loss became infinite.
    """
    if not sizes:
        raise ValueError("sizes is empty: name at least one ModelSize.")
    check_positive(steps=steps, batch_size=batch_size, evaluation_windows=evaluation_windows)
    text = task.prepare()
    recipes = [
        _Recipe(size, task, text, steps, batch_size, default_lr(size) if lr is None else lr, warmup, weight_decay,
                evaluation_windows, seed)
        for size in sizes
    ]  # fmt: skip
    # The largest first: the last task to finish then keeps the other cores idle for the shortest time.
    missing = sorted(
        (recipe for recipe in recipes if not recipe.folder.is_dir()),
        key=lambda recipe: -recipe.size.parameters(text.vocab_size),
    )
    run_tasks(
        _train, missing, cores=cores, stop=stop, label=label, on_done=lambda place, _: _announce(missing[place])
    )  # fmt: skip
    return [_read(recipe) for recipe in recipes if recipe.folder.is_dir()]


def default_lr(size: ModelSize) -> float:
    """Learning rate that suits a width in short runs with small batches: 0.009 at width 32, in inverse ratio to it.

    Found on Shakespeare's characters at widths 16 to 96; never above 0.018.
    """
    return 0.009 * 32 / max(size.width, 16)


def _announce(recipe: _Recipe) -> None:
    """Show the training curve to whoever watches; its own process could not."""
    if telemetry.is_watched():
        history = pd.read_parquet(recipe.folder / "history.parquet")
        for step, value in history.loc[history["quantity"] == "loss", ["step", "value"]].itertuples(index=False):
            telemetry.publish(f"{recipe.size.name} alone", step, value)


def _train(recipe: _Recipe) -> None:
    made_once(recipe.folder, lambda folder: _train_into(folder, recipe))


def _train_into(folder: Path, recipe: _Recipe) -> None:
    from workbench.metrics.language import held_out_scores
    from workbench.models.next_token import next_token_loss
    from workbench.runtime import measure
    from workbench.training.batches import fixed_windows, random_windows
    from workbench.training.loop import fit

    text = recipe.text
    weights = initial_weights(text.vocab_size, recipe.size, seed=recipe.seed)
    model = LeanLM(weights, recipe.size, context=text.context)
    batches = random_windows(text.training, context=text.context, batch_size=recipe.batch_size, seed=recipe.seed)
    with measure() as cost:
        history = fit(
            model, batches, next_token_loss, steps=recipe.steps, lr=recipe.lr, warmup=recipe.warmup,
            weight_decay=recipe.weight_decay, seed=recipe.seed, label=None,
        )  # fmt: skip
    windows = fixed_windows(text.held_out, context=text.context, count=recipe.evaluation_windows)
    scores = held_out_scores(model, windows, bytes_per_token=text.bytes_per_token)
    save_weights(model.replica(0), recipe.size, folder / "model", context=text.context)
    history.table.to_parquet(folder / "history.parquet")
    about = {
        "size": asdict(recipe.size),
        "parameters": recipe.size.parameters(text.vocab_size),
        "parameters_without_embeddings": recipe.size.parameters(text.vocab_size, embeddings=False),
        "held_out_nats": scores["nats"],
        "seconds": cost.cpu_seconds,
    }
    (folder / "about.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _read(recipe: _Recipe) -> TrainedModel:
    folder = recipe.folder
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return TrainedModel(
        name=recipe.size.name,
        folder=folder,
        size=ModelSize(**about["size"]),
        parameters=about["parameters"],
        parameters_without_embeddings=about["parameters_without_embeddings"],
        held_out_nats=about["held_out_nats"],
        seconds=about["seconds"],
        task=recipe.task,
    )
