"""An interpolated target that walks from student to teacher lets small students profit from ever larger teachers.

Paper: Shing, Misaki, Bao, Yokoi & Akiba 2025, "TAID: Temporally Adaptive Interpolated Distillation for
Efficient Knowledge Transfer in Language Models", ICLR 2025 (arXiv 2501.16937): table 1 (methods), table 3
(probability mass), table 6 (teacher size); two Gaussians in the place of its theory; a real teacher on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from workbench import published
from workbench.claim import Claim
from workbench.errors import check_between, check_positive
from workbench.metrics.uncertainty import Effect, paired_difference, t_interval
from workbench.models.small_lm import named_size
from workbench.profiles import Profiled
from workbench.result import Result
from workbench.training import (
    DistilGrid,
    Teacher,
    TextTask,
    are_pretrained,
    distil_grid,
    distil_pretrained,
    real_teacher,
)
from workbench.training.distil_grid import one_pass
from workbench.training.gaussian_fit import Mixture, fit_gaussian
from workbench.training.named_teachers import named_teachers
from workbench.training.objective import STRIDES, named_objectives

STARTS = ((-2.0, 0.5), (2.0, 0.5), (1.0, 0.5), (0.0, 3.0))  # mean and sd of the toy's student before training
PRETRAINED_LR = 1e-4  # AdamW with a cosine and no warm-up (the paper's code)
TOY_STEPS = 1500
WALK = 0.8  # share of the toy's steps after which its target is the teacher
TRACED = (400, 4000, 16000)  # lengths of training whose t is traced; the paper's is about the last
REAL_MEASURES = ("nats_per_token", "perplexity")  # of the real teacher's students, whose tokens are its own
MEASURES = ("nats", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher", "head_mass", "tail_mass")
TEACHER_SHARE = 2  # a teacher trains so many times as long as a student, so that it has more to say
DKD_BETA = 0.5  # of decoupled KD in the paper's code; its authors' own default is 8
NAMES = {  # the paper's -> ours
    "SFT": "cross_entropy", "KL": "forward_kl", "RKL": "reverse_kl", "TVD": "total_variation",
    "Adaptive KL": "adaptive_kl", "GKD": "generalized_jsd", "DistiLLM": "skew_kl", "CTKD": "curriculum_temperature",
    "DKD": "decoupled_kd", "TAID w/o adaptive update": "taid_linear", "TAID": "taid", "Skew KL": "skew_kl",
}  # fmt: skip
NAMED = {  # ours, as claims call them
    "reverse_kl": "reverse KL", "skew_kl": "skew KL", "forward_kl": "forward KL", "adaptive_kl": "adaptive KL",
    "total_variation": "total variation", "generalized_jsd": "the generalized JSD", "jeffreys": "Jeffreys",
    "curriculum_temperature": "a curriculum temperature", "decoupled_kd": "decoupled KD",
}  # fmt: skip
REAL_SHARE = 8  # a step with a vocabulary of 49,152 costs many small ones: so many times fewer
REAL_SEEDS = 3
REAL_OBJECTIVES = ("cross_entropy", "forward_kl", "taid")


@dataclass(frozen=True)
class Config(Profiled):
    """The defaults are the ``quick`` profile. ``Config.of`` gives the others.

    Raises:
        ValueError: sizes, seeds or objectives that cannot work.
    """

    corpus: str = "shakespeare"  # shakespeare, .txt file or folder, hub:owner/name (paper: UltraChat)
    vocabulary: str = "characters"  # characters, or size of a byte-pair vocabulary; pretrained models have their own
    context: int = 64  # tokens a model sees
    teachers: tuple[str, ...] = ("16x1", "32x1", "64x1", "80x2")  # rising: width x layers or pretrained (paper: Pythia)
    student: str = "16x1"  # width x layers, or a pretrained model (paper: Pythia-70M, table 6)
    objectives: tuple[str, ...] = (
        "forward_kl",
        "reverse_kl",
        "skew_kl",
        "taid",
        "taid_linear",
        "minima",
    )  # losses; taid_linear has no adaptive part, minima is half cross-entropy and half forward KL
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # a student each, the spread is the error bar
    student_steps: int = 300  # optimiser steps of a student, half of a teacher (paper: about 16,000)
    batch_size: int = 4  # windows of text a step (paper: 64)
    t_start: float = 0.2  # where TAID's target starts (paper: 0.2 for two pairs of models, 0.4 for one)
    real_teacher: str = "none"  # none, or a pretrained one for a student of 7 million: short name, folder or hub name
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "teachers": ("16x1", "32x1"), "objectives": ("forward_kl", "reverse_kl", "skew_kl", "taid"),
            "seeds": (0, 1), "student_steps": 10,
        },
        "full": {
            "teachers": ("16x1", "32x1", "64x2", "128x2", "192x3"), "seeds": tuple(range(6)),
            # The methods of table 1, as far as they are losses, and ours of quick.
            "objectives": (
                "forward_kl", "reverse_kl", "total_variation", "adaptive_kl", "generalized_jsd", "skew_kl",
                "curriculum_temperature", "decoupled_kd", "taid", "taid_linear", "minima",
            ),
            "student_steps": 2000, "batch_size": 8, "real_teacher": "smollm2-135m",
        },
        # Table 6: five passes over UltraChat-200k. The paper judges answers, here it is held-out text; teachers are
        # as published, not tuned to the conversations first.
        "paper": {
            "corpus": "hub:HuggingFaceH4/ultrachat_200k:messages", "context": 2048, "seeds": (0, 1, 2),
            "teachers": tuple(f"EleutherAI/pythia-{size}" for size in ("410m", "1b", "2.8b", "6.9b")),
            "student": "EleutherAI/pythia-70m", "student_steps": 16000, "batch_size": 64,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(context=self.context, student_steps=self.student_steps, batch_size=self.batch_size)
        check_between(0, 1, t_start=self.t_start)
        are_pretrained((*self.teachers, self.student))
        if missing := {"forward_kl", "reverse_kl", "skew_kl", "taid"} - set(self.objectives):
            raise ValueError(f"objectives={self.objectives} lacks {sorted(missing)}, which the claims are about.")
        named_objectives(self.objectives, steps=self.student_steps)
        if len(self.teachers) < 2 or not self.seeds:
            raise ValueError("teachers needs at least two entries, seeds at least one.")
        real_teacher.check_real_teacher(self.real_teacher)

    @property
    def task(self) -> TextTask:
        """The text that every model learns."""
        vocabulary = int(self.vocabulary) if self.vocabulary.isdigit() else self.vocabulary
        return TextTask(corpus=self.corpus, vocabulary=vocabulary, context=self.context)


def fit_gaussians(config: Config) -> pd.DataFrame:
    """One Gaussian fitted to two by each loss from four starts: ``objective, start, step, mean, sd, value``."""
    from workbench.losses import forward_kl, generalized_jsd, reverse_kl, taid, total_variation

    config.require_setting()
    losses = {
        "forward KL": lambda student, teacher, share: forward_kl(student, teacher, reduction="none"),
        "reverse KL": lambda student, teacher, share: reverse_kl(student, teacher, reduction="none"),
        "JSD": lambda student, teacher, share: generalized_jsd(student, teacher, reduction="none"),
        "total variation": lambda student, teacher, share: total_variation(student, teacher, reduction="none"),
        "TAID": lambda student, teacher, share: taid(student, teacher, t=min(1.0, share / WALK), reduction="none"),
    }
    fits = [fit_gaussian(loss, STARTS, steps=TOY_STEPS).assign(objective=name) for name, loss in losses.items()]
    return pd.concat(fits, ignore_index=True)


def teacher_density() -> pd.DataFrame:
    """The toy's teacher: ``x`` and ``density``."""
    return Mixture().density()


def trace_schedule(config: Config) -> pd.DataFrame:
    """TAID's ``t`` over runs of several lengths, for a loss that falls and one that rises.

    Returns:
        The columns ``steps`` (length of the run), ``schedule`` (``alpha = 5e-4`` as published,
        ``alpha scaled`` to the length), ``course`` (of the loss), ``step``, ``t`` and ``line``, the
        straight line below which ``t`` never falls.
    """
    tables = [
        _trace(steps, alpha, course, config).assign(steps=steps, schedule=name, course=course)
        for steps in TRACED
        for name, alpha in (("alpha = 5e-4", 5e-4), ("alpha scaled", STRIDES / steps))
        for course in ("falling", "rising")
    ]
    return pd.concat(tables, ignore_index=True)


def _trace(steps: int, alpha: float, course: str, config: Config) -> pd.DataFrame:
    from workbench.losses.taid_trace import trace_t

    way = np.arange(steps + 1) / steps
    losses = 0.5 + 2 * np.exp(-3 * (way if course == "falling" else 1 - way))  # nats
    t = trace_t(losses[1:], t_start=config.t_start, alpha=alpha)
    table = pd.DataFrame({"step": np.arange(steps + 1), "t": t, "line": config.t_start + (1 - config.t_start) * way})
    table = table.round(12)  # the walk is traced in logarithms, exact up to the last digits
    return table.iloc[:: max(1, steps // 200)]


def train_teachers(config: Config) -> list[Teacher]:
    """Language models of rising size, each trained once and kept; pretrained ones are only measured."""
    config.require_setting()
    return named_teachers(
        config.teachers, config.task, steps=TEACHER_SHARE * config.student_steps, batch_size=config.batch_size
    )


def distil_students(config: Config, teachers: list[Teacher]) -> DistilGrid:
    """One student per teacher, objective and seed; all objectives of a seed start equal and see the same text."""
    objectives = named_objectives(
        config.objectives, steps=config.student_steps, t_start=config.t_start, decoupled_beta=DKD_BETA
    )
    size = {"steps": config.student_steps, "batch_size": config.batch_size}
    if are_pretrained(config.teachers):
        return distil_pretrained(
            config.teachers, [config.student], objectives, config.seeds, config.corpus, context=config.context,
            lr=PRETRAINED_LR, **size,
        )  # fmt: skip
    return distil_grid(
        teachers, [named_size(config.student)], objectives, config.seeds, config.task,
        transfer_windows=one_pass(**size), **size,
    )  # fmt: skip


def distil_from_real_teacher(config: Config) -> real_teacher.RealDistillation:
    """Students of 7 million parameters learn from a pretrained teacher of the same vocabulary, or nothing is done.

    From labels alone, from the teacher's 64 likeliest tokens as they are kept on disk, and from its whole
    distribution by forward KL and by TAID; three seeds at most.
    """
    if config.real_teacher == real_teacher.NO_REAL_TEACHER:
        return real_teacher.RealDistillation.empty()
    steps = max(1, config.student_steps // REAL_SHARE)
    objectives = named_objectives(REAL_OBJECTIVES, steps=steps, t_start=config.t_start)
    return real_teacher.distil_real_teacher(
        config.real_teacher,
        config.corpus,
        [*objectives, real_teacher.TOP_K_OBJECTIVE],
        config.seeds[:REAL_SEEDS],
        steps=steps,
    )


def published_methods() -> pd.DataFrame:
    """Table 1 as rows: ``objective``, ``pair``, ``score`` (MT-Bench, 1 to 10), ``source``, ``status``."""
    table = published.load("taid", "table1_instruction_mtbench").rename(columns={"method": "objective"})
    table["objective"] = table["objective"].map(NAMES)
    return table.melt(id_vars=["objective", "source", "status"], var_name="pair", value_name="score")


def beside_table_1(rows: pd.DataFrame) -> pd.DataFrame:
    """Ours with the largest teacher (held-out nats per byte, low is good) beside table 1 (MT-Bench, high is good).

    The numbers are of different things, so both are ranked: 1 is the best among the methods of both.
    """
    largest = _of_largest(rows)
    ours = largest.groupby("objective")["nats"].agg(nats="mean", error="sem", n="count")
    score = published_methods().groupby("objective").agg(mt_bench=("score", "mean"), status=("status", "first"))
    table = ours.join(score, how="inner")
    table["our_rank"] = table["nats"].rank().astype(int)
    table["published_rank"] = table["mt_bench"].rank(ascending=False).astype(int)
    return table.sort_values("published_rank").reset_index().round({"nats": 4, "error": 4, "mt_bench": 2})


def published_teacher_sizes() -> pd.DataFrame:
    """Table 6 as rows: ``objective``, ``teacher_parameters``, ``accuracy`` (per cent), ``source``, ``status``."""
    table = published.load("taid", "table6_teacher_size").rename(columns={"method": "objective"})
    long = table.melt(id_vars=["objective", "source", "status"], var_name="teacher", value_name="accuracy")
    sizes = {"pythia410M": 410e6, "pythia1B": 1e9, "pythia2.8B": 2.8e9, "pythia6.9B": 6.9e9}
    return long.assign(teacher_parameters=long["teacher"].map(sizes))


def conclude(
    config: Config,
    gaussians: pd.DataFrame,
    trace: pd.DataFrame,
    grid: DistilGrid,
    real: real_teacher.RealDistillation | None = None,
) -> Result:
    """What the paper says, judged by these tables."""
    rows = grid.rows.drop(columns=["init", "student", "student_parameters_without_embeddings"])
    claims = [*_toy_claims(gaussians), *_schedule_claims(trace, grid.curves), *_size_claims(rows), *_mass_claims(rows)]
    factors, measures, beside = ["teacher", "teacher_parameters", "objective"], MEASURES, _published_mass(rows)
    curves = grid.curves
    if real is not None and len(real.rows):
        claims += _real_claims(real.rows)
        rows = pd.concat([rows, real.rows[[name for name in real.rows if name in {*rows, *REAL_MEASURES}]]])
        curves = pd.concat([curves, real.curves])
        measures = (*MEASURES, *REAL_MEASURES)
    return Result("taid", config, rows.reset_index(drop=True), curves.reset_index(drop=True), claims, by=factors,
                  measures=measures, published=beside)  # fmt: skip


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    gaussians, trace = fit_gaussians(config), trace_schedule(config)
    grid = distil_students(config, train_teachers(config))
    return conclude(config, gaussians, trace, grid, distil_from_real_teacher(config))


def _toy_claims(gaussians: pd.DataFrame) -> list[Claim]:
    mixture = Mixture()
    ends = gaussians[gaussians["step"] == gaussians["step"].max()]
    taid = ends[ends["objective"] == "TAID"]
    miss = np.hypot(taid["mean"] - mixture.mean, taid["sd"] - mixture.spread).max()
    narrow = ends[(ends["objective"] == "reverse KL") & ends["start"].str.endswith("sd 0.5")]
    away = np.minimum((narrow["mean"] - mixture.left).abs(), (narrow["mean"] - mixture.right).abs()).max()
    return [
        Claim("TAID does not collapse: from every start the toy's student ends at the teacher's moments (distance)",
              Effect.exact(miss), below=0.05, source="theory, here a toy", gating=True),
        Claim("Reverse KL collapses: from narrow starts the toy's student ends at one mode (distance)",
              Effect.exact(away), below=0.05, source="mode collapse, here a toy", gating=True),
    ]  # fmt: skip


def _schedule_claims(trace: pd.DataFrame, curves: pd.DataFrame) -> list[Claim]:
    walked = curves[(curves["objective"] == "taid") & (curves["quantity"] == "t")]
    strides = walked.sort_values("step").groupby(["teacher", "seed"])["value"].diff().dropna()
    moving = trace[trace["step"] != 1]  # the first update only stores the loss
    least = min((moving["t"] - moving["line"]).min(), strides.min())
    shortest = trace["steps"].min()
    ahead = (trace["t"] - trace["line"]).groupby([trace["steps"], trace["schedule"]]).max()
    wide = trace.pivot(index=["steps", "schedule", "step"], columns="course", values="t")
    apart = (wide["falling"] - wide["rising"]).abs().max()
    return [
        Claim("t never falls and never lags behind the straight line (smallest stride or lead)",
              Effect.exact(least), above=-1e-9, source="the adaptive update", gating=True),
        Claim(f"With the published alpha, the adaptive t leaves the line in a run of {shortest} steps (largest lead)",
              Effect.exact(ahead[shortest, "alpha = 5e-4"]), above=0.01, source="the adaptive update"),
        Claim(f"With alpha scaled to the run, the adaptive t leaves the line in a run of {shortest} steps",
              Effect.exact(ahead[shortest, "alpha scaled"]), above=0.01, source="the adaptive update"),
        Claim("The adaptive t tells a falling loss from a rising one (largest distance of t)",
              Effect.exact(apart), above=0.01, source="the adaptive update"),
    ]  # fmt: skip


def _size_claims(rows: pd.DataFrame) -> list[Claim]:
    """Differences are in held-out nats per byte, of the student of the largest teacher where not said otherwise."""
    largest = _of_largest(rows)

    def gap(first: str, second: str) -> Effect:
        return paired_difference(largest, first, second, value="nats", by="objective")

    claims = [
        Claim(f"With the largest teacher, TAID beats {told}", gap("taid", name), below=0.0,
              source="table 6" if name == "skew_kl" else "table 1", gating=name == "reverse_kl")
        for name, told in NAMED.items() if name in set(largest["objective"])
    ]  # fmt: skip
    claims += [
        Claim("TAID gets better as the teacher grows (nats per tenfold size)", growth(rows, "taid"), below=0.0,
              source="table 6"),
        Claim("Skew KL gets worse as the teacher grows (nats per tenfold size)", growth(rows, "skew_kl"), above=0.0,
              source="table 6"),
    ]  # fmt: skip
    if "taid_linear" in set(rows["objective"]):
        claims.append(Claim("The adaptive update beats the straight line", gap("taid", "taid_linear"), below=0.0,
                            source="table 1"))  # fmt: skip
    return claims


def _real_claims(rows: pd.DataFrame) -> list[Claim]:
    """Differences are in held-out nats per byte between students of the real teacher, paired by seed."""

    def gap(first: str, second: str, measure: str = "nats") -> Effect:
        return paired_difference(rows, first, second, value=measure, by="objective")

    name, source = rows["teacher"].iloc[0], "table 1, here a real teacher on Shakespeare"
    return [
        Claim(f"A student of {name} learns more from its distribution (forward KL) than from the text alone",
              gap("forward_kl", "cross_entropy"), below=0.0, source=source),
        Claim(f"A student of {name} learns more by TAID than by forward KL", gap("taid", "forward_kl"), below=0.0,
              source=source),
        Claim(f"The 64 likeliest tokens of {name} teach as much as its whole distribution, to 0.02 nats per byte",
              gap("topk_kl", "forward_kl"), below=0.02, source="what a teacher kept on disk loses"),
        Claim(f"The 64 likeliest tokens of {name} bring a student less near to it than the whole distribution "
              "(KL to the teacher, nats per token)",
              gap("topk_kl", "forward_kl", "kl_to_teacher"), above=0.0, source="what a teacher kept on disk loses"),
    ]  # fmt: skip


def growth(rows: pd.DataFrame, objective: str) -> Effect:
    """Slope of held-out nats per byte over log10 of the teacher's size, per seed; t interval over seeds."""
    chosen = rows[rows["objective"] == objective]
    wide = chosen.pivot(index="teacher_parameters", columns="seed", values="nats").dropna(axis="columns")
    return t_interval(np.polyfit(np.log10(wide.index.to_numpy(dtype=float)), wide.to_numpy(), 1)[0])


def _mass_claims(rows: pd.DataFrame) -> list[Claim]:
    largest = _of_largest(rows)

    def gap(first: str, second: str, measure: str) -> Effect:
        return paired_difference(largest, first, second, value=measure, by="objective")

    return [
        Claim("Reverse KL leaves less mass in the teacher's tail than forward KL",
              gap("reverse_kl", "forward_kl", "tail_mass"), below=0.0, source="table 3"),
        Claim("Reverse KL puts more mass on the teacher's ten best tokens than forward KL",
              gap("reverse_kl", "forward_kl", "head_mass"), above=0.0, source="table 3"),
        Claim("TAID keeps more mass in the teacher's tail than reverse KL",
              gap("taid", "reverse_kl", "tail_mass"), above=0.0, source="table 3"),
    ]  # fmt: skip


def _of_largest(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["teacher_parameters"] == rows["teacher_parameters"].max()]


def _published_mass(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 3 beside the students of the largest teacher, in the form that ``Result`` joins."""
    table = published.load("taid", "table3_probability_mass").rename(
        columns={"head_top10_mass": "head_mass", "tail_p80_100_mass": "tail_mass"}
    )
    long = table.melt(id_vars=["method", "source", "status"], var_name="measure", value_name="published")
    long["objective"], long["teacher"] = long["method"].map(NAMES), _of_largest(rows)["teacher"].iloc[0]
    return long.drop(columns="method")
