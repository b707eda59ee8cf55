"""Tokens per second of reading a prompt and of writing; for memory see :mod:`workbench.metrics.peak_memory`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench import runtime
from workbench.errors import check_positive
from workbench.metrics.continuations import evaluating, most_tokens
from workbench.progress import progress

PHASES = ("prefill", "decode")


def generation_speed(
    models: Mapping[str, nn.Module],
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    repeats: int = 5,
    threads: int = 1,
    batch_size: int = 1,
    seed: int = 0,
    label: str = "",
) -> pd.DataFrame:
    """How fast each model reads a prompt (``prefill``) and then writes greedily, token by token (``decode``).

    In each repeat every model has its turn, so that a machine that slows down slows them all; a round that is not
    counted comes first. What is written is fed back whatever it is: no end of text cuts a measurement short. Decoding
    is the forward passes with a warm cache alone, without a sampler's work.

    Args:
        models: name -> causal language model of transformers, quantised or not.
        prompt_tokens: random tokens, drawn by ``seed``, that are read at once.
        new_tokens: forward passes of one token.
        repeats: measurements of each; medians are told.
        threads: of torch, inside; set back afterwards.
        batch_size: texts at a time.

    Returns:
        Two rows a model: ``model``, ``phase``, ``threads``, ``batch_size``, ``tokens`` (of all texts), ``repeats``,
        ``wall_ms`` and ``cpu_ms`` (medians of a measurement), ``wall_ms_low`` and ``wall_ms_high`` (quartiles),
        ``tokens_per_second`` (wall), ``tokens_per_cpu_second``.

    Raises:
        ValueError: no models, or more tokens than one of them was made for.
    """
    check_positive(
        prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats, threads=threads, batch_size=batch_size
    )
    if not models:
        raise ValueError("models is empty: give at least one model by name.")
    for name, model in models.items():
        most = most_tokens(model)
        if most is not None and prompt_tokens + new_tokens > most:
            raise ValueError(f"{prompt_tokens} + {new_tokens} tokens are more than the {most} of the model {name!r}.")
    smallest = min(model.config.vocab_size for model in models.values())
    prompt = torch.randint(smallest, (batch_size, prompt_tokens), generator=runtime.generator(seed))
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {
        (name, phase): [] for name in models for phase in PHASES
    }
    with runtime.threads(threads):
        for model in models.values():
            _timed(model, prompt, min(new_tokens, 2))
        turns = [(name, model) for _ in range(repeats) for name, model in models.items()]
        for name, model in progress(turns, label=label):
            for phase, spent in zip(PHASES, _timed(model, prompt, new_tokens), strict=True):
                seconds[name, phase].append(spent)
    tokens = {"prefill": batch_size * prompt_tokens, "decode": batch_size * new_tokens}
    return pd.DataFrame(
        [
            {
                "model": name,
                "phase": phase,
                "threads": threads,
                "batch_size": batch_size,
                "tokens": tokens[phase],
                "repeats": repeats,
                **_medians(np.array(spent), tokens[phase]),
            }
            for (name, phase), spent in seconds.items()
        ]
    )


def _timed(model: nn.Module, prompt: Tensor, new_tokens: int) -> list[tuple[float, float]]:
    """Wall and CPU seconds of reading ``prompt`` ``[batch, time]`` and of writing ``new_tokens`` after it."""
    from transformers import DynamicCache

    with evaluating(model) as device:
        cache, token = DynamicCache(config=model.config), prompt.to(device)

        def step() -> Tensor:
            logits = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits[:, -1:].argmax(-1)

        clock = _Clock(device)
        token = step()
        reading = clock.lap()
        for _ in range(new_tokens):
            token = step()
        return [reading, clock.lap()]


class _Clock:
    """Wall and CPU seconds since the last lap; waits for what a GPU still has to do."""

    def __init__(self, device: torch.device):
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        now, before = self._now(), self._last
        self._last = now
        return now[0] - before[0], now[1] - before[1]

    def _now(self) -> tuple[float, float]:
        self._wait()
        return time.perf_counter(), time.process_time()


def _medians(spent: np.ndarray, tokens: int) -> dict[str, float]:
    """``spent`` is ``[repeats, 2]``: wall and CPU seconds."""
    wall, cpu = np.median(spent, axis=0)
    low, high = np.quantile(spent[:, 0], [0.25, 0.75])
    return {
        "wall_ms": 1000 * wall,
        "cpu_ms": 1000 * cpu,
        "wall_ms_low": 1000 * low,
        "wall_ms_high": 1000 * high,
        "tokens_per_second": tokens / wall,
        "tokens_per_cpu_second": tokens / cpu,
    }
