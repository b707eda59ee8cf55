"""Language models keep what they can at 4 bits a weight; below that, what a bit costs depends on who spends it.

Paper: Jin, Du, Huang, Liu, Luan, Wang & Xiong 2024, "A Comprehensive Evaluation of Quantization Strategies for
Large Language Models", Findings of ACL 2024 (arXiv 2402.16775): its five claims over three dimensions, knowledge,
alignment and efficiency. Its tables could not be read here; adjacent published tables stand beside ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from workbench import published
from workbench.claim import Claim
from workbench.errors import check_between, check_positive
from workbench.metrics.quantization import (
    NOT_QUANTISED,
    difference,
    level,
    one_row_a_variant,
    paired_questions,
    paired_share,
    proxies,
    ratio_of_speed,
    same_bits,
    same_bytes,
    share_kept,
)
from workbench.metrics.uncertainty import Effect, bootstrap_interval, t_interval
from workbench.profiles import Profiled
from workbench.result import Result
from workbench.training import TextTask
from workbench.training.quantized_grid import QuantizedGrid, SeededModel, quantizable_size, quantized_grid, train_seeds
from workbench.training.quantized_layers import SHIPPED, isolate_outliers, sensitive_layers, shipped_grid
from workbench.training.quantized_pretrained import hub_evaluation, own_evaluation, quantized_pretrained
from workbench.training.quantized_speed import FLOAT32, INT4, INT8, NAIVE, pretrained_speed, trained_speed
from workbench.training.quantized_variants import Variant, variants

KEPT = 0.02  # a loss that rises, or a score that falls, by less than two per cent counts as kept
CONTEXT = 64  # characters that a model trained here sees
WINDOWS = 64  # of held-out text, for every variant of a model trained here
NEEDED = (
    *(Variant("rtn", bits) for bits in (8, 4, 3, 2)), *(Variant("gptq", bits) for bits in (4, 3, 2)),
    Variant("gptq_16", 2), Variant("spqr", 2),
)  # fmt: skip
SPQRS = ("SpQR, 2 bits", "SpQR, few outliers, 2 bits")
GPTQS = ("GPTQ", "GPTQ, rows", "GPTQ, groups of 16")
BENCHMARKS = ("accuracy", "spelling", "cloze", "next word", "truth")  # scores that perplexity might predict
QUESTIONS_TO_JUDGE = 30  # fewer are shown, and no claim is made of them


@dataclass(frozen=True)
class Config(Profiled):
    """The defaults are the ``quick`` profile. ``Config.of`` gives the others.

    Raises:
        ValueError, UnknownName: sizes, seeds, methods or models that cannot work.
    """

    corpus: str = "shakespeare"  # what models trained here learn: shakespeare, .txt file or folder, hub:owner/name
    models: tuple[str, ...] = ("32x2", "64x2")  # trained here in float32: width x layers, rising
    methods: tuple[str, ...] = ("rtn", "gptq", "gptq_16", "spqr:2", "spqr_few:2")  # and grids; name or name:bits
    bits: tuple[int, ...] = (8, 4, 3, 2)  # of a weight, each method where it is defined (paper: 8, 4, 3 and 2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # a model of every size each, the spread is the error bar
    training_steps: int = 200  # optimiser steps of a model trained here
    questions: int = 24  # of each kind, for every variant of a model trained here
    pretrained: tuple[str, ...] = (SHIPPED,)  # short names, folders or hub names (paper: Qwen 7B, 14B and 72B Chat)
    pretrained_methods: tuple[str, ...] = ("rtn:4", "rtn:2")  # a method at all bits, or method:bits (paper: three)
    pretrained_questions: int = 0  # of each benchmark and alignment set, at most; 0 asks none
    pretrained_tokens: int = 64  # of each of nine kinds of text, in windows of at most 256
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "models": ("16x1", "32x1"), "seeds": (0, 1), "training_steps": 20, "questions": 10, "pretrained": (),
        },
        "full": {
            "models": ("32x2", "64x2", "128x2"), "training_steps": 1000, "questions": 100,
            "methods": (
                "rtn", "gptq", "gptq_16", "spqr", "spqr_few", "awq", "hqq", "nf4", "llm_int8", "smoothquant", "rtn_row",
                "gptq_row", "gptq_act", "rtn_rotated", "gptq_rotated",
            ),
            "pretrained_methods": (
                "rtn", "gptq:4", "gptq:3", "gptq:2", "gptq_act:3", "gptq_16:4", "gptq_16:2", "gptq_row:2", "spqr:4",
                "spqr:2", "spqr_few:2", "awq:4", "hqq:4", "nf4", "llm_int8",
            ),
            "pretrained_questions": 30, "pretrained_tokens": 512,
        },
        # The paper's own models need code from the hub to run; these are their successors, which need none.
        "paper": {
            "models": ("32x2", "64x2", "128x2"), "seeds": tuple(range(6)), "training_steps": 1000, "questions": 100,
            "pretrained": ("Qwen/Qwen1.5-7B-Chat", "Qwen/Qwen1.5-14B-Chat", "Qwen/Qwen1.5-72B-Chat"),
            "pretrained_methods": ("rtn", "gptq", "gptq_16", "spqr", "spqr_few", "llm_int8"),
            "pretrained_questions": 2000, "pretrained_tokens": 8192,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        counts = {"questions": self.questions, "pretrained_tokens": self.pretrained_tokens}
        check_positive(training_steps=self.training_steps, **counts)
        check_between(0, np.inf, pretrained_questions=self.pretrained_questions)
        there = set(variants(self.methods, self.bits))
        if missing := [f"{one.way}:{one.bits}" for one in NEEDED if one not in there]:
            raise ValueError(f"methods={self.methods} with bits={self.bits} lack {missing}, which claims are about.")
        there = set(variants(self.pretrained_methods, self.bits))
        if self.pretrained and not {Variant("rtn", 4), Variant("rtn", 2)} <= there:
            raise ValueError(f"pretrained_methods={self.pretrained_methods} lacks rtn at 4 and 2 bits: add 'rtn'.")
        sizes = [quantizable_size(name).width for name in self.models]
        if len(sizes) < 2 or sizes != sorted(sizes) or not self.seeds:
            raise ValueError("models needs at least two rising sizes such as ('32x2', '64x2'), seeds at least one.")

    @property
    def task(self) -> TextTask:
        """The text that the models trained here learn, character by character."""
        return TextTask(corpus=self.corpus, context=CONTEXT)

    @property
    def variants(self) -> list[Variant]:
        """What models trained here are quantised to."""
        return variants(self.methods, self.bits)


def train_models(config: Config) -> list[SeededModel]:
    """Language models of rising size, one of each for every seed, trained in float32 and kept."""
    config.require_setting()
    return train_seeds(config.models, config.task, config.seeds, steps=config.training_steps)


def quantize_trained(config: Config, models: list[SeededModel]) -> QuantizedGrid:
    """Every model trained here in every variant, scored on the same held-out text and questions."""
    return quantized_grid(models, config.variants, windows=WINDOWS, questions=config.questions)


def quantize_pretrained(config: Config) -> QuantizedGrid:
    """The pretrained models in their variants over all three dimensions; empty where none is named."""
    if not config.pretrained:
        return QuantizedGrid(pd.DataFrame(), pd.DataFrame())
    prepare = hub_evaluation if config.profile == "paper" else own_evaluation
    evaluation = prepare(tokens=config.pretrained_tokens, questions=config.pretrained_questions)
    return quantized_pretrained(
        config.pretrained, variants(config.pretrained_methods, config.bits), evaluation,
        dtype="bfloat16" if config.profile == "paper" else "float32", cores=1 if config.profile == "paper" else None,
    )  # fmt: skip


def compare_grids(config: Config, models: list[SeededModel]) -> pd.DataFrame:
    """What a layer loses on several 4-bit grids: where weights lie on one of them already, it loses nothing."""
    return shipped_grid(models[-1], config.pretrained)


def compare_outliers(config: Config, models: list[SeededModel]) -> pd.DataFrame:
    """Error of the outputs of single layers at 2 bits, with outliers kept apart and without, beside their bits."""
    return isolate_outliers(models[-len(config.seeds) :])


def measure_speed(config: Config, models: list[SeededModel]) -> pd.DataFrame:
    """Memory of the weights and tokens per second on packed paths and a naive one, of the first pretrained model.

    Without one, of the largest model trained here.
    """
    if not config.pretrained:
        return trained_speed(models[-1])
    peak = config.profile != "quick"  # every path loads the model in a process of its own
    return pretrained_speed(config.pretrained[0], new_tokens=max(1, config.pretrained_tokens // 64), peak=peak)


def find_sensitive_layers(config: Config, models: list[SeededModel]) -> pd.DataFrame:
    """What each layer of the largest models adds to the loss when it alone is rounded: one row per layer and bits."""
    return sensitive_layers(models[-len(config.seeds) :], bits=config.bits)


def conclude(
    config: Config,
    trained: QuantizedGrid,
    pretrained: QuantizedGrid,
    grids: pd.DataFrame,
    outliers: pd.DataFrame,
    speed: pd.DataFrame,
    sensitivity: pd.DataFrame,
) -> Result:
    """What the paper says, judged by these tables."""
    wide = one_row_a_variant(trained.rows)
    claims = [
        *_kept_claims(wide), *_proxy_claims(wide), *_size_claims(wide), *_cost_claims(wide, speed),
        *_outlier_claims(wide, outliers), *_method_claims(wide), *_layer_claims(sensitivity), *_grid_claims(grids),
    ]  # fmt: skip
    rows = [wide]
    if len(pretrained.rows):
        claims += _pretrained_claims(pretrained)
        rows.append(one_row_a_variant(pretrained.rows))
    claims += _adjacent_claims()
    parts = {"grids": grids, "outliers": outliers, "speed": speed, "layers": sensitivity}
    curves = pd.concat([table.assign(part=part) for part, table in parts.items()], ignore_index=True)
    return Result("llm_quantization", config, pd.concat(rows, ignore_index=True), curves, claims,
                  by=["model", "variant", "method", "bits", "group"])  # fmt: skip


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    models = train_models(config)
    trained, pretrained = quantize_trained(config, models), quantize_pretrained(config)
    grids, outliers = compare_grids(config, models), compare_outliers(config, models)
    speed, sensitivity = measure_speed(config, models), find_sensitive_layers(config, models)
    return conclude(config, trained, pretrained, grids, outliers, speed, sensitivity)


def reported() -> dict[str, pd.DataFrame]:
    """The adjacent published tables by name, each row with its ``source`` and ``status``."""
    return {name: published.load("llm_quantization", name) for name in published.tables("llm_quantization")}


def _kept_claims(wide: pd.DataFrame) -> list[Claim]:
    """Rises are in parts of the held-out loss before, means over the sizes trained here."""
    rise, kept = partial(level, wide, value="rise"), partial(share_kept, wide, value="accuracy")
    return [
        *(Claim(f"{method} at 4 bits keeps the loss of float32 to 2 % (relative rise)", rise(f"{method}, 4 bits"),
                below=KEPT, source="claim 1: 4 bits keep performance", gating=True) for method in ("GPTQ", "RTN")),
        Claim("GPTQ at 4 bits keeps 98 % of the accuracy of float32 (next character)", kept("GPTQ, 4 bits"),
              above=1 - KEPT, source="claim 1: 4 bits keep performance", gating=True),
        Claim("GPTQ at 3 bits visibly degrades: the loss rises by more than 2 %", rise("GPTQ, 3 bits"), above=KEPT,
              source="claim 1: 3 bits and fewer degrade"),
        Claim("RTN at 2 bits visibly degrades: the loss rises by more than 2 %", rise("RTN, 2 bits"), above=KEPT,
              source="claim 1: 3 bits and fewer degrade"),
    ]  # fmt: skip


def _proxy_claims(wide: pd.DataFrame, *, whose: str = "trained here") -> list[Claim]:
    return [
        Claim(f"Perplexity predicts the benchmark {row.benchmark!r} over variants of "
              f"{f'all models {whose}' if row.model == 'all' else row.model} (Spearman)",
              Effect(row.estimate, row.low, row.high, row.n), above=0.8, source="claim 2: perplexity predicts")
        for row in proxies(wide, BENCHMARKS).itertuples()
        if row.model == wide["model"].iloc[-1] or (row.model == "all" and len(set(wide["model"])) > 1)
    ]  # fmt: skip


def _size_claims(wide: pd.DataFrame, *, source: str = "claim 3: larger and quantised beats smaller") -> list[Claim]:
    claims = []
    for share, words in ((1.0, "float32"), (0.5, "float32 in the bytes of 16 bits")):
        pairs = same_bytes(wide, method="GPTQ", share=share)
        if len(pairs):
            gain = t_interval(pairs.groupby("seed")["gain"].mean().to_numpy())
            told = "; ".join(sorted({f"{row.large} at {row.variant}, not {row.small}" for row in pairs.itertuples()}))
            claims.append(Claim(f"The larger model quantised beats the smaller in {words} at no more bytes ({told}; "
                                "nats per byte)", gain, above=0.0, source=source))  # fmt: skip
    return claims


def _cost_claims(wide: pd.DataFrame, speed: pd.DataFrame) -> list[Claim]:
    before = wide[wide["variant"] == NOT_QUANTISED].set_index(["model", "seed"])["bytes"]
    after = wide[wide["variant"] == "RTN, 4 bits"].set_index(["model", "seed"])["bytes"]
    source, model = "claim 4: memory falls, speed may not", speed["model"].iloc[0]
    held = speed.groupby("path")["bytes"].first()
    claims = [
        Claim("At 4 bits a model trained here takes less than a quarter of its bytes (largest share)",
              Effect.exact((after / before).max()), below=0.25, source=source, gating=True),
        Claim(f"{model} takes a fifth of its bytes at 4 bits, embedding at 8 (share of float32)",
              Effect.exact(held[INT4] / held[FLOAT32]), below=0.2, source=source),
    ]  # fmt: skip
    for path, words, bound in ((NAIVE, "slower", {"below": 1.0}), (INT4, "faster", {"above": 1.0}),
                               (INT8, "faster", {"above": 1.0})):  # fmt: skip
        claims.append(
            Claim(
                f"{model} on the path {path!r} writes {words} than in float32 (tokens per CPU second, ratio "
                "within a round)",
                t_interval(ratio_of_speed(speed, path, FLOAT32)),
                source=source,
                **bound,
            )
        )
    return claims


def _outlier_claims(wide: pd.DataFrame, outliers: pd.DataFrame | None = None) -> list[Claim]:
    bits, source = wide.groupby("variant")["bits_per_weight"].mean(), "claim 5: outliers apart rescue 2 bits"
    claims = []
    for ours in (name for name in SPQRS if name in bits.index):
        nominal = [name for name in ("GPTQ, rows, 2 bits", "GPTQ, 2 bits") if name in bits.index]
        for rival in dict.fromkeys([*nominal, *same_bits(wide, ours, GPTQS)]):
            told = f"{bits[ours]:.2f} bits a weight against {bits[rival]:.2f}, nats per byte"
            claims.append(Claim(f"{ours}, loses less than {rival} ({told})", difference(wide, ours, rival),
                                below=0.0, source=source))  # fmt: skip
    if outliers is not None:
        logs = outliers.assign(log=np.log10(outliers["output_error"])).pivot(
            index=["model", "layer", "seed"], columns="variant", values="log"
        )
        claims += [
            Claim(f"In single layers, {SPQRS[0]}, errs less in the output than {rival} (log10 of the ratio)",
                  t_interval((logs[SPQRS[0]] - logs[rival]).groupby("seed").mean().to_numpy()), below=0.0,
                  source=source)
            for rival in ("GPTQ, 2 bits", "GPTQ, groups of 16, 4 bits")
        ]  # fmt: skip
    return claims


def _method_claims(wide: pd.DataFrame) -> list[Claim]:
    nats = wide[wide["method"] == "RTN"].pivot_table(index="seed", columns="bits", values="nats")
    least = nats[[4, 3, 2]].diff(axis="columns").min(axis="columns")
    return [
        *(Claim(f"GPTQ loses less than RTN at {bits} bits on the same grid (nats per byte)",
                difference(wide, f"GPTQ, {bits} bits", f"RTN, {bits} bits"), below=0.0, source="method",
                gating=bits < 4)
          for bits in (4, 3, 2)),
        Claim("Every bit below 4 that RTN takes away costs something (smallest step, nats per byte)",
              t_interval(least.to_numpy()), above=0.0, source="method", gating=True),
    ]  # fmt: skip


def _layer_claims(sensitivity: pd.DataFrame) -> list[Claim]:
    at_two = sensitivity[sensitivity["bits"] == 2].groupby("seed")["added_nats"]
    return [
        Claim("Layers differ: the most sensitive one at 2 bits adds more than twice what the median one adds (ratio)",
              t_interval((at_two.max() / at_two.median()).to_numpy()), above=2.0, source="per layer"),
    ]  # fmt: skip


def _grid_claims(grids: pd.DataFrame) -> list[Claim]:
    own = grids[grids["grid"] == "4 bits, groups of 32, float zero"].set_index("model")["relative_error"]
    here = own.drop(SHIPPED, errors="ignore").iloc[0]
    claims = [Claim("Weights trained in float32 lose something on a 4-bit grid of 32 with a minimum (relative error)",
                    Effect.exact(here), above=1e-4, source="the trap", gating=True)]  # fmt: skip
    if SHIPPED in own.index:
        claims.insert(
            0,
            Claim(
                "The packaged SmolLM2 lies on that grid: 4 bits would be called lossless there (relative error)",
                Effect.exact(own[SHIPPED]),
                below=1e-9,
                source="the trap",
                gating=True,
            ),
        )
    return claims


def _pretrained_claims(grid: QuantizedGrid) -> list[Claim]:
    wide, claims = one_row_a_variant(grid.rows), []
    method = "GPTQ" if {"GPTQ, 4 bits", "GPTQ, 2 bits"} <= set(wide["variant"]) else "RTN"
    for model, answers in grid.answers.groupby("model", sort=False):
        before = answers.query("variant == @NOT_QUANTISED and benchmark == 'text'")["value"].mean()
        for bits, bound in ((4, {"below": KEPT}), (2, {"above": KEPT})):
            lost = paired_questions(answers, f"{method}, {bits} bits", NOT_QUANTISED, "text") / before
            words = "keeps the loss to 2 %" if bits == 4 else "visibly degrades: more than 2 %"
            claims.append(
                Claim(
                    f"{model}, {method} at {bits} bits {words} (relative rise over windows of text)",
                    bootstrap_interval(lost),
                    source="claim 1: 4 bits keep performance",
                    **bound,
                )
            )
        for name, some in answers[answers["benchmark"] != "text"].groupby("benchmark", sort=False):
            if some["question"].nunique() < QUESTIONS_TO_JUDGE:
                continue
            for bits, bound in ((4, {"above": -0.05}), (2, {"below": 0.0})):
                change = paired_share(paired_questions(some, f"{method}, {bits} bits", NOT_QUANTISED, name))
                words = "stays within 5 points" if bits == 4 else "falls"
                claims.append(Claim(f"{model}, {method} at {bits} bits: the share of {name!r} {words} (change, paired "
                                    "over questions)", change, source=f"claim 1, {name}", **bound))  # fmt: skip
    claims += [*_size_claims(wide), *_pretrained_outlier_claims(grid.answers, wide)]
    return claims + (_proxy_claims(wide, whose="pretrained") if wide["variant"].nunique() > 4 else [])


def _pretrained_outlier_claims(answers: pd.DataFrame, wide: pd.DataFrame) -> list[Claim]:
    """Claim 5 on pretrained models, paired over windows of text (nats per byte)."""
    claims, there = [], set(wide["variant"])
    for ours in (name for name in SPQRS if {name, "GPTQ, 2 bits"} <= there):
        bits = wide.groupby("variant")["bits_per_weight"].mean()
        for rival in dict.fromkeys(["GPTQ, 2 bits", *same_bits(wide, ours, GPTQS)]):
            apart = bootstrap_interval(paired_questions(answers, ours, rival, "text"))
            told = f"{bits[ours]:.2f} bits a weight against {bits[rival]:.2f}, nats per byte"
            claims.append(Claim(f"Pretrained: {ours}, loses less than {rival} ({told})", apart, below=0.0,
                                source="claim 5: outliers apart rescue 2 bits"))  # fmt: skip
    return claims


def _adjacent_claims() -> list[Claim]:
    """Arithmetic over what others published: adjacent to the paper, never its own numbers."""
    tables = reported()
    average = tables["qwen2_average"].pivot(index="size", columns="method", values="average")
    lost = (average["BF16"] - average["GPTQ Int4"])[["0.5B", "1.5B", "7B", "72B"]]
    cost = tables["qwen_memory_speed"].set_index(["model", "precision"])
    chat = tables["qwen_chat_benchmarks"].set_index(["model", "precision", "benchmark"])["score"]
    speed = cost["tokens_per_second"].unstack()
    slower = (speed["Int8"] / speed["BF16"])[["Qwen-7B-Chat", "Qwen-14B-Chat"]].max()
    gain = chat["Qwen-14B-Chat", "Int4", "MMLU"] - chat["Qwen-7B-Chat", "BF16", "MMLU"]
    memory = [cost.loc[key, "memory_gb"] for key in (("Qwen-14B-Chat", "Int4"), ("Qwen-7B-Chat", "BF16"))]
    return [
        Claim("Adjacent: Qwen2 loses more at Int4 the smaller it is (points, smallest step from 72B down to 0.5B)",
              Effect.exact(-lost.diff().max()), above=0.0, source="Qwen2's table", gating=True),
        Claim("Adjacent: Qwen 7B and 14B write slower in Int8 than in BF16 on an A100 (largest ratio of speeds)",
              Effect.exact(slower), below=1.0, source="Qwen's table of speed", gating=True),
        Claim(f"Adjacent: Qwen-14B in Int4 ({memory[0]} GB) beats Qwen-7B in BF16 ({memory[1]} GB) on MMLU (points)",
              Effect.exact(gain), above=0.0, source="Qwen's model cards", gating=True),
    ]  # fmt: skip
