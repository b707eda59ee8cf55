"""One decoding step of a whole model: forward for one token with a warm cache, float and quantised."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.bench.quantizer_parts.timing import interleaved, row
from workbench.models.pretrained import load_pretrained
from workbench.quantizers.model import model_bytes, quantize_model, share_tensors
from workbench.quantizers.model_walk import replace_module
from workbench.quantizers.recipes import Recipe
from workbench.runtime import threads as torch_threads

MODEL = "smollm2-135m"
GROUP = 64  # 576 inputs have no groups of 128; 32 would be the grid the packaged weights lie on
CONTEXT = 64  # tokens in the cache
GOAL_THREADS = 2
SPEED = {"float32": 1 / 1.6, "bfloat16": 1 / 1.2}  # largest share of the float model's time
MEMORY = {8: 0.28, 4: 0.20}  # of the float32 model's bytes, embedding and output layer in 8 bits
GOALS = ("int8_weight", "int8_dynamic", "int4")
NAIVE, FLOOR = "naive, 4 bits", "no products"


def measure(quick: bool, threads: int) -> pd.DataFrame:
    """One row per quantised model and float peer, all steps taken in turn, and rows of bytes.

    ``no products`` is what the step costs with linear layers that return zeros: norms, attention, cache and Python,
    which no kernel of ours touches. ``quick`` leaves out the naive path and takes fewer repeats.

    Columns: ``section, what, peer, threads, wall_ms, cpu_ms`` (of one step of ours)``, ratio`` (our wall time, or
    bytes, in parts of the peer's)``, cpu_ratio, mib`` (held)``, goal, reached``. Goals of speed are for two threads.
    """
    with torch_threads(1):
        models = make_models(naive=not quick)
    with torch_threads(threads), torch.inference_mode():
        sizes = {name: model_bytes(model) for name, model in models.items() if name != FLOOR}
        steps = {name: decode_step(model) for name, model in models.items()}
        slow = {name: steps.pop(name) for name in (NAIVE,) if name in steps}
        times = interleaved(steps, repeats=5 if quick else 31)
        times |= interleaved(slow, repeats=2)
    rows = []
    for name in times:
        for peer in SPEED if name not in SPEED else ():
            goal = SPEED[peer] if name in GOALS and threads == GOAL_THREADS and not quick else None
            made = row("decode", name, peer, threads, times[name], times[peer], goal=goal, by="wall")
            rows.append(made | {"cpu_ratio": times[name][1] / times[peer][1], "mib": _mib(sizes.get(name))})
    for name, bits in (("int8_weight", 8), ("int8_dynamic", 8), ("int4", 4)):
        part = sizes[name] / sizes["float32"]
        rows.append({
            "section": "decode", "what": f"{name}: bytes of weights", "peer": "float32", "threads": threads,
            "ratio": part, "mib": _mib(sizes[name]), "goal": f"<= {MEMORY[bits]:g}", "reached": part <= MEMORY[bits],
        })  # fmt: skip
    return pd.DataFrame(rows)


def make_models(*, naive: bool) -> dict[str, nn.Module]:
    """SmolLM2 in float32 and bfloat16, quantised for each kernel, and with products that cost nothing.

    Quantised ones share every float tensor that is left with the float32 model.
    """
    model, _ = load_pretrained(MODEL)
    models = {"float32": model, "bfloat16": load_pretrained(MODEL, dtype="bfloat16")[0]}

    def quantized(source: nn.Module, bits: int, kernel: str, group_size: int | None) -> nn.Module:
        recipe = Recipe.of("rtn", bits, group_size=group_size, embedding_bits=8, kernel=kernel)
        return quantize_model(source, recipe, in_place=False, label=None)

    models["int8_weight"] = quantized(model, 8, "int8_weight", None)
    models["int8_dynamic"] = quantized(model, 8, "int8_dynamic", None)
    models["int4"] = quantized(model, 4, "int4", GROUP)
    models["int4 in bfloat16"] = quantized(models["bfloat16"], 4, "int4", GROUP)
    if naive:
        models[NAIVE] = quantized(model, 4, "naive", GROUP)
    models[FLOOR] = _without_products(share_tensors(model))
    return models


def decode_step(model: nn.Module) -> Callable[[], Tensor]:
    """A step with :data:`CONTEXT` tokens in the cache, which is as long after it as before."""
    ids = context_ids(model.config.vocab_size)
    cache = model(ids, use_cache=True).past_key_values
    last = ids[:, -1:]

    def step() -> Tensor:
        logits = model(last, past_key_values=cache, use_cache=True).logits
        cache.crop(-1)
        return logits

    return step


def context_ids(vocabulary: int) -> Tensor:
    """The tokens in the cache, ``[1, CONTEXT]``."""
    return torch.arange(1000, 1000 + CONTEXT)[None] % vocabulary


class _Zeros(nn.Module):
    """Returns zeros that were made once."""

    def __init__(self, out: int):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(1, CONTEXT, out), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.zeros[:, : inputs.shape[1]]


def _without_products(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            replace_module(model, name, _Zeros(module.out_features))
    return model


def _mib(size: int | None) -> float | None:
    return None if size is None else size / 2**20
