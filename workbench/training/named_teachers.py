"""Teachers by name: sizes that are trained here, or pretrained models that are only measured."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.models.small_lm import named_size
from workbench.training.ladder import train_ladder
from workbench.training.pretrained_cell import Teacher
from workbench.training.pretrained_grid import measure_pretrained
from workbench.training.pretrained_text import are_pretrained
from workbench.training.text_task import TextTask


def named_teachers(names: Sequence[str], task: TextTask, *, steps: int, batch_size: int) -> list[Teacher]:
    """A model per name, in the order given: ``64x2`` is trained on ``task`` and kept, anything else is loaded.

    Args:
        steps, batch_size: of the training of those made here.

    Raises:
        ValueError: both kinds of name in one list, or a model that cannot read the task.
    """
    if are_pretrained(names):
        return measure_pretrained(names, task.corpus, context=task.context)
    return train_ladder([named_size(name) for name in names], task, steps=steps, batch_size=batch_size)
