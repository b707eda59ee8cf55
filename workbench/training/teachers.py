"""A small school of language models to compare: a student, teachers of growing size, and a pretrained one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.models.small_lm import HEAD_WIDTH, ModelSize
from workbench.profiles import Profiled
from workbench.training.ladder import train_ladder
from workbench.training.text_task import TextTask

if TYPE_CHECKING:
    from workbench.training.ladder import TrainedModel

NONE = "none"


@dataclass(frozen=True)
class Config(Profiled):
    """Which models stand side by side. ``Config.of`` gives the profiles.

    Raises:
        ValueError: widths that are not rising multiples of 16.
    """

    corpus: str = "shakespeare"  # what they learn: shakespeare, a .txt file or a folder of .txt files
    vocabulary: str = "characters"  # characters, or the size of a byte-pair vocabulary
    widths: tuple[int, ...] = (16, 32, 64, 96)  # channels of each model, the first is the student
    layers: int = 2  # blocks of each model
    context: int = 64  # tokens a model sees
    steps: int = 300  # optimiser steps of each model
    pretrained: str = "smollm2-135m"  # a teacher from elsewhere: short name, folder or hub name; none leaves it out
    seed: int = 0  # of weights and batches
    profile: str = "quick"

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"widths": (16, 32), "layers": 1, "context": 32, "steps": 20},
        "full": {"widths": (16, 32, 64, 128), "layers": 4, "context": 128, "steps": 2000},
        "paper": {"widths": (64, 128, 256, 512), "layers": 8, "context": 256, "steps": 30000},
    }

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.widths, self.widths[1:], strict=False))
        if not self.widths or not rising or any(width % HEAD_WIDTH for width in self.widths):
            raise ValueError(
                f"widths={self.widths} must be rising multiples of {HEAD_WIDTH}, the student first, such as 16, 32, 64."
            )

    @property
    def task(self) -> TextTask:
        """The text that every model trained here learns."""
        vocabulary = int(self.vocabulary) if self.vocabulary.isdigit() else self.vocabulary
        return TextTask(corpus=self.corpus, vocabulary=vocabulary, context=self.context)


def train(config: Config) -> list[TrainedModel]:
    """Train the student and the teachers, or find them trained; the student first."""
    sizes = [ModelSize(width, config.layers, width // HEAD_WIDTH) for width in config.widths]
    return train_ladder(sizes, config.task, steps=config.steps, seed=config.seed)


def load(config: Config, trained: list[TrainedModel]) -> dict[str, tuple[Any, Any]]:
    """Every model with its tokenizer by name, the student first, the pretrained one last.

    Raises:
        AssetError: the pretrained model cannot be had; ``pretrained="none"`` does without.
    """
    tokenizer = config.task.prepare().tokenizer
    models = {
        f"{'student' if place == 0 else 'teacher'} {model.name}": (model.load(), tokenizer)
        for place, model in enumerate(trained)
    }
    if config.pretrained != NONE:
        from workbench.models.pretrained import load_pretrained

        models[config.pretrained] = load_pretrained(config.pretrained)
    return models


def table(trained: list[TrainedModel]) -> Any:
    """One row per trained model: parameters and held-out loss in nats per byte."""
    import pandas as pd

    return pd.DataFrame(
        {
            "model": model.name,
            "parameters": model.parameters,
            "without embeddings": model.parameters_without_embeddings,
            "held-out nats per byte": round(model.held_out_nats, 3),
            "CPU seconds of training": round(model.seconds, 1),
        }
        for model in trained
    )
