"""Text that the student writes itself, as data: the mixture of GKD (Agarwal et al. 2024, on-policy distillation)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.errors import check_between, check_positive
from workbench.training.distil import frozen

IGNORED = -100


class Generate(Protocol):
    """Continues prompts; :func:`generate_with_transformers` is one, a serving engine may be another."""

    def __call__(
        self,
        model: nn.Module,
        prompts: Tensor,
        prompt_mask: Tensor,
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Tokens ``[batch, new]`` and which of them were written, bool ``[batch, new]``: True up to the end of text.

        ``prompts`` is ``[batch, time]``, ``prompt_mask`` bool of that shape, False on the left where a prompt is
        shorter than the longest. The same seed gives the same tokens.
        """


class OnPolicyBatches:
    """Batches for :func:`distil` of which a share is continued by the student as it is at that moment.

    For each batch one draw decides: with probability ``on_policy_share`` the student continues its prompts; of
    the others, with probability ``seq_kd_share`` the teacher does (sequence-level distillation); what is left is
    the data as it came. What is yielded has ``input_ids``, ``labels`` (-100 on prompt and padding) and
    ``attention_mask``, padded on the right. ``counts`` tells how many batches came from whom, ``source`` whose
    the last one was.

    Batches are made when they are asked for, so that a student that learns writes ever better ones. The draws
    go on through repeated iteration; a new object with the same seed starts over.

    Args:
        student: a causal language model that ``generate`` can use.
        batches: mappings with ``input_ids`` and ``labels`` (-100 on the prompt), or windows ``[batch, time]``.
        on_policy_share: 0 (data alone) to 1 (purely on-policy); the paper's mixture is 0.5.
        teacher, seq_kd_share: who writes, and which share of the batches that the student does not.
        prompt_tokens: how many of the first tokens are the prompt, where labels do not tell.
        max_new_tokens: of a continuation; None is the longest continuation in that batch of data.
        sampling_temperature: of the writing alone; the loss has its own.
        pad_token: fills rows on the right, where nothing counts.
        generate: see :class:`Generate`.
        seed: of draws and samples.

    Raises:
        ValueError: a number outside its range, a ``seq_kd_share`` without a teacher; while iterating, a batch
            that does not tell prompts from continuations.
    """

    def __init__(
        self,
        student: nn.Module,
        batches: Iterable[Any],
        *,
        on_policy_share: float = 0.5,
        teacher: nn.Module | None = None,
        seq_kd_share: float = 0.0,
        prompt_tokens: int | None = None,
        max_new_tokens: int | None = None,
        sampling_temperature: float = 0.9,
        pad_token: int = 0,
        generate: Generate | None = None,
        seed: int = 0,
    ) -> None:
        check_between(0, 1, on_policy_share=on_policy_share, seq_kd_share=seq_kd_share)
        if seq_kd_share and teacher is None:
            raise ValueError(f"seq_kd_share={seq_kd_share} needs teacher=, who writes these batches.")
        for name, number in {"prompt_tokens": prompt_tokens, "max_new_tokens": max_new_tokens}.items():
            if number is not None:
                check_positive(**{name: number})
        check_positive(sampling_temperature=sampling_temperature)
        self.student, self.teacher, self.batches = student, teacher, batches
        self.on_policy_share, self.seq_kd_share = on_policy_share, seq_kd_share
        self.prompt_tokens, self.max_new_tokens = prompt_tokens, max_new_tokens
        self.sampling_temperature, self.pad_token = sampling_temperature, pad_token
        self.generate = generate or generate_with_transformers
        self.counts: Counter[str] = Counter()
        self.source: str | None = None
        self._random = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.batches:
            data = self._as_mapping(batch)
            # Always all three, so that one share does not move the draws of the others.
            student_draw, teacher_draw = torch.rand(2, generator=self._random).tolist()
            sample_seed = int(torch.randint(2**31, (), generator=self._random))
            self.source = "data"
            if student_draw < self.on_policy_share:
                self.source = "student"
            elif teacher_draw < self.seq_kd_share:
                self.source = "teacher"
            if self.source != "data":
                writer = self.student if self.source == "student" else self.teacher
                data = self._continued(data, writer, sample_seed)
            self.counts[self.source] += 1
            yield data

    def _as_mapping(self, batch: Any) -> dict[str, Tensor]:
        data = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
        tokens = data["input_ids"]
        if "labels" not in data:
            data["labels"] = tokens.clone()
        if self.prompt_tokens is not None:
            if self.prompt_tokens >= tokens.shape[1]:
                raise ValueError(
                    f"prompt_tokens={self.prompt_tokens} leaves nothing of {tokens.shape[1]} tokens to continue."
                )
            data["labels"] = data["labels"].clone()
            data["labels"][:, : self.prompt_tokens] = IGNORED
        if "attention_mask" not in data:
            data["attention_mask"] = torch.ones_like(tokens)
        return data

    def _continued(self, data: dict[str, Tensor], writer: nn.Module, seed: int) -> dict[str, Tensor]:
        prompts = _prompts(data)
        if not prompts:
            return data
        longest = int((data["labels"] != IGNORED).sum(-1).max())
        width = max(map(len, prompts))
        padded = torch.full((len(prompts), width), self.pad_token, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):  # on the left, so that all continue at the same place
            padded[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = True
        device = next(writer.parameters()).device
        with frozen(writer), torch.no_grad():
            tokens, written = self.generate(
                writer, padded.to(device), mask.to(device),
                max_new_tokens=self.max_new_tokens or longest, temperature=self.sampling_temperature, seed=seed,
            )  # fmt: skip
        return _packed(prompts, tokens.cpu(), written.cpu(), self.pad_token, data["input_ids"].device)


def generate_with_transformers(
    model: nn.Module, prompts: Tensor, prompt_mask: Tensor, *, max_new_tokens: int, temperature: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Sample from the model's whole distribution with ``model.generate``, whatever its own settings would cut off.

    Arguments and result as in :class:`Generate`; the caller's random stream is left where it was.

    Raises:
        ValueError: prompt and continuation are longer than the model can see.
    """
    from transformers import GenerationConfig

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and prompts.shape[1] + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {prompts.shape[1]} and max_new_tokens={max_new_tokens} are more than the model's {limit} "
            "positions: shorten one of them."
        )
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([] if ends is None else ends, dtype=torch.long, device=prompts.device).reshape(-1)
    settings = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, repetition_penalty=1.0,
        num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=ends.tolist() or None, pad_token_id=0, use_cache=True,
    )  # fmt: skip
    with torch.random.fork_rng([prompts.device] if prompts.device.type == "cuda" else []):
        torch.manual_seed(seed)
        output = model.generate(input_ids=prompts, attention_mask=prompt_mask.long(), generation_config=settings)
    tokens = output[:, prompts.shape[1] :]
    ended = torch.isin(tokens, ends).long()
    return tokens, ended.cumsum(-1) - ended == 0  # the token that ends a text is part of it


def _prompts(data: dict[str, Tensor]) -> list[Tensor]:
    """What stands before the first label that counts, of every row that has one (a cut prompt has none)."""
    found = []
    counts = data["labels"] != IGNORED
    for tokens, here, real in zip(data["input_ids"].cpu(), counts.cpu(), data["attention_mask"].cpu(), strict=True):
        if not here.any():
            continue
        start = int(here.int().argmax())
        prompt = tokens[:start][real[:start] != 0]
        if not len(prompt):
            raise ValueError(
                "a row of the batch has no prompt, since its first label counts: put labels of -100 on the prompts, or "
                "give prompt_tokens=."
            )
        found.append(prompt)
    return found


def _packed(
    prompts: list[Tensor], tokens: Tensor, written: Tensor, pad_token: int, device: torch.device
) -> dict[str, Tensor]:
    """Prompts and what was written behind them, padded on the right."""
    rows = [torch.cat([prompt, new[keep]]) for prompt, new, keep in zip(prompts, tokens, written, strict=True)]
    shape = len(rows), max(map(len, rows))
    input_ids = torch.full(shape, pad_token, dtype=torch.long)
    labels, mask = torch.full(shape, IGNORED, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        input_ids[index, : len(row)], mask[index, : len(row)] = row, 1
        labels[index, len(prompt) : len(row)] = row[len(prompt) :]
    return {"input_ids": input_ids.to(device), "labels": labels.to(device), "attention_mask": mask.to(device)}
