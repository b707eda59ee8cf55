"""A teacher of the bench: trained here or loaded, measured on the text that its students are judged on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import AssetError
from workbench.metrics.language import held_out_scores
from workbench.models.small_lm import count_parameters, is_size_name, named_size
from workbench.training.batches import fixed_windows
from workbench.training.bench_run import StudentRun
from workbench.training.checkpoints import cache_folder, code_hash, content_hash, made_once
from workbench.training.ladder import TrainedModel, train_ladder
from workbench.training.objective import NO_TEACHER
from workbench.training.pretrained_text import find_family, prepare_pretrained
from workbench.training.text_task import PreparedText

HELD_OUT_TOKENS = 8192  # that models are judged on, with a vocabulary of the corpus
HELD_OUT_TOKENS_PRETRAINED = 2048  # with a pretrained model's: each token costs a hundred times more
LARGEST_LOGITS = 2**26  # bytes of one model's float32 logits at a time
MEASURE_CODE = ("training/bench_teacher.py", "metrics/language.py", "models/next_token.py", "training/batches.py")


@dataclass(frozen=True)
class BenchText:
    """What students of one vocabulary learn from and are judged on."""

    text: PreparedText
    windows: Tensor  # [windows, context + 1], held out
    vocab_size: int

    @property
    def at_once(self) -> int:
        """Windows whose logits are small enough to be computed at once."""
        return max(1, LARGEST_LOGITS // (4 * self.text.context * self.vocab_size))


@dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher without loading it."""

    name: str
    parameters: int
    parameters_without_embeddings: int
    nats: float  # per byte of held-out text


def bench_text(run: StudentRun) -> BenchText:
    """The text of ``run`` in its vocabulary; prepared once and kept.

    Raises:
        ValueError, UnknownName, AssetError: a corpus or tokenizer that cannot be had or used.
    """
    if run.pretrained:
        family = find_family([run.vocabulary], context=run.context)
        text = prepare_pretrained(family, run.corpus, context=run.context)
        tokens, vocab_size = HELD_OUT_TOKENS_PRETRAINED, family.vocab_size
    else:
        text = run.task.prepare()
        tokens, vocab_size = HELD_OUT_TOKENS, text.vocab_size
    windows = fixed_windows(text.held_out, context=run.context, count=max(1, tokens // run.context))
    return BenchText(text, windows, vocab_size)


def bench_device(run: StudentRun) -> torch.device:
    """A CUDA GPU for the vocabularies of pretrained models, where there is one; small models are faster without."""
    return torch.device("cuda" if run.pretrained and torch.cuda.is_available() else "cpu")


def trained_teacher(run: StudentRun) -> TrainedModel:
    """The teacher of ``run`` that is trained here, or found trained, with one core."""
    return train_ladder([named_size(run.teacher)], run.task, steps=run.teacher_steps, cores=1)[0]


def load_teacher(run: StudentRun) -> nn.Module | None:
    """The teacher of ``run``, trained first where need be; None where the loss asks none.

    Raises:
        Stopped: whoever watches asked for the end while it was trained.
        ValueError, AssetError: a pretrained model that cannot be had or predicts no next token.
    """
    if run.teacher == NO_TEACHER:
        return None
    if is_size_name(run.teacher):
        return trained_teacher(run).lean().requires_grad_(False)
    from workbench.models.pretrained import load_pretrained

    model, _ = load_pretrained(run.teacher, device=bench_device(run).type)
    if model.get_output_embeddings() is None:
        raise ValueError(f"{run.teacher!r} predicts no next token: take a causal language model.")
    return model.requires_grad_(False)


def measure_teacher(run: StudentRun, teacher: nn.Module, text: BenchText) -> TeacherFacts:
    """Size and held-out loss of a teacher; measured once and kept.

    Raises:
        AssetError: the cache cannot be written.
    """
    key = content_hash(
        teacher=run.teacher, files=run.files(), steps=run.teacher_steps, text=text.text.key, context=run.context,
        windows=len(text.windows), code=code_hash(MEASURE_CODE),
    )  # fmt: skip

    def make(folder: Any) -> None:
        bytes_per_token = text.text.bytes_per_token
        found = held_out_scores(teacher, text.windows, bytes_per_token=bytes_per_token, batch_size=text.at_once)
        parameters, inner = _sizes(run, teacher, text.vocab_size)
        facts = TeacherFacts(run.teacher, parameters, inner, found["nats"])
        (folder / "facts.json").write_text(json.dumps(asdict(facts)), encoding="utf-8")

    folder = made_once(cache_folder("measured", key), make)
    try:
        return TeacherFacts(**json.loads((folder / "facts.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AssetError(f"{folder} is damaged: remove it and run again.") from error


def _sizes(run: StudentRun, teacher: nn.Module, vocab_size: int) -> tuple[int, int]:
    if is_size_name(run.teacher):
        size = named_size(run.teacher)
        return size.parameters(vocab_size), size.parameters(vocab_size, embeddings=False)
    return count_parameters(teacher), count_parameters(teacher, embeddings=False)
