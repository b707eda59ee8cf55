"""Time of GPTQ and SpQR beside the column loops of their authors' code, at equal results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from workbench.bench.quantizer_parts.gptq_reference import reference_gptq
from workbench.bench.quantizer_parts.spqr_reference import reference_spqr
from workbench.bench.quantizer_parts.timing import interleaved, row
from workbench.quantizers.gptq import quantize_gptq, quantize_gptq_together
from workbench.quantizers.hessian import HessianAccumulator
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.spqr import quantize_spqr
from workbench.runtime import generator
from workbench.runtime import threads as torch_threads

BLOCK = (  # a block of SmolLM2-135M: outputs of the matrices that share their inputs, and how many inputs
    ((576, 192, 192), 576),  # q, k, v
    ((576,), 576),  # o
    ((1536, 1536), 576),  # gate, up
    ((576,), 1536),  # down
)
QUICK = 3  # times narrower
GOAL_LAYER, GOAL_BLOCK = 1 / 2, 1 / 3
BITS, GROUP, SPQR_GROUP = 4, 64, 16
TOKENS = 4096


def measure(quick: bool = False, threads: int = 1) -> pd.DataFrame:
    """Medians of interleaved repeats on layers of SmolLM2's shapes, 4 bits in groups of 64 (SpQR: 3 bits, 16).

    Weights are heavy-tailed and inputs correlated, both drawn; times do not depend on them. ``ratio`` is our time in
    parts of the peer's, CPU time for one thread and wall time for more, where threads that wait burn CPU time.
    ``quick`` measures layers a third as wide, for which nothing was promised.

    Columns: those of :mod:`~workbench.bench.quantizer_parts.timing`, ``codes_equal`` (share) and ``error_ratio`` (our
    squared output error in parts of the peer's).
    """
    repeats, part = (2, QUICK) if quick else (7, 1)
    by = "cpu" if threads == 1 else "wall"
    layer_goal, block_goal = (None, None) if quick else (GOAL_LAYER, GOAL_BLOCK)
    sizes = [([rows // part for rows in outputs], inputs // part) for outputs, inputs in BLOCK]
    with torch_threads(threads):
        matrices = [_problem(outputs, inputs, seed) for seed, (outputs, inputs) in enumerate(sizes)]
        _, (output, attention), (gate_up, hidden), (down, inner) = matrices
        rows = [
            _layer(down[0], inner, repeats, threads, by, layer_goal),
            _layer(gate_up[0], hidden, repeats, threads, by, layer_goal),
            _block(matrices, repeats, threads, by, block_goal),
            _spqr(output[0], attention, repeats, threads, by),
            _hessian(TOKENS, sizes[-1][1], repeats, threads, by),
        ]
    return pd.DataFrame(rows)


def _layer(
    weight: Tensor, hessian: Tensor, repeats: int, threads: int, by: str, goal: float | None
) -> dict[str, object]:
    spec = QuantSpec(BITS, GROUP)
    what = f"gptq {weight.shape[0]}x{weight.shape[1]}"
    times = interleaved(
        {
            "ours": lambda: quantize_gptq(weight, hessian, spec),
            "reference": lambda: reference_gptq(weight, hessian, bits=BITS, group_size=GROUP),
        },
        repeats=repeats,
    )
    codes, values = reference_gptq(weight, hessian, bits=BITS, group_size=GROUP)
    found = quantize_gptq(weight, hessian, spec)
    return row(
        "gptq", what, "column loop of the authors' code", threads, times["ours"], times["reference"],
        goal=goal, by=by,
    ) | _agreement(weight, hessian, (found.codes, found.dequantize()), (codes, values))  # fmt: skip


def _block(
    matrices: Sequence[tuple[Sequence[Tensor], Tensor]], repeats: int, threads: int, by: str, goal: float | None
) -> dict[str, object]:
    spec = QuantSpec(BITS, GROUP)

    def ours() -> list:
        return [one for weights, hessian in matrices for one in quantize_gptq_together(weights, hessian, spec)]

    def reference() -> list:
        return [
            reference_gptq(weight, hessian, bits=BITS, group_size=GROUP)
            for weights, hessian in matrices
            for weight in weights
        ]

    times = interleaved({"ours": ours, "reference": reference}, repeats=repeats)
    pairs = zip(ours(), reference(), strict=True)
    equal = [(found.codes == codes).float().mean().item() for found, (codes, _) in pairs]
    return row(
        "gptq", "gptq, a block of SmolLM2", "column loop of the authors' code", threads, times["ours"],
        times["reference"], goal=goal, by=by,
    ) | {"codes_equal": min(equal)}  # fmt: skip


def _spqr(weight: Tensor, hessian: Tensor, repeats: int, threads: int, by: str) -> dict[str, object]:
    spec = QuantSpec(3, SPQR_GROUP, zero="float")
    times = interleaved(
        {
            "ours": lambda: quantize_spqr(weight, hessian, spec),
            "reference": lambda: reference_spqr(weight, hessian, bits=3, group_size=SPQR_GROUP),
        },
        repeats=repeats,
    )
    theirs, found = reference_spqr(weight, hessian, bits=3, group_size=SPQR_GROUP), quantize_spqr(weight, hessian, spec)
    return row(
        "spqr", f"spqr {weight.shape[0]}x{weight.shape[1]}", "column loop of the authors' code", threads,
        times["ours"], times["reference"], by=by,
    ) | _agreement(weight, hessian, (found.codes, found.dequantize()), (theirs.codes, theirs.rounded))  # fmt: skip


def _hessian(tokens: int, width: int, repeats: int, threads: int, by: str) -> dict[str, object]:
    inputs = _inputs(width, tokens, 0)
    accumulator, mean = HessianAccumulator(width), torch.zeros(width, width)

    def plain() -> None:
        # Of the authors' code: scaled inputs, a whole product, a running mean in place.
        scaled = (2 / (2 * tokens)) ** 0.5 * inputs.t()
        mean.mul_(0.5).add_(scaled @ scaled.t())

    times = interleaved({"ours": lambda: accumulator.add(inputs), "plain": plain}, repeats=repeats)
    return row(
        "hessian", f"hessian of {tokens} tokens, {width} wide", "whole product of the authors' code", threads,
        times["ours"], times["plain"], by=by,
    )  # fmt: skip


def _agreement(
    weight: Tensor, hessian: Tensor, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]
) -> Mapping[str, float]:
    def error(values: Tensor) -> float:
        gap = (weight - values).double()
        return float(((gap @ hessian.double()) * gap).sum())

    return {
        "codes_equal": (ours[0] == theirs[0]).float().mean().item(),
        "error_ratio": error(ours[1]) / error(theirs[1]),
    }


def _problem(outputs: Sequence[int], inputs: int, seed: int) -> tuple[list[Tensor], Tensor]:
    random = generator(seed)
    weights = [0.02 * torch.randn(rows, inputs, generator=random) for rows in outputs]
    for weight in weights:
        weight *= 1 + weight.mul(25).square()
    return weights, HessianAccumulator(inputs).add(_inputs(inputs, TOKENS, seed)).hessian


def _inputs(width: int, tokens: int, seed: int) -> Tensor:
    """Inputs ``[tokens, width]`` of unlike sizes, half of whose variance lies in a quarter of the directions."""
    random = generator(seed + 100)
    common = torch.randn(tokens, width // 4, generator=random) @ torch.randn(width // 4, width, generator=random)
    own = torch.randn(tokens, width, generator=random)
    return (common / (width // 4) ** 0.5 + own) * torch.randn(width, generator=random).exp()
