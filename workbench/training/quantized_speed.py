"""What quantising does to memory and speed: one model on several paths, packed ones and a naive one."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from workbench.errors import check_positive
from workbench.progress import progress
from workbench.runtime import dtype as dtype_of
from workbench.training.quantized_grid import SeededModel
from workbench.training.quantized_variants import EMBEDDING_BITS

FLOAT32, BFLOAT16, INT8, INT4, NAIVE = "float32", "bfloat16", "int8, packed", "int4, packed", "int4, naive"


class Precision(NamedTuple):
    """How weights are kept and multiplied; no method leaves them as floats."""

    dtype: str = "float32"
    method: str | None = None
    bits: int = 32
    kernel: str = "auto"


# "auto" is what a user gets; "naive" unpacks a whole weight before every product, as quantizers without kernels do.
PATHS = {
    FLOAT32: Precision(),
    BFLOAT16: Precision("bfloat16"),
    INT8: Precision(method="rtn", bits=8),
    INT4: Precision(method="rtn", bits=4),
    NAIVE: Precision(method="rtn", bits=4, kernel="naive"),
}


def pretrained_speed(name: str, *, new_tokens: int, rounds: int = 3, peak: bool = False) -> pd.DataFrame:
    """:func:`speed_and_memory` of a pretrained model; ``peak`` adds :func:`peak_memory_of_paths`."""
    from workbench.models.pretrained import load_pretrained

    table = speed_and_memory(load_pretrained(name)[0], new_tokens=new_tokens, rounds=rounds)
    return (table.merge(peak_memory_of_paths(name), on="path") if peak else table).assign(model=name)


def trained_speed(model: SeededModel, *, rounds: int = 3) -> pd.DataFrame:
    """:func:`speed_and_memory` of a model trained here; so small a one tells more of overheads than of memory."""
    return speed_and_memory(model.trained.load(), rounds=rounds).assign(model=model.trained.name)


def speed_and_memory(
    model: nn.Module,
    *,
    prompt_tokens: int = 16,
    new_tokens: int = 4,
    rounds: int = 3,
    threads: int = 1,
    paths: dict[str, Precision] | None = None,
    label: str = "speed",
) -> pd.DataFrame:
    """Tokens per second and bytes of a model on each path.

    Args:
        model: in float32; it is left as it is.
        rounds: how often every path has its turn, the paths interleaved; ratios are taken within a round.

    Returns:
        One row per path, phase (prefill, decode) and round: ``path, phase, round, bytes, tokens_per_second, wall_ms,
        cpu_ms, threads``.
    """
    from workbench.metrics.generation_speed import generation_speed
    from workbench.quantizers.model import model_bytes

    check_positive(prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds, threads=threads)
    models = on_paths(model, paths or PATHS)
    sizes = {name: model_bytes(model) for name, model in models.items()}
    tables = [
        generation_speed(
            models, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=1, threads=threads, seed=turn
        ).assign(round=turn)
        for turn in progress(range(rounds), label=label)
    ]
    table = pd.concat(tables, ignore_index=True).rename(columns={"model": "path"})
    table["bytes"] = table["path"].map(sizes)
    return table[["path", "phase", "round", "bytes", "tokens_per_second", "wall_ms", "cpu_ms", "threads"]]


def on_paths(plain: nn.Module, paths: dict[str, Precision]) -> dict[str, nn.Module]:
    """The model on every path; quantised ones share with the float one what is not quantised."""
    from workbench.quantizers.model import quantize_model
    from workbench.quantizers.recipes import Recipe

    plain = plain.eval()
    models: dict[str, Any] = {}
    for name, way in paths.items():
        if way.method is None:
            models[name] = plain if way.dtype == "float32" else copy.deepcopy(plain).to(dtype_of(way.dtype))
            continue
        recipe = Recipe.of(way.method, way.bits, embedding_bits=EMBEDDING_BITS, kernel=way.kernel)
        models[name] = quantize_model(plain, recipe, in_place=False)
    return models


def peak_memory_of_paths(model: str, *, new_tokens: int = 4, paths: dict[str, Precision] | None = None) -> pd.DataFrame:
    """Resident memory of a fresh process that loads a pretrained model, as a path keeps it, and writes a few tokens.

    Quantised ones are saved first and loaded packed: their float weights are never there.

    Returns:
        One row per path: ``path``, ``peak_mib`` and ``held_mib``, beyond what the process held after its imports.
    """
    import tempfile
    from pathlib import Path

    from workbench.metrics.peak_memory import peak_memory
    from workbench.models.pretrained import load_pretrained
    from workbench.quantizers.model import quantize_model
    from workbench.quantizers.recipes import Recipe
    from workbench.quantizers.saving import save_quantized

    rows = []
    for name, way in (paths or PATHS).items():
        with tempfile.TemporaryDirectory(prefix="quantised-") as folder:
            source = model
            if way.method is not None:
                source = str(Path(folder) / "model")
                recipe = Recipe.of(way.method, way.bits, embedding_bits=EMBEDDING_BITS, kernel=way.kernel)
                save_quantized(quantize_model(load_pretrained(model)[0], recipe), source)
            found = peak_memory(_load_and_write, source, way.dtype, way.method is not None, new_tokens, before=_imports)
        rows.append({"path": name, "peak_mib": found.peak, "held_mib": found.held})
    return pd.DataFrame(rows)


def _imports() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

    from workbench.quantizers.saving import load_quantized  # noqa: F401

    torch.set_num_threads(1)


@torch.no_grad()
def _load_and_write(source: str, dtype: str, quantised: bool, new_tokens: int) -> nn.Module:
    if quantised:
        from workbench.quantizers.saving import load_quantized

        model = load_quantized(source)
    else:
        from workbench.models.pretrained import load_pretrained

        model = load_pretrained(source, dtype=dtype)[0]
    start = torch.zeros(1, 4, dtype=torch.long)
    model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=new_tokens, do_sample=False)
    return model
