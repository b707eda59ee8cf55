"""One linear layer: our kernels beside torch's own operations and the float products."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.bench.quantizer_parts.timing import interleaved, row
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.runtime import generator, seeded
from workbench.runtime import threads as torch_threads

WIDTH, QUICK_WIDTH = 2048, 512
TOKENS = (1, 16, 128)
GROUP = 128
CLOSE = 1.1  # of the bare operation's time
SLOW_REPEATS = 3  # of the naive path, which takes tens of milliseconds

# Ours, the peer, and the largest ratio that counts as reached, for one token and for more of them.
PAIRS = (
    ("int8_dynamic", "quantize_dynamic", CLOSE, CLOSE),
    ("int8_dynamic", "bfloat16", 1.0, None),
    ("int4", "_weight_int4pack_mm_for_cpu", CLOSE, CLOSE),
    ("int4", "bfloat16", 1.0, None),
    ("int4 of float32 inputs", "float32", None, None),
    ("int8_weight", "_weight_int8pack_mm", None, None),
    ("int8_weight", "bfloat16", None, None),
)
SLOW_PAIRS = (("blocked, 4 bits", "float32", None, None), ("naive, 4 bits", "float32", None, None))


def measure(quick: bool, threads: int) -> pd.DataFrame:
    """One row per pair and number of tokens, on a square layer without bias; all ways of a size taken in turn.

    Columns: ``section, what, peer, threads, tokens, wall_ms, cpu_ms`` (of one product of ours)``, ratio`` (our wall
    time in parts of the peer's)``, cpu_ratio, error, peer_error`` (of outputs, relative to the float weight's in
    norm)``, goal, reached``. ``quick`` takes a smaller layer, for which no goal stands.
    """
    width = QUICK_WIDTH if quick else WIDTH
    rows = []
    with torch_threads(threads), torch.inference_mode():
        layers = make_layers(width)
        for tokens in TOKENS:
            inputs = torch.randn(tokens, width, generator=generator(tokens))
            exact = F.linear(inputs, layers["float32"].weight)
            errors = {name: _error(way(), exact) for name, way in make_ways(layers, inputs).items()}
            for pairs, repeats in ((PAIRS, 9 if quick else 25), (SLOW_PAIRS, SLOW_REPEATS)):
                names = list(dict.fromkeys(name for pair in pairs for name in pair[:2]))
                ways = make_ways(layers, inputs)
                calls = 1 if pairs is SLOW_PAIRS else max(1, 16 // tokens)
                times = interleaved({name: ways[name] for name in names}, repeats=repeats, calls=calls)
                for ours, peer, alone, many in pairs:
                    goal = None if quick else (alone if tokens == 1 else many)
                    made = row("linear", ours, peer, threads, times[ours], times[peer], goal=goal, by="wall")
                    rows.append(made | {
                        "tokens": tokens, "cpu_ratio": times[ours][1] / times[peer][1],
                        "error": errors[ours], "peer_error": errors[peer],
                    })  # fmt: skip
    return pd.DataFrame(rows)


def make_layers(width: int) -> dict[str, nn.Module]:
    """The same square layer in float, as torch quantises it, and as each of our kernels holds it."""
    with seeded(0):
        linear = nn.Linear(width, width, bias=False)
    weight = linear.weight.detach()
    bytes_, halves = quantize_rtn(weight, QuantSpec(8, symmetric=True)), quantize_rtn(weight, QuantSpec(4, GROUP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls quantize_dynamic deprecated; it is the peer that was named
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear}, dtype=torch.qint8)
    layers = {
        name: QuantizedLinear.from_linear(linear, quantized, kernel=name)
        for name, quantized in (("int8_dynamic", bytes_), ("int8_weight", bytes_), ("int4", halves))
    }
    slow = {name: QuantizedLinear.from_linear(linear, halves, kernel=name) for name in ("blocked", "naive")}
    return {"float32": linear, "quantize_dynamic": dynamic, **layers, **slow}


def make_ways(layers: dict[str, nn.Module], inputs: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every way of multiplying ``inputs [tokens, in]`` by name; bfloat16 ways get bfloat16 inputs."""
    narrow = inputs.bfloat16()
    weight, half_weight = layers["float32"].weight, layers["float32"].weight.bfloat16()
    int4, int8 = layers["int4"].storage, layers["int8_weight"].storage
    scale = int8.scale.bfloat16()
    return {
        "float32": lambda: F.linear(inputs, weight),
        "bfloat16": lambda: F.linear(narrow, half_weight),
        "quantize_dynamic": lambda: layers["quantize_dynamic"](inputs),
        "int8_dynamic": lambda: layers["int8_dynamic"](inputs),
        "_weight_int4pack_mm_for_cpu": lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(
            narrow, int4.layout, int4.group, int4.tables
        ),
        "int4": lambda: layers["int4"](narrow),
        "int4 of float32 inputs": lambda: layers["int4"](inputs),
        "_weight_int8pack_mm": lambda: torch._weight_int8pack_mm(narrow, int8.signed, scale),
        "int8_weight": lambda: layers["int8_weight"](narrow),
        "blocked, 4 bits": lambda: layers["blocked"](inputs),
        "naive, 4 bits": lambda: layers["naive"](inputs),
    }


def _error(outputs: Tensor, exact: Tensor) -> float:
    return float((outputs.float() - exact).norm() / exact.norm())
