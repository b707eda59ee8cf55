"""A real teacher, pretrained elsewhere, and small students of its vocabulary on one text.

The teacher is asked once (:class:`TeacherCache`); then every student learns from the stored answers in a process
of its own, over the whole vocabulary without its logits (:func:`chunked_linear_distillation`) or from the top k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench import telemetry
from workbench.errors import UnknownName, check_choice, check_positive
from workbench.files import data_folder
from workbench.models.pretrained import SHORT_NAMES, is_pretrained_name, load_pretrained
from workbench.models.small_lm import ModelSize, count_parameters, llama
from workbench.runtime import available_cores, threads
from workbench.training.batches import fixed_windows, random_windows
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, read_weights
from workbench.training.ladder import default_lr
from workbench.training.objective import NO_TEACHER, Objective
from workbench.training.parallel import run_tasks
from workbench.training.pretrained_text import find_family, prepare_pretrained
from workbench.training.real_student import MEASURES, TOP_K, RealTask, scores, train_student
from workbench.training.samples import COLUMNS, write_samples
from workbench.training.teacher_cache import TeacherCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.training.text_task import PreparedText

STUDENT = ModelSize(128, 4, 8)  # over SmolLM2's vocabulary: 7.1 million parameters, 6.3 of them the embedding
EXACT = (NO_TEACHER, "forward_kl", "reverse_kl", "jeffreys", "symmetric_kl", "generalized_jsd", "skew_kl", "taid")
CODE = ("training/teacher_cache.py", "training/teacher_answers.py", "models/last_layer.py", "training/batches.py")
PROMPT_TOKENS = 24
NO_REAL_TEACHER = "none"
TOP_K_OBJECTIVE = Objective(TOP_K, TOP_K)  # forward KL to the stored top k and one bucket for the rest


@dataclass(frozen=True)
class RealDistillation:
    """``rows``: one student a row. ``curves``: loss (and t) over ``step``. ``samples``: what the models write."""

    rows: pd.DataFrame
    curves: pd.DataFrame
    samples: pd.DataFrame

    @classmethod
    def empty(cls) -> RealDistillation:
        """What is found where no real teacher is asked for."""
        return cls(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(columns=COLUMNS))

    def table(self) -> pd.DataFrame:
        """Mean ± standard error over seeds per objective, in the order of the loss, the teacher itself first."""
        if self.rows.empty:
            return pd.DataFrame(columns=["model", *MEASURES, "n"])
        told = self.rows.groupby("objective")[list(MEASURES)].agg(_mean_and_error)
        told["n"] = self.rows.groupby("objective").size()
        told = told.loc[self.rows.groupby("objective")["nats"].mean().sort_values().index]
        first = self.rows.iloc[0]
        teacher = {"nats": f"{first['teacher_nats']:.4g}", "kl_to_teacher": "0", "reverse_kl_to_teacher": "0"}
        whole = pd.concat([pd.DataFrame(teacher, index=[first["teacher"]]), told.astype(object)])
        return whole.astype(object).fillna("").rename_axis("model").reset_index()


def check_real_teacher(name: str) -> None:
    """Raise :class:`UnknownName` unless ``name`` is ``none`` or has the form of a model's name; nothing is fetched."""
    if name != NO_REAL_TEACHER and not is_pretrained_name(name):
        raise UnknownName(
            f"real_teacher={name!r} is neither none, nor one of {', '.join(SHORT_NAMES)}, nor a folder, "
            "nor owner/name on the Hugging Face hub."
        )


def distil_real_teacher(
    teacher: str,
    corpus: str,
    objectives: Sequence[Objective],
    seeds: Sequence[int],
    *,
    steps: int,
    student: ModelSize = STUDENT,
    context: int = 128,
    batch_size: int = 2,
    lr: float | None = None,
    warmup: float = 0.05,
    transfer_windows: int | None = None,
    evaluation_windows: int = 32,
    top_k: int = 64,
    precision: str = "bfloat16",
    held_out: int | None = None,
    record_every: int = 10,
    prompts: Sequence[str] | None = None,
    sample_tokens: int = 40,
    cores: int | None = None,
    stop: Callable[[], bool] | None = None,
    label: str = "students of a real teacher",
) -> RealDistillation:
    """Distil a pretrained teacher into fresh students of its vocabulary by every objective, once per seed.

    All objectives of a seed start from the same weights and read the same windows in the same order.

    Args:
        teacher: short name, folder or hub name of a causal language model, its last layer tied or not.
        corpus: as :func:`workbench.datasets.corpus.load_corpus`.
        objectives: without a teacher, ``topk_kl``, or any loss that ``chunked_linear_distillation`` knows.
        steps: optimiser steps of each student.
        lr: highest learning rate; None takes :func:`default_lr` of the student's width.
        transfer_windows: windows to learn from, on which the teacher is asked once; None takes as many as one
            student reads, so that none is read twice.
        top_k: tokens of each position that the teacher's answers keep for ``topk_kl``.
        precision: of the teacher's pass and of the students' matrix products: ``float32`` or ``bfloat16``.
        held_out: documents to judge on; None is four, or one in a hundred where that is more.
        prompts: what the teacher and the students of the first seed go on from; None takes the first words of
            two held-out windows.

    Returns:
        Rows with ``nats`` (held-out nats per byte), ``nats_per_token``, ``perplexity`` (per token),
        ``kl_to_teacher`` and ``reverse_kl_to_teacher`` (nats per token, exact), ``seconds`` (CPU) and the
        columns of :func:`distil_grid` that name teacher, student and seed.

    Raises:
        UnknownName: an unknown model, corpus or loss.
        ValueError: empty lists, a loss that cannot be had from hidden states, or a model without a linear last layer.
        AssetError: the model or the corpus cannot be had, or the disk is too small for the answers.
    """
    check_positive(steps=steps, batch_size=batch_size, evaluation_windows=evaluation_windows, record_every=record_every)
    if not objectives or not seeds:
        raise ValueError("objectives and seeds need at least one entry each.")
    for objective in objectives:
        check_choice("objective", objective.loss, (*EXACT, TOP_K))
        if objective.loss != TOP_K:
            objective.check()
    family = find_family([teacher], context=context)
    text = prepare_pretrained(family, corpus, context=context, held_out=held_out)
    transfer = steps * batch_size if transfer_windows is None else transfer_windows
    windows = _windows(text, context, transfer, evaluation_windows)
    model, tokenizer = load_pretrained(family.folders[teacher], device="cpu", dtype=precision)
    key = content_hash(text=text.key, shape=list(windows.shape), transfer=transfer, top_k=top_k, name=teacher,
                       precision=precision, code=code_hash(CODE))  # fmt: skip
    cache = TeacherCache(cache_folder("teachers", key))
    with threads(available_cores() if cores is None else cores):
        cache.fill(model, windows, top_k=min(top_k, family.vocab_size), hidden_states=True)
    with TemporaryDirectory(prefix="real-teacher-", dir=_scratch(), ignore_cleanup_errors=True) as scratch:
        np.save(Path(scratch) / "windows.npy", windows.numpy().astype(np.int32))
        tasks = [
            RealTask(
                objective=objective, seed=seed, size=student, cache=cache.folder, windows=Path(scratch) / "windows.npy",
                transfer=transfer, vocab=len(cache.head.weight), steps=steps, batch_size=batch_size,
                lr=default_lr(student) if lr is None else lr, warmup=warmup, precision=precision,
                bytes_per_token=text.bytes_per_token, record_every=record_every,
                keep=Path(scratch) / objective.name if seed == seeds[0] else None,
            )
            for seed in seeds for objective in objectives
        ]  # fmt: skip
        done = run_tasks(
            train_student, tasks, cores=cores, stop=stop, label=label, on_done=lambda _, found: _announce(found[0])
        )
        finished = [found for found in done if found is not None]
        known = _known(model, family.label(teacher), student, scores(None, windows, cache, tasks[0])["nats"])
        rows = pd.DataFrame([{**known, **row} for row, _ in finished])
        curves = [curve.assign(teacher=known["teacher"], student=student.name, init="random") for _, curve in finished]
        written = {known["teacher"]: model}
        for task in tasks[: len(objectives)]:
            if (task.keep / "config.json").is_file():
                written[f"student, {task.objective.name}"] = llama(read_weights(task.keep), student, context=context)
        if prompts is None:
            prompts = [tokenizer.decode(row[:PROMPT_TOKENS]) for row in windows[[transfer, -1]]]
        samples = write_samples(written, tokenizer, prompts, tokens=sample_tokens)
    return RealDistillation(rows, pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(), samples)


def _windows(text: PreparedText, context: int, transfer: int, evaluation: int) -> Tensor:
    """Windows to learn from, the same for every run of one size, and after them those to be judged on."""
    learned = next(random_windows(text.training, context=context, batch_size=transfer, seed=0))
    return torch.cat([learned, fixed_windows(text.held_out, context=context, count=evaluation)])


def _known(teacher: PreTrainedModel, name: str, student: ModelSize, nats: float) -> dict[str, Any]:
    """The columns that every student of the teacher has in common; labels alone are judged against it, too."""
    vocab, parameters = teacher.config.get_text_config().vocab_size, count_parameters(teacher)
    own = student.parameters(vocab)
    return {
        "teacher": name,
        "teacher_parameters": float(parameters),
        "teacher_parameters_without_embeddings": float(count_parameters(teacher, embeddings=False)),
        "teacher_nats": nats,
        "student": student.name,
        "student_parameters": own,
        "student_parameters_without_embeddings": student.parameters(vocab, embeddings=False),
        "ratio": parameters / own,
        "init": "random",
    }


def _mean_and_error(values: pd.Series) -> str:
    return f"{values.mean():.4g}" + (f" ± {values.sem():.2g}" if values.count() > 1 else "")


def _announce(row: dict[str, Any]) -> None:
    if telemetry.is_watched():
        telemetry.publish_row(row)


def _scratch() -> Path:
    folder = data_folder() / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
