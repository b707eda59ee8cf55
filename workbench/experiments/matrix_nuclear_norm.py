"""The matrix nuclear norm tells how well a language model compresses text, at a fraction of matrix entropy's cost.

Paper: Li, Xia, Chang & Wu 2024, "Large Language Model Evaluation via Matrix Nuclear-Norm" (arXiv 2410.10672): its
tables of indicators, times, lengths and chat models, as a third party extracted them; figure 3 (order of words).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import pandas as pd
import torch

from workbench.claim import Claim
from workbench.datasets.text_operations import OPERATIONS, cut_texts
from workbench.errors import check_choice, check_positive
from workbench.metrics.mnn_checks import compare_formulas, made_up_matrices
from workbench.metrics.mnn_timing import ENTROPY, GRAM, OURS, metric_times
from workbench.metrics.text_compression import Reading, operation_effects, read_lengths, read_operations
from workbench.metrics.text_metrics import describe_hidden, evaluate_texts
from workbench.metrics.uncertainty import Effect, bootstrap_interval, paired_difference, t_interval
from workbench.models.small_lm import ModelSize, named_size
from workbench.profiles import Profiled
from workbench.published import nuclear_norm as published
from workbench.result import Result
from workbench.runtime import generator, threads
from workbench.training import TextTask, are_pretrained, fixed_windows, run_tasks
from workbench.training.stages import stages

WINDOWS = 32  # pieces of held-out text that a model of the ladder is measured on
LONG = 6  # times the words, of the texts whose length is varied
MEASURES = (
    "loss", "tokens", "mnn", "bound", "mnn_over_bound", "entropy", "effective_rank", "nuclear_norm",
    "mnn_without_first", "entropy_without_first",
)  # fmt: skip
FACTORS = ["part", "model", "state", "length"]
UNTRAINED, WHOLE, HALF = "untrained", "whole", "half"
NAMED = {
    "mnn": "matrix nuclear norm", "entropy": "matrix entropy", "matrix_entropy": "matrix entropy", "loss": "loss",
}  # fmt: skip
FASTER = 8.0  # times, the least of the paper's table for Cerebras-GPT
CLOSE = 1.25  # times the true nuclear norm; what somebody might still call an approximation
AGREES = 0.8  # Spearman; below it ranks differ in more than neighbours
TIMED = {"smoke": (64,), "quick": (192, 384, 768)}  # widths that the metrics alone are timed at
TIMED_ELSE, TIMED_TOKENS = (192, 384, 768, 1536, 2048), 1024
LADDER, WIDTHS, TEXTS = "ladder", "widths", "texts"


@dataclass(frozen=True)
class Config(Profiled):
    """The defaults are the ``quick`` profile. ``Config.of`` gives the others.

    Raises:
        ValueError: sizes, steps, texts or operations that cannot work.
    """

    corpus: str = "shakespeare"  # shakespeare, .txt file or folder, hub:owner/name (paper: Dolly, Wikipedia and others)
    sizes: tuple[str, ...] = ("64x1", "64x3")  # one width and rising depth, or pretrained models (paper: Cerebras-GPT)
    other_widths: tuple[str, ...] = ("16x1", "32x1")  # narrower than a text is long, to see the bound at work
    context: int = 64  # tokens of a text of the ladder, no more than its width (paper: up to 2048)
    steps: tuple[int, ...] = (80, 400)  # optimiser steps of the stages of the ladder, rising
    batch_size: int = 4  # windows of text a step
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # a model each, the spread is the error bar
    model: str = "smollm2-135m"  # reads texts that are reordered, short name, folder or hub name
    operations: tuple[str, ...] = ("shuffle", "reverse", "repeat", "truncate")  # what is done to a text (fig. 3)
    texts: int = 12  # that the model reads in every order (paper: thousands)
    words: int = 80  # of such a text
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "sizes": ("32x1", "32x2"), "other_widths": ("16x1",), "context": 32, "steps": (5, 20), "seeds": (0, 1),
            "texts": 3, "words": 20, "operations": ("shuffle", "reverse", "truncate"),
        },
        "full": {
            "sizes": ("64x1", "64x2", "64x4"), "steps": (100, 500, 2000), "batch_size": 8, "texts": 150,
            "operations": ("shuffle", "reverse", "shuffle sentences", "repeat", "foreign words", "truncate"),
        },
        "paper": {
            "corpus": "hub:databricks/databricks-dolly-15k:context", "context": 2048,
            "sizes": tuple(f"cerebras/Cerebras-GPT-{size}" for size in ("111M", "256M", "590M", "1.3B", "2.7B")),
            "other_widths": (), "model": "cerebras/Cerebras-GPT-1.3B", "texts": 2000, "words": 200,
            "operations": ("shuffle", "reverse", "shuffle sentences", "repeat", "foreign words", "truncate"),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(context=self.context, batch_size=self.batch_size, texts=self.texts, words=self.words)
        for operation in self.operations:
            check_choice("operations", operation, OPERATIONS)
        if missing := {"shuffle", "reverse"} - set(self.operations):
            raise ValueError(f"operations={self.operations} lacks {sorted(missing)}, which the claims are about.")
        if not self.seeds or not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps={self.steps} must rise, and seeds={self.seeds} must not be empty.")
        if len(self.sizes) < 2:
            raise ValueError(f"sizes={self.sizes} is no ladder: name at least two.")
        if are_pretrained(self.sizes):
            return
        widths = {size.width for size in self.ladder}
        if len(widths) > 1 or self.context > min(widths):
            raise ValueError(
                f"sizes={self.sizes} must have one width, at least context={self.context}: with more tokens than width "
                "the norm lies at its bound, and with several widths it tells them apart by their width alone."
            )
        if self.other_widths and are_pretrained(self.other_widths):
            raise ValueError(f"other_widths={self.other_widths} must be sizes to train here, such as '16x1'.")

    @property
    def ladder(self) -> list[ModelSize]:
        """The sizes that are trained here."""
        return [named_size(name) for name in self.sizes]

    @property
    def task(self) -> TextTask:
        """The text that the ladder learns, character by character."""
        return TextTask(corpus=self.corpus, context=self.context)


def reanalyse() -> pd.DataFrame:
    """The paper's tables: rank correlation of each metric with loss or accuracy, per family and data set."""
    return published.rank_correlations()


def measure_ladder(config: Config) -> pd.DataFrame:
    """One row per model, stage, seed and length of text: means of every number over pieces of held-out text.

    Part ``ladder`` has one width, so that all have one bound; part ``widths`` changes the width alone.
    """
    config.require_setting()
    if are_pretrained(config.sizes):
        return _measure_pretrained(config)
    parts = [_measure_stages(config, config.ladder, config.steps, part=LADDER)]
    if config.other_widths:
        sizes = [*(named_size(name) for name in config.other_widths), config.ladder[0]]
        parts.append(_measure_stages(config, sizes, config.steps[-1:], part=WIDTHS))
    return pd.concat(parts, ignore_index=True)


def _measure_stages(config: Config, sizes: list[ModelSize], steps: tuple[int, ...], *, part: str) -> pd.DataFrame:
    windows = fixed_windows(config.task.prepare().held_out, context=config.context, count=WINDOWS)[:, :-1]
    rows = []
    for stage in stages(sizes, config.task, steps=steps, seeds=config.seeds, batch_size=config.batch_size):
        with torch.no_grad(), threads(1):
            hidden = stage.model.hidden_states(windows)[0]
        for length, count in ((WHOLE, config.context), (HALF, config.context // 2)):
            found = pd.DataFrame([describe_hidden(text[:count]) for text in hidden]).mean()
            rows.append({"part": part, "model": stage.size.name, "state": stage.name, "length": length,
                         "seed": stage.seed, "loss": stage.nats, **found})  # fmt: skip
    return pd.DataFrame(rows)


def _measure_pretrained(config: Config) -> pd.DataFrame:
    from workbench.models.pretrained import load_pretrained

    texts, parts = _texts(config, config.words, config.texts), []
    for name in config.sizes:
        model, tokenizer = load_pretrained(name)
        table = evaluate_texts(model, tokenizer, texts, loss=True, max_tokens=config.context, label=name)
        parts.append(table.drop(columns="layer").rename(columns={"text": "seed"}).assign(model=name))
    fixed = {"part": LADDER, "state": "pretrained", "length": WHOLE}
    return pd.concat(parts, ignore_index=True).assign(**fixed).astype({"tokens": float})


@dataclass
class Texts:
    """What the pretrained model says of texts."""

    reading: Reading
    lengths: pd.DataFrame
    effects: pd.DataFrame  # of each operation, paired by text


def read_texts(config: Config) -> Texts:
    """The model reads every text in every order, and long ones from their first 16 tokens on; a text is a task."""
    config.require_setting()
    short, long = (_texts(config, words, count) for words, count in _sizes(config))
    tasks = [_Task(config.model, place, tuple(short), config.operations) for place in range(len(short))]
    tasks += [_Task(config.model, place, tuple(long), ()) for place in range(len(long))]
    found = run_tasks(_read, tasks, label="texts")
    reading = Reading.together(found[: len(short)])
    lengths = pd.concat([table.assign(text=place) for place, table in enumerate(found[len(short) :])])
    shared = lengths.groupby("tokens")["text"].transform("count") == len(long)
    return Texts(reading, lengths[shared].reset_index(drop=True), operation_effects(reading.rows))


@dataclass(frozen=True)
class _Task:
    model: str
    place: int
    texts: tuple[str, ...]
    operations: tuple[str, ...]  # none: the text is long, and read for its length


def _read(task: _Task) -> Reading | pd.DataFrame:
    model, tokenizer = _loaded(task.model)
    if not task.operations:
        return read_lengths(model, tokenizer, task.texts[task.place])
    return read_operations(model, tokenizer, task.texts, task.operations, only=[task.place])


@cache
def _loaded(name: str) -> tuple[Any, Any]:
    """Once in every process."""
    from workbench.models.pretrained import load_pretrained

    return load_pretrained(name)


def _sizes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
    """Words and number of the short texts, and of the long ones."""
    return (config.words, config.texts), (LONG * config.words, max(2, config.texts // 10))


def load_reader(config: Config) -> tuple[Any, Any]:
    """The model that reads the texts, and its tokenizer."""
    return _loaded(config.model)


def example_texts(config: Config, count: int = 3) -> list[str]:
    """The first of the texts that the model reads."""
    return _texts(config, config.words, config.texts)[:count]


def check_formulas(texts: Texts) -> pd.DataFrame:
    """Ours beside the authors' formula, the bound and the true norm, on hidden states and on matrices made up."""
    samples = {f"text {place}": hidden for place, hidden in enumerate(texts.reading.samples)}
    return compare_formulas(samples | made_up_matrices())


def measure_times(config: Config, texts: Texts) -> pd.DataFrame:
    """CPU milliseconds with one thread: ``place`` (``text`` or ``width``), ``width, tokens, sample, what, cpu_ms``.

    At a text also ``forward``, what the model needs to read it; at a width only the metrics, on matrices made up.
    """
    parts = []
    with threads(1):
        for sample, hidden in enumerate(texts.reading.samples):
            table = metric_times(hidden, fast=5, slow=1).assign(place="text", sample=sample)
            forward = {"what": "forward", "cpu_ms": texts.reading.forward_ms[sample], "place": "text", "sample": sample}
            parts.append(pd.concat([table, pd.DataFrame([forward])]).assign(
                tokens=hidden.shape[0], width=hidden.shape[1]))  # fmt: skip
        for width in TIMED.get(config.profile, TIMED_ELSE):
            hidden = torch.randn(TIMED_TOKENS, width, generator=generator(width))
            table = metric_times(hidden, fast=15, slow=1).assign(place="width", sample=0)
            parts.append(table.assign(tokens=TIMED_TOKENS, width=width))
    columns = ["place", "width", "tokens", "sample", "what", "cpu_ms"]
    return pd.concat(parts, ignore_index=True)[columns]


def speed(times: pd.DataFrame) -> pd.DataFrame:
    """How many times faster ours is than each way to the entropy, per text: ``alone`` and ``with_forward``."""
    wide = times[times["place"] == "text"].pivot(index="sample", columns="what", values="cpu_ms")
    parts = [
        pd.DataFrame({"baseline": name, "text": wide.index, "alone": wide[name] / wide[OURS],
                      "with_forward": (wide["forward"] + wide[name]) / (wide["forward"] + wide[OURS])})
        for name in (ENTROPY, GRAM)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def conclude(config: Config, ladder: pd.DataFrame, texts: Texts, checks: pd.DataFrame, times: pd.DataFrame) -> Result:
    """What the paper says, judged by these tables."""
    read = texts.reading.rows.rename(columns={"operation": "state", "text": "seed"})
    read = read.assign(part=TEXTS, model=_short(config.model), length=WHOLE)
    both = pd.concat([ladder, read], ignore_index=True)
    rows = both[[*FACTORS, "seed"]].join(both.reindex(columns=list(MEASURES)).astype(float))
    layers = texts.reading.layers.assign(curve="layers").rename(columns={"layer": "x"})
    lengths = texts.lengths.assign(curve="lengths", operation="none").rename(columns={"tokens": "x"})
    claims = [
        *_formula_claims(checks), *_ladder_claims(config, ladder), *_text_claims(texts), *_published_claims(),
        *_time_claims(times),
    ]  # fmt: skip
    return Result("matrix_nuclear_norm", config, rows, pd.concat([layers, lengths], ignore_index=True), claims,
                  by=FACTORS, measures=MEASURES)  # fmt: skip


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    ladder, texts = measure_ladder(config), read_texts(config)
    return conclude(config, ladder, texts, check_formulas(texts), measure_times(config, texts))


def _short(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


@cache
def _pieces(corpus: str, words: int, count: int) -> tuple[str, ...]:
    from workbench.datasets.corpus import load_corpus

    return tuple(cut_texts(load_corpus(corpus), words=words, count=count))


def _texts(config: Config, words: int, count: int) -> list[str]:
    return list(_pieces(config.corpus, words, count))


def _formula_claims(checks: pd.DataFrame) -> list[Claim]:
    return [
        Claim("Our norm is the authors' (largest relative difference over all matrices)",
              Effect.exact(checks["gap"].max()), below=1e-5, source="the official MNN.py", gating=True),
        Claim("The norm never passes its bound sqrt(D N) / N (largest norm over bound)",
              Effect.exact(checks["mnn_over_bound"].max()), below=1 + 1e-5, source="arithmetic", gating=True),
        Claim("The norms of all columns together are no less than the true nuclear norm (least ratio)",
              Effect.exact(checks["columns_over_true"].min()), above=1 - 1e-5, source="arithmetic", gating=True),
        Claim("On texts the norms of all columns come close to the true nuclear norm (ratio)",
              t_interval(checks.loc[checks["matrix"].str.startswith("text"), "columns_over_true"]), below=CLOSE,
              source="the paper's approximation"),
    ]  # fmt: skip


def _ladder_claims(config: Config, ladder: pd.DataFrame) -> list[Claim]:
    ours = ladder[ladder["part"] == LADDER]
    table, claims = ours[ours["length"] == WHOLE], []
    if UNTRAINED in set(table["state"]):
        longest = f"{config.steps[-1]} steps"
        for metric, length, words in (("mnn", WHOLE, "texts as long as the width"), ("mnn", HALF, "half as long"),
                                      ("entropy", WHOLE, "texts as long as the width")):  # fmt: skip
            effect = paired_difference(ours[ours["length"] == length], longest, UNTRAINED, value=metric, by="state",
                                       on=["model", "seed"])  # fmt: skip
            claims.append(Claim(f"Training lowers the {NAMED[metric]} ({words})", effect, below=0.0,
                                source="the paper's reading of both", gating=metric == "entropy"))  # fmt: skip
    for metric in ("mnn", "entropy"):
        ranks = [rows[metric].corr(rows["loss"], method="spearman") for _, rows in table.groupby("seed")]
        claims.append(Claim(f"The {NAMED[metric]} ranks the ladder as its loss does (Spearman)", t_interval(ranks),
                            above=AGREES, source="the paper's tables of indicators"))  # fmt: skip
    narrow = ladder[(ladder["part"] == WIDTHS) & (ladder["length"] == WHOLE)]
    narrow = narrow[narrow["bound"] < 1]
    if len(narrow):
        least = narrow.groupby("seed")["mnn_over_bound"].min()
        claims.append(Claim("With more tokens than width the norm lies at its bound, trained or not (least norm over "
                            "bound)", t_interval(least.to_numpy()), above=0.9, source="the bound"))  # fmt: skip
    return claims


def _text_claims(texts: Texts) -> list[Claim]:
    effects, source = texts.effects.set_index(["operation", "measure"]), "fig. 3"
    claims = []
    for operation, words in (("shuffle", "Shuffling"), ("reverse", "Reversing")):
        for measure in ("mnn", "entropy", "loss"):
            row = effects.loc[(operation, measure)]
            claims.append(Claim(f"{words} the words raises the {NAMED[measure]} (paired by text)",
                                Effect(row["estimate"], row["low"], row["high"], int(row["n"])), above=0.0,
                                source=source if measure == "mnn" else "a control"))  # fmt: skip
    lengths = texts.lengths.pivot(index="text", columns="tokens", values="mnn")
    shorter, longer = lengths.columns[0], lengths.columns[-1]
    rise = bootstrap_interval((lengths[longer] - lengths[shorter]).to_numpy())
    claims.append(Claim(f"The norm rises with the length of a text ({longer} tokens less {shorter})", rise, above=0.0,
                        source="the paper's table by length"))  # fmt: skip
    return claims


def _published_claims() -> list[Claim]:
    """Arithmetic over the paper's own tables."""
    ranks = reanalyse()
    worst = {
        (metric, against): Effect.exact(rows["spearman"].min())
        for (metric, against), rows in ranks.groupby(["metric", "against"])
    }
    chat, source = published.chat_models(), "the paper's tables, third party's extraction"
    return [
        *[
            Claim(f"Published: the {NAMED[metric]} ranks models as their {against} does, on every data set (least "
                  "Spearman)", effect, above=AGREES, source=source)
            for (metric, against), effect in worst.items()
        ],
        Claim("Published: the larger chat model of a series has the lower norm (steps at which it rises)",
              Effect.exact(chat["rises"].sum()), below=0.5, source="the paper's tables of chat models"),
    ]  # fmt: skip


def _time_claims(times: pd.DataFrame) -> list[Claim]:
    table, claims = speed(times), []
    printed = published.times().query("family == 'cerebras'")
    for column, words in (("alone", "metric alone"), ("with_forward", "forward included")):
        for baseline in (ENTROPY, GRAM):
            ratios = table.loc[table["baseline"] == baseline, column].to_numpy()
            beside = {"published": float(printed["ratio"].min()), "published_status": printed["status"].iloc[0]}
            same = column == "with_forward" and baseline == ENTROPY  # what the paper timed
            claims.append(Claim(f"The norm is {FASTER:g} times faster than the {baseline} ({words}, times)",
                                t_interval(ratios), above=FASTER, source="the paper's table of times",
                                **(beside if same else {})))  # fmt: skip
    return claims
