"""The bench for teachers: whom a student learns from, by which losses, on which text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.models.small_lm import is_size_name, named_size
from workbench.profiles import Profiled
from workbench.training.bench_run import StudentRun, plan_runs
from workbench.training.ladder import train_ladder
from workbench.training.text_task import TextTask

if TYPE_CHECKING:
    from workbench.training.ladder import TrainedModel

NONE = "none"


@dataclass(frozen=True)
class Config(Profiled):
    """What one press of Run asks for: every teacher with every loss and seed. ``Config.of`` gives the profiles.

    Raises:
        ValueError, UnknownName: a name or number that cannot work ("did you mean").
    """

    corpus: str = "shakespeare"  # what they learn: shakespeare, a .txt file or a folder of .txt files
    vocabulary: str = "characters"  # of models trained here: characters, or the size of a byte-pair vocabulary
    teachers: tuple[str, ...] = ("32x2", "64x2", "96x2")  # sizes to train here, smollm2-135m, folders or hub names
    student: str = "16x2"  # size of the students, width x layers, in the vocabulary of their teacher
    losses: tuple[str, ...] = ("cross_entropy", "forward_kl", "taid")  # cross_entropy is the one without a teacher
    seeds: tuple[int, ...] = (0, 1)  # of first weights and batches, one student each
    teacher_steps: int = 300  # optimiser steps of a teacher trained here
    steps: int = 200  # optimiser steps of a student
    batch_size: int = 8  # windows of text in a step
    context: int = 64  # tokens a model sees
    pretrained: str = "smollm2-135m"  # only read beside the others on your sentence; none leaves it out
    profile: str = "quick"

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "teachers": ("32x1",), "student": "16x1", "losses": ("cross_entropy", "forward_kl"), "seeds": (0,),
            "teacher_steps": 20, "steps": 20, "context": 32,
        },
        "full": {
            "teachers": ("32x4", "64x4", "96x4", "128x4", "192x4"), "student": "32x2", "seeds": (0, 1, 2),
            "losses": ("cross_entropy", "forward_kl", "reverse_kl", "generalized_jsd", "taid"),
            "teacher_steps": 2000, "steps": 1000,
        },
        "paper": {
            "teachers": ("smollm2-135m", "HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-1.7B"),
            "student": "256x8", "losses": ("cross_entropy", "forward_kl", "reverse_kl", "generalized_jsd", "taid"),
            "seeds": (0, 1, 2, 3, 4), "steps": 30000, "batch_size": 32, "context": 512,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        self.runs()

    @property
    def task(self) -> TextTask:
        """The text that every model trained here learns."""
        vocabulary = int(self.vocabulary) if self.vocabulary.isdigit() else self.vocabulary
        return TextTask(corpus=self.corpus, vocabulary=vocabulary, context=self.context)

    def runs(self) -> list[StudentRun]:
        """The students that are to be trained, in the order of the fields."""
        return plan_runs(
            self.teachers, self.student, self.losses, self.seeds, corpus=self.corpus, vocabulary=self.vocabulary,
            context=self.context, steps=self.steps, batch_size=self.batch_size, teacher_steps=self.teacher_steps,
        )  # fmt: skip


def train(config: Config) -> list[TrainedModel]:
    """Train the teachers that are trained here, or find them trained."""
    sizes = [named_size(name) for name in config.teachers if is_size_name(name)]
    return train_ladder(sizes, config.task, steps=config.teacher_steps) if sizes else []


def load(config: Config, trained: Sequence[TrainedModel]) -> dict[str, tuple[Any, Any]]:
    """Every teacher with its tokenizer by name, the one that is only read beside them last.

    Raises:
        AssetError: a pretrained model cannot be had; ``pretrained="none"`` does without.
    """
    from workbench.models.pretrained import load_pretrained

    models = {}
    if trained:
        tokenizer = config.task.prepare().tokenizer
        models |= {f"teacher {model.name}": (model.load(), tokenizer) for model in trained}
    others = [name for name in (*config.teachers, config.pretrained) if not is_size_name(name) and name != NONE]
    return models | {name: load_pretrained(name) for name in dict.fromkeys(others)}


def table(trained: Sequence[TrainedModel]) -> Any:
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
