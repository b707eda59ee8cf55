"""The process of one peer: it has the peer's package and ours, compares what both give, and times both in turn."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from workbench.bench.quantizer_parts.timing import interleaved
from workbench.quantizers.hqq import quantize_hqq
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.llm_int8 import LLMInt8Linear, llm_int8_linear, quantize_llm_int8, quantize_rows
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec

Row = dict[str, object]
QUICK_REPEATS, REPEATS = 3, 9
CACHED = 32  # tokens of a prompt that caches are compared after
WIDE = 2048  # of the square matrix that products are timed with
# bitsandbytes multiplies sums by 6.200124e-5, which is 1.8e-5 of itself more than 1 / 127**2.
MIXED = 5e-5


def main() -> None:
    """``peer_worker NAME MATRICES THREADS [quick]``: a line of JSON per row."""
    name, matrices, threads, *rest = sys.argv[1:]
    torch.set_num_threads(int(threads))
    out = sys.stdout
    with redirect_stdout(sys.stderr), torch.no_grad():  # what a peer prints must not get among the rows
        tensors = load_file(matrices)
        inputs = tensors.pop("inputs")
        for row in PARTS[name](tensors, inputs, QUICK_REPEATS if rest else REPEATS):
            print(json.dumps(row), file=out, flush=True)


def bitsandbytes(matrices: Mapping[str, Tensor], inputs: Tensor, repeats: int) -> Iterator[Row]:
    """NF4 and FP4 with and without double quantisation, int8 codes, and the mixed product of LLM.int8()."""
    peer = importlib.import_module("bitsandbytes.functional")
    operations = torch.ops.bitsandbytes
    for kind in ("nf4", "fp4"):
        plain, double = QuantSpec(4, 64, codebook=kind), QuantSpec(4, 64, codebook=kind, double_quant=True)
        first, second, nearer, far = [], [], [], []
        for weight in matrices.values():
            packed, state = peer.quantize_4bit(weight, blocksize=64, quant_type=kind)
            ours = quantize_rtn(weight, plain)
            theirs = torch.stack([packed[:, 0] >> 4, packed[:, 0] & 15], 1).reshape(weight.shape)
            first.append(share(ours.codes, theirs))
            far.append(distance(ours.dequantize(), peer.dequantize_4bit(packed, state)))
            _, state = peer.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=True)
            codes = quantize_rtn(weight, double).scale_table.codes
            second.append(share(codes, state.absmax.flatten()))
            absmax = ours.scales.flatten()
            # Its compiled code takes a neighbour of the nearest level now and then.
            left = absmax - absmax.mean()
            theirs, second_state = peer.quantize_blockwise(left, blocksize=256)
            parts = left / second_state.absmax.repeat_interleave(256)[: len(left)]
            gaps = [(second_state.code[one.long()] - parts).abs() for one in (codes, theirs)]
            nearer.append(float((gaps[1] < gaps[0] - 1e-6).sum()))
        name = kind.upper()
        yield agreement(f"{name}, blocks of 64: equal codes", min(first), at_least=1.0)
        yield agreement(f"{name}: largest difference of values", max(far), at_most=0.0)
        yield agreement(f"{name}, double quantised: equal codes of scales", min(second), at_least=0.99)
        yield agreement(f"{name}, double quantised: scales that the peer has nearer", max(nearer), at_most=0.0)
    weight = matrices["SmolLM2"]
    codes, scales, _ = operations.int8_vectorwise_quant(weight.clone(), 0.0)
    yield agreement(
        "LLM.int8() weight: equal codes", share(quantize_llm_int8(weight).codes.int() - 128, codes.int()), at_least=1.0
    )
    thresholds = {"no outliers": 0.0, "5 % outliers": float(inputs.abs().amax(0).quantile(0.95))}
    for label, threshold in thresholds.items():
        rounded, rows, columns = operations.int8_vectorwise_quant(inputs.clone(), threshold)
        theirs, _ = operations.int8_mixed_scaled_mm(inputs, rounded, codes, rows, scales, columns, None)
        mine, _ = quantize_rows(inputs, threshold=threshold)
        yield agreement(f"LLM.int8() inputs, {label}: equal codes", share(mine, rounded), at_least=1.0)
        ours = llm_int8_linear(inputs, weight, threshold=threshold)
        yield agreement(f"LLM.int8() product, {label}: relative difference", distance(ours, theirs), at_most=MIXED)

    square = torch.randn(WIDE, WIDE, generator=torch.Generator().manual_seed(0)) * 0.02
    linear = nn.Linear(WIDE, WIDE, bias=False)
    linear.weight = nn.Parameter(square)
    spec = QuantSpec(4, 64, codebook="nf4")
    yield times("NF4: quantise 2048 x 2048", repeats, lambda: quantize_rtn(square, spec), lambda: peer.quantize_4bit(
        square, blocksize=64, quant_type="nf4"))  # fmt: skip
    packed, state = peer.quantize_4bit(square, blocksize=64, quant_type="nf4")
    own = QuantizedLinear.from_linear(linear, quantize_rtn(square, spec))
    codes, scales, _ = operations.int8_vectorwise_quant(square.clone(), 0.0)
    module = LLMInt8Linear.from_linear(linear)

    def unpacked(batch: Tensor) -> Tensor:
        return nn.functional.linear(batch, peer.dequantize_4bit(packed, state))

    def mixed(batch: Tensor) -> Tensor:
        rounded, rows, columns = operations.int8_vectorwise_quant(batch, 6.0)
        return operations.int8_mixed_scaled_mm(batch, rounded, codes, rows, scales, columns, None)[0]

    for rows in (1, 16, 128):
        batch = torch.randn(rows, WIDE, generator=torch.Generator().manual_seed(1))
        batch[0, ::97] = 9.0
        product = partial(unpacked, batch)
        yield times(f"NF4: product 2048 x 2048, batch {rows}", repeats, partial(own, batch), product)
        yield times(
            f"LLM.int8(): product 2048 x 2048, batch {rows}", repeats,
            partial(module, batch), partial(mixed, batch),
        )  # fmt: skip


def hqq(matrices: Mapping[str, Tensor], inputs: Tensor, repeats: int) -> Iterator[Row]:
    """Values after the half-quadratic steps, in both groupings."""
    quantizer = importlib.import_module("hqq.core.quantize").Quantizer

    def theirs(weight: Tensor, bits: int, axis: int) -> Tensor:
        codes, meta = quantizer.quantize(
            weight, nbits=bits, group_size=64, axis=axis, round_zero=bits == 4, bitpack=False, device="cpu"
        )
        return ((codes - meta["zero"]) * meta["scale"]).reshape(weight.shape)

    wide = {**matrices, "of size 1": 50 * matrices["normal"]}
    for bits in (8, 4, 3, 2):
        spec = QuantSpec(bits, 64, zero="float")
        for axis in (1, 0):
            # kappa=1: the package does not let beta grow, whatever its options say.
            far, same = [], []
            for weight in wide.values():
                ours, other = quantize_hqq(weight, spec, axis=axis, kappa=1.0).dequantize(), theirs(weight, bits, axis)
                far.append(float((ours - other).abs().max()))
            for weight in matrices.values():
                grown, kept = quantize_hqq(weight, spec, axis=axis), quantize_hqq(weight, spec, axis=axis, kappa=1.0)
                same.append(share(grown.codes, kept.codes))
            name = f"HQQ {bits} bits, groups of 64, axis {axis}"
            yield agreement(f"{name}, kappa=1: largest difference", max(far), at_most=1e-5)
            yield agreement(f"{name}, kappa=1.01: equal codes", min(same), at_least=0.99)
    weight, spec = matrices["SmolLM2"], QuantSpec(4, 64, zero="float")
    yield times("HQQ: quantise 1536 x 576", repeats, lambda: quantize_hqq(weight, spec), lambda: quantizer.quantize(
        weight, nbits=4, group_size=64, axis=1, round_zero=True, device="cpu"))  # fmt: skip
    if repeats > QUICK_REPEATS:
        yield from packed_caches()


def packed_caches() -> Iterator[Row]:
    """How far SmolLM2's next words drift, with ours in parts of the cache of transformers with hqq inside.

    Both round the whole prompt and keep a bit per number beside the codes: ours two half-precision numbers for 32,
    theirs two float32 ones for 64.
    """
    from transformers import DynamicCache, QuantizedCache

    from workbench.bench.quantizer_parts.peers import TEXT
    from workbench.models.pretrained import load_pretrained
    from workbench.quantizers.kv_cache import QuantizedKVCache

    model, tokenizer = load_pretrained("smollm2-135m")
    ids = tokenizer(TEXT, return_tensors="pt").input_ids[:, : CACHED + 8]

    def words(cache: DynamicCache | QuantizedCache | QuantizedKVCache) -> Tensor:
        model(ids[:, :CACHED], past_key_values=cache)
        return model(ids[:, CACHED:], past_key_values=cache).logits[0].log_softmax(-1)

    exact = words(DynamicCache())
    for bits in (8, 4, 2):
        caches = (
            QuantizedKVCache(bits=bits, group=32, residual=0),
            QuantizedCache("hqq", model.config, nbits=bits, axis_key=1, axis_value=1, q_group_size=64),
        )
        own, other = (float((exact.exp() * (exact - words(cache))).sum(-1).mean()) for cache in caches)
        yield {
            "what": f"KV cache of {bits} bits: KL to the float cache (nats), peer per token",
            "value": own,
            "ratio": own / other,
        }


def torchao(matrices: Mapping[str, Tensor], inputs: Tensor, repeats: int) -> Iterator[Row]:
    """Round to nearest: 8 bits per row, 4 and 2 bits in groups, symmetric and with an integer zero."""
    peer = importlib.import_module("torchao.quantization")
    in_groups = importlib.import_module("torchao.quantization.granularity").PerGroup(64)
    symmetric, asymmetric = peer.MappingType.SYMMETRIC, peer.MappingType.ASYMMETRIC

    def layer(weight: Tensor, config: object) -> nn.Sequential:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
        whole = nn.Sequential(linear)
        peer.quantize_(whole, config)
        return whole

    def groups(bits: int, mapping: object) -> object:
        return peer.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"), granularity=in_groups, mapping_type=mapping
        )

    cases = {
        "RTN int8 per row": (QuantSpec(8, symmetric=True), peer.Int8WeightOnlyConfig()),
        "RTN int4, groups of 64, symmetric": (QuantSpec(4, 64, symmetric=True), groups(4, symmetric)),
        "RTN int4, groups of 64, zero": (QuantSpec(4, 64), groups(4, asymmetric)),
        "RTN int2, groups of 64, symmetric": (QuantSpec(2, 64, symmetric=True), groups(2, symmetric)),
    }
    for name, (spec, config) in cases.items():
        same, elsewhere = [], []
        for weight in matrices.values():
            theirs, ours = layer(weight, config)[0].weight, quantize_rtn(weight, spec)
            equal = ours.codes.int() - spec.middle == theirs.qdata.int()
            same.append(float(equal.double().mean()))
            # It multiplies by the inverse of the scale: where a weight lies in the middle of two levels, as many of
            # SmolLM2's do on the grid they came from, the last bit decides.
            steps = (weight.unflatten(1, (ours.scales.shape[1], -1)) / ours.scales[..., None]).flatten(1)
            tie = ((steps - steps.floor()) - 0.5).abs() < 1e-4
            elsewhere.append(float((~equal & ~tie).sum()))
        yield agreement(f"{name}: equal codes", min(same), at_least=0.99)
        yield agreement(f"{name}: codes that differ, but for ties", max(elsewhere), at_most=0.0)
    square = torch.randn(WIDE, WIDE, generator=torch.Generator().manual_seed(0)) * 0.02
    int8 = QuantSpec(8, symmetric=True)
    theirs = layer(square, peer.Int8WeightOnlyConfig())
    linear = nn.Linear(WIDE, WIDE, bias=False)
    linear.weight = nn.Parameter(square)
    own = QuantizedLinear.from_linear(linear, quantize_rtn(square, int8), kernel="int8_weight")
    for rows in (1, 16, 128):
        batch = torch.randn(rows, WIDE, generator=torch.Generator().manual_seed(1))
        yield times(
            f"int8 weight only: product 2048 x 2048, batch {rows}", repeats,
            partial(own, batch), partial(theirs, batch),
        )  # fmt: skip


PARTS = {"bitsandbytes": bitsandbytes, "hqq": hqq, "torchao": torchao}


def share(ours: Tensor, theirs: Tensor) -> float:
    """Part of all codes that are equal."""
    return float((ours == theirs).double().mean())


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, in parts of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def agreement(what: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> Row:
    """A row of agreement."""
    if at_least is not None:
        return {"what": what, "value": value, "goal": f">= {at_least:g}", "reached": value >= at_least}
    return {"what": what, "value": value, "goal": f"<= {at_most:g}", "reached": value <= at_most}


def times(what: str, repeats: int, ours: Callable[[], object], theirs: Callable[[], object]) -> Row:
    """A row of medians, both taken in turn."""
    found = interleaved({"ours": ours, "theirs": theirs}, repeats=repeats)
    (wall, cpu), (_, other) = found["ours"], found["theirs"]
    return {"what": what, "wall_ms": wall, "cpu_ms": cpu, "ratio": cpu / other}


if __name__ == "__main__":
    main()
