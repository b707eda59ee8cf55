"""A grid of pretrained students and teachers: the papers' own models on a GPU, or one's own anywhere.

Where :func:`workbench.training.distil_grid` trains many small models side by side, this one has one pair in
memory at a time and asks the teacher at every step, since answers over a vocabulary of 50,000 are too many to keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench import telemetry
from workbench.errors import check_choice, check_positive
from workbench.models.pruning import check_prunable
from workbench.models.small_lm import size_in
from workbench.training.distil_grid import DistilGrid
from workbench.training.objective import Objective
from workbench.training.pretrained_cell import (
    PretrainedModel,
    first_student,
    load_teacher,
    prepare_setting,
    train_cell,
)
from workbench.training.pretrained_text import Family

INITS = ("given", "random", "pruned")
EVALUATION_WINDOWS = 256


def measure_pretrained(
    names: Sequence[str],
    corpus: str,
    *,
    context: int,
    evaluation_windows: int = EVALUATION_WINDOWS,
    held_out: int | None = None,
    device: str = "auto",
) -> list[PretrainedModel]:
    """How well pretrained models that share a tokenizer predict held-out text, in the order given.

    Raises:
        ValueError, UnknownName, AssetError: as :func:`distil_pretrained`.
    """
    if not names:
        raise ValueError("names is empty: name at least one pretrained model.")
    setting = prepare_setting(
        names, corpus, context=context, batch_size=1, evaluation_windows=evaluation_windows, held_out=held_out,
        transfer_windows=None, device=device, precision="auto",
    )  # fmt: skip
    return [load_teacher(setting, name)[1] for name in names]


def distil_pretrained(
    teachers: Sequence[str],
    students: Sequence[str],
    objectives: Sequence[Objective],
    seeds: Sequence[int],
    corpus: str,
    *,
    steps: int,
    batch_size: int,
    context: int,
    lr: float,
    warmup: float = 0.0,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    init: str = "given",
    transfer_windows: int | None = None,
    evaluation_windows: int = EVALUATION_WINDOWS,
    calibration_batches: int = 8,
    held_out: int | None = None,
    record_every: int = 10,
    device: str = "auto",
    precision: str = "auto",
) -> DistilGrid:
    """Distil every pretrained teacher into every pretrained student by every objective, once per seed.

    A seed decides the order of the batches, and the first weights where they are random. Batches whose logits
    would be too large for memory are computed in parts with the same result. Objectives that need no teacher
    are trained once per student and seed, with teacher ``none``. A student whose loss becomes infinite has
    ``nats`` NaN.

    Args:
        teachers, students: short name, folder or hub name (:func:`workbench.models.pretrained.load_pretrained`).
        corpus: as :func:`workbench.datasets.corpus.load_corpus`.
        init: ``given`` (the student as it is published), ``random`` (its shape, fresh weights) or ``pruned``
            (its shape, cut out of the teacher; pairs that do not fit are left out, and without a teacher the
            start is random).
        transfer_windows: the students learn from so many windows of the training text; ``None`` sets no limit.
        held_out: documents to judge on; ``None`` is four, or one in a hundred where that is more.
        precision: of training: ``float32``, ``bfloat16`` (autocast, teachers kept in bfloat16), or ``auto``,
            which is bfloat16 on a CUDA GPU and float32 elsewhere.

    Returns:
        The columns of :func:`~workbench.training.distil_grid`; ``seconds`` are CPU seconds, or on a GPU
        seconds by the clock.

    Raises:
        UnknownName: an unknown model, loss, ``init`` or corpus.
        ValueError: empty or repeated entries, different vocabularies, a context that a model cannot see, or
            no pair in which the student can be pruned from the teacher.
        AssetError: a model or the corpus cannot be had.
    """
    check_positive(steps=steps, lr=lr, record_every=record_every, calibration_batches=calibration_batches)
    check_choice("init", init, INITS)
    pulled = [objective for objective in objectives if objective.needs_teacher]
    alone = [objective for objective in objectives if not objective.needs_teacher]
    _check_lists(teachers if pulled else None, students, objectives, seeds)
    setting = prepare_setting(
        [*teachers, *students], corpus, context=context, batch_size=batch_size, evaluation_windows=evaluation_windows,
        held_out=held_out, transfer_windows=transfer_windows, device=device, precision=precision,
    )  # fmt: skip
    pairs = [(None, student) for student in students if alone]
    pairs += [(teacher, student) for teacher in teachers for student in students if pulled]
    if init == "pruned":
        pairs = _that_fit(setting.family, pairs)
    training = {
        "steps": steps, "lr": lr, "warmup": warmup, "weight_decay": weight_decay, "betas": betas,
        "record_every": record_every, "accumulate": batch_size // setting.at_once, "precision": setting.precision,
    }  # fmt: skip
    rows, curves = [], []
    teacher, known, loaded = None, None, None
    for source, student in pairs:
        if source != loaded:
            del teacher  # before the next one comes: two large teachers may not fit side by side
            teacher, known = load_teacher(setting, source)
            loaded = source
        started = "random" if init == "pruned" and source is None else init
        for seed in seeds:
            first = first_student(setting, teacher, student, started, seed, calibration_batches)
            for objective in pulled if source is not None else alone:
                cell = {"student": setting.family.label(student), "objective": objective.name, "init": started}
                row, curve = train_cell(setting, teacher, known, first, objective, seed, cell, training)
                telemetry.publish_row(row)
                rows.append(row)
                curves.append(curve)
    return DistilGrid(pd.DataFrame(rows), pd.concat(curves, ignore_index=True))


def _that_fit(family: Family, pairs: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """The pairs whose student can be cut out of its teacher, and those without a teacher."""
    kept, reason = [], "every student is as large as its teacher."
    for teacher, student in pairs:
        if teacher is not None:
            try:
                large, wanted = family.config(teacher), size_in(family.config(student))
                check_prunable(large, wanted)
            except ValueError as error:
                reason = f"{family.label(student)} from {family.label(teacher)}: {error}"
                continue
            if size_in(large) == wanted:
                continue
        kept.append((teacher, student))
    if not any(teacher is not None for teacher, _ in kept) and any(teacher is not None for teacher, _ in pairs):
        raise ValueError(f"init='pruned' leaves no pair of teacher and student: {reason}")
    return kept


def _check_lists(
    teachers: Sequence[str] | None, students: Sequence[str], objectives: Sequence[Objective], seeds: Sequence[int]
) -> None:
    """``teachers`` are None where no objective needs one."""
    lists: dict[str, list] = {} if teachers is None else {"teachers": list(teachers)}
    lists |= {"students": list(students), "objectives": [one.name for one in objectives], "seeds": list(seeds)}
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{name} is empty: the grid would have no student.")
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{name} holds {twice[0]!r} twice: rows could not be told apart.")
    for objective in objectives:
        objective.check()
