"""What language models write: greedy and sampled continuations of a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from workbench.errors import check_positive
from workbench.runtime import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GREEDY, SAMPLED = "greedy", "sampled"
COLUMNS = ("model", "way", "prompt", "text")


@torch.no_grad()
def write_samples(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    tokens: int = 40,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Every model continues every prompt, once with the likeliest token and once drawn at ``temperature``.

    Returns:
        The columns ``model``, ``way`` (greedy, sampled), ``prompt`` and ``text``, the continuation.

    Raises:
        ValueError: no prompt, or one without any token.
    """
    check_positive(tokens=tokens, temperature=temperature, top_k=top_k)
    rows = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        if not inputs.numel():
            raise ValueError(f"the prompt {prompt!r} has no token: give a few words.")
        for name, model in models.items():
            for way in (GREEDY, SAMPLED):
                drawn = {"temperature": temperature, "top_k": top_k} if way == SAMPLED else {}
                with seeded(seed):
                    found = model.generate(
                        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=tokens, use_cache=True,
                        do_sample=way == SAMPLED, pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
                        **drawn,
                    )  # fmt: skip
                text = tokenizer.decode(found[0, inputs.shape[1] :], skip_special_tokens=True)
                rows.append({"model": name, "way": way, "prompt": prompt, "text": text})
    return pd.DataFrame(rows, columns=COLUMNS)
