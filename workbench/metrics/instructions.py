"""Does a model do as it is told: greedy answers, each judged by a rule that code can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from workbench.datasets.alignment import Instruction
from workbench.datasets.multiple_choice import Question
from workbench.errors import check_choice, check_positive
from workbench.metrics.choice_scores import score_choices
from workbench.metrics.continuations import evaluating
from workbench.metrics.instruction_rules import RULES, follows
from workbench.progress import progress


def follow_instructions(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Instruction],
    *,
    max_tokens: int = 48,
    batch_size: int = 8,
    label: str = "",
) -> pd.DataFrame:
    """Greedy answers of ``model`` to ``prompts``, and whether each follows its rule.

    The rules are those of :mod:`workbench.metrics.instruction_rules`. The prompt is put into the tokenizer's chat
    template where there is one, else it is read with a line break behind it. An answer ends where the model ends it,
    at the latest after ``max_tokens``, and is judged as it stands.

    Args:
        model: a causal language model of transformers that can ``generate``, quantised or not.
        tokenizer: its tokenizer.
        prompts: see :func:`workbench.datasets.alignment.instructions`.
        max_tokens: most tokens of an answer.
        batch_size: prompts that are answered together, filled up on the left.

    Returns:
        One row a prompt: ``prompt`` (its place), ``group``, ``rule``, ``argument``, ``answer``, ``followed`` (1 or
        0), ``finished`` (whether the model ended by itself), ``tokens`` (read and written).

    Raises:
        ValueError: no prompts.
        UnknownName: a rule that does not exist.
    """
    check_positive(max_tokens=max_tokens, batch_size=batch_size)
    if not prompts:
        raise ValueError("prompts is empty: there is nothing to answer.")
    for prompt in prompts:
        check_choice("rule", prompt.rule, RULES)
    encoded = tokenizer([_asked(tokenizer, prompt.prompt) for prompt in prompts], add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rows: dict[int, dict[str, Any]] = {}
    ends = _end_tokens(model, tokenizer)
    with evaluating(model) as device:
        for batch in progress(batches, label=label):
            answers = _generate(model, [encoded[index] for index in batch], ends, max_tokens, device)
            for index, ids in zip(batch, answers, strict=True):
                prompt, length = prompts[index], next((n for n, one in enumerate(ids) if one in ends), len(ids))
                answer = tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
                rows[index] = {
                    "prompt": index,
                    "group": prompt.group,
                    "rule": prompt.rule,
                    "argument": prompt.argument,
                    "answer": answer,
                    "followed": float(follows(answer, prompt.rule, prompt.argument)),
                    "finished": length < len(ids),
                    "tokens": len(encoded[index]) + length,
                }
    return pd.DataFrame([rows[index] for index in range(len(prompts))])


def heed_instructions(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Instruction], *, batch_size: int = 8, label: str = ""
) -> pd.DataFrame:
    """Whether asking for a form makes an answer of that form likelier, against one of like content without it.

    A finer measure than :func:`follow_instructions` for models that seldom do as they are told. Each pair of answers
    is scored twice, behind the prompt and behind the same request without its rule; what one answer is likelier by
    anyhow (by length, say) falls out of the difference. In a chat template both answers end with the end of the turn.

    Returns:
        One row a prompt: ``prompt`` (its place), ``group``, ``rule``, ``argument``, ``heeded`` (1 where the rule
        raised the odds of the answer that follows it, else 0; 0.5 where nothing changed), ``shift`` (by how much, in
        nats), ``tokens`` (fed to the model). By chance ``heeded`` is 0.5 and ``shift`` 0.

    Raises:
        ValueError: no prompts, or one without the plain request and its two answers.
    """
    if not prompts:
        raise ValueError("prompts is empty: there is nothing to score.")
    if missing := [prompt.prompt for prompt in prompts if not (prompt.plain and prompt.complying and prompt.violating)]:
        raise ValueError(f"the prompt {missing[0]!r} comes without a plain request and two answers to compare.")
    end = (tokenizer.eos_token or "") if _has_template(tokenizer) else ""
    questions = [
        Question(_asked(tokenizer, text), (prompt.complying + end, prompt.violating + end), 0, "instruction", "")
        for prompt in prompts
        for text in (prompt.prompt, prompt.plain)
    ]
    table = score_choices(model, tokenizer, questions, batch_size=batch_size, normalise="none", label=label)
    odds, tokens = table["margin"].to_numpy().reshape(-1, 2), table["tokens"].to_numpy().reshape(-1, 2)
    shift = odds[:, 0] - odds[:, 1]
    return pd.DataFrame(
        {
            "prompt": range(len(prompts)),
            "group": [prompt.group for prompt in prompts],
            "rule": [prompt.rule for prompt in prompts],
            "argument": [prompt.argument for prompt in prompts],
            "heeded": (1 + np.sign(shift)) / 2,
            "shift": shift,
            "tokens": tokens.sum(-1),
        }
    )


def _has_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def _asked(tokenizer: Any, prompt: str) -> str:
    """What the model reads before it answers."""
    if not _has_template(tokenizer):
        return f"{prompt}\n"
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _end_tokens(model: nn.Module, tokenizer: Any) -> set[int]:
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _generate(
    model: nn.Module, prompts: Sequence[list[int]], ends: set[int], max_tokens: int, device: torch.device
) -> list[list[int]]:
    longest = max(map(len, prompts))
    # On the left: what is written must follow each prompt directly.
    ids = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
        use_cache=True,
    )
    return written[:, longest:].tolist()
