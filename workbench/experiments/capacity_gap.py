"""The best teacher of a student is about 2.5 times its size, and a larger one makes a worse student.

Paper: Zhang, Li, Song, Ye & Gao 2025, "Towards the Law of Capacity Gap in Distilling Language Models",
ACL 2025 (arXiv 2311.07052): the curse (U-curves over teacher scales), the law (a line through the
optima), MiniMA's benchmarks and the compute-performance front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from workbench import published
from workbench.claim import Claim
from workbench.errors import check_choice, check_positive
from workbench.metrics.capacity_gap import CapacityGapLaw, fit_u_curve
from workbench.metrics.uncertainty import Effect, paired_difference
from workbench.models.small_lm import named_size
from workbench.profiles import Profiled
from workbench.published.benchmarks import mean_scores
from workbench.result import Result
from workbench.training import (
    DistilGrid,
    Teacher,
    TextTask,
    TrainedModel,
    are_pretrained,
    distil_grid,
    distil_pretrained,
)
from workbench.training.distil_grid import one_pass
from workbench.training.named_teachers import named_teachers
from workbench.training.objective import named_objectives

PRETRAINED_LR, PRETRAINED_WARMUP, PRETRAINED_DECAY = 3e-4, 0.01, 0.1  # MiniMA's training script, cosine
T_START = 0.2  # where TAID's target starts
PAPERS_OBJECTIVE = "minima"  # the law was found with it
LAW_RATIO = 2.5  # the paper's rounded answer
MEASURES = ("nats", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher")


@dataclass(frozen=True)
class Config(Profiled):
    """The defaults are the ``quick`` profile. ``Config.of`` gives the others.

    Raises:
        ValueError: sizes, seeds or objectives that cannot work.
    """

    corpus: str = "shakespeare"  # shakespeare, .txt file or folder, hub:owner/name (paper: OpenWebText)
    vocabulary: str = "characters"  # characters, or size of a byte-pair vocabulary; pretrained models have their own
    context: int = 64  # tokens a model sees (paper: 4096 for MiniMA)
    teachers: tuple[str, ...] = ("12x1", "32x1", "64x1", "80x2")  # rising: width x layers or pretrained (paper: GPT2)
    students: tuple[str, ...] = ("16x1",)  # width x layers, rising, or pretrained models
    objectives: tuple[str, ...] = (
        "cross_entropy",
        "forward_kl",
        "reverse_kl",
        "skew_kl",
        "taid",
        "minima",
    )  # losses; cross_entropy has no teacher, minima is half of it and half forward KL
    inits: tuple[str, ...] = ("random",)  # how a student starts: random, pruned from its teacher (the paper's), given
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # a student each, the spread is the error bar
    teacher_steps: int = 600  # optimiser steps of a teacher
    student_steps: int = 300  # optimiser steps of a student
    batch_size: int = 4  # windows of text a step (paper: 1024 for MiniMA)
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "teachers": ("12x1", "16x1", "32x1"), "seeds": (0, 1), "teacher_steps": 20, "student_steps": 10,
            "objectives": ("cross_entropy", "forward_kl", "reverse_kl", "minima"),
        },
        "full": {
            "teachers": ("12x1", "16x1", "32x1", "48x2", "64x2", "96x3", "160x3"),
            "students": ("16x1", "32x1", "48x2"), "inits": ("random", "pruned"),
            "objectives": (
                "cross_entropy", "forward_kl", "reverse_kl", "skew_kl", "generalized_jsd", "adaptive_kl",
                "taid", "minima",
            ),
            "teacher_steps": 4000, "student_steps": 1000,
        },
        # The paper prunes GPT2's students from their teachers and reads all of OpenWebText once. Here only a Llama can
        # be pruned, so students are the family's own smaller members as published, and read the first GB once.
        "paper": {
            "corpus": "hub:Skylion007/openwebtext", "context": 1024, "seeds": (0, 1, 2),
            "teachers": tuple(f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")),
            "students": ("openai-community/gpt2", "openai-community/gpt2-medium"), "inits": ("given",),
            "student_steps": 4000, "batch_size": 64,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(
            context=self.context, teacher_steps=self.teacher_steps, student_steps=self.student_steps,
            batch_size=self.batch_size,
        )  # fmt: skip
        pretrained = are_pretrained((*self.teachers, *self.students))
        for init in self.inits:
            check_choice("inits", init, ("random", "pruned", "given") if pretrained else ("random", "pruned"))
        named_objectives(self.objectives, steps=self.student_steps)
        if missing := {"forward_kl", "reverse_kl", "minima"} - set(self.objectives):
            raise ValueError(f"objectives={self.objectives} lacks {sorted(missing)}, which the claims are about.")
        if len(self.teachers) < 3 or not self.students or not self.seeds or not self.inits:
            raise ValueError("teachers needs at least three entries for a valley; students, seeds and inits one entry.")

    @property
    def task(self) -> TextTask:
        """The text that every model learns."""
        vocabulary = int(self.vocabulary) if self.vocabulary.isdigit() else self.vocabulary
        return TextTask(corpus=self.corpus, vocabulary=vocabulary, context=self.context)


def train_teachers(config: Config) -> list[Teacher]:
    """Language models of rising size, each trained once and kept; pretrained ones are only measured."""
    config.require_setting()
    return named_teachers(config.teachers, config.task, steps=config.teacher_steps, batch_size=config.batch_size)


def distil_students(config: Config, teachers: list[Teacher]) -> DistilGrid:
    """One student per teacher, size, start, objective and seed.

    Pruned starts are the paper's and are trained by the paper's objective alone, each from a larger teacher.
    """
    objectives = named_objectives(config.objectives, steps=config.student_steps, t_start=T_START)
    wanted = {
        init: [
            objective
            for objective in objectives
            if (init != "pruned" or objective.name == PAPERS_OBJECTIVE or not objective.needs_teacher)
            # What needs no teacher is trained once, not once per start.
            and (init == config.inits[0] or objective.needs_teacher)
        ]
        for init in config.inits
    }
    grids = []
    for init in config.inits:
        if are_pretrained(config.students):
            grids.append(_pretrained_grid(config, wanted[init], init))
            continue
        for size in map(named_size, config.students):
            fitting = teachers if init == "random" else [teacher for teacher in teachers if _contains(teacher, size)]
            if fitting:
                grids.append(_one_grid(config, fitting, size, wanted[init], init))
    rows, curves = (pd.concat(tables, ignore_index=True) for tables in zip(*grids, strict=True))
    return DistilGrid(rows, curves)


def _one_grid(config: Config, teachers: list[TrainedModel], size: Any, objectives: list, init: str) -> tuple:
    length = {"steps": config.student_steps, "batch_size": config.batch_size}
    grid = distil_grid(
        teachers, [size], objectives, config.seeds, config.task, init=init, transfer_windows=one_pass(**length),
        label=f"students {size.name}, {init}", **length,
    )  # fmt: skip
    return grid.rows, grid.curves


def _pretrained_grid(config: Config, objectives: list, init: str) -> tuple:
    grid = distil_pretrained(
        config.teachers, config.students, objectives, config.seeds, config.corpus, steps=config.student_steps,
        batch_size=config.batch_size, context=config.context, lr=PRETRAINED_LR, warmup=PRETRAINED_WARMUP,
        weight_decay=PRETRAINED_DECAY, init=init,
    )  # fmt: skip
    return grid.rows, grid.curves


def _contains(teacher: TrainedModel, student: Any) -> bool:
    """Whether heads, neurons and channels of ``teacher`` suffice for a smaller model of size ``student``."""
    mine, wanted = teacher.size, student
    parts = ("width", "layers", "heads", "feed_forward")
    fits = mine.head_width == wanted.head_width and all(getattr(mine, x) >= getattr(wanted, x) for x in parts)
    return fits and mine != wanted


def locate_optima(config: Config, grid: DistilGrid, *, size: str = "teacher_parameters") -> pd.DataFrame:
    """Where each student's held-out loss is lowest along teacher sizes, one row per student, start and objective.

    Args:
        size: ``teacher_parameters`` (the law's), or ``teacher_parameters_without_embeddings``.

    Returns:
        The columns ``student``, ``student_size``, ``init``, ``objective``, ``best_tried``, ``estimate``,
        ``low``, ``high`` (teacher sizes; bootstrap over seeds), ``ratio`` and ``kind``: ``interior``,
        ``edge of range`` or ``undecided``. An interior one is the vertex of the parabola with its
        bootstrap interval; any other is the best size tried, and its interval goes from the nearest
        worse size below it (0 if none is) to the nearest above (infinity if none is).

    Raises:
        UnknownName: another ``size``.
    """
    check_choice("size", size, ("teacher_parameters", "teacher_parameters_without_embeddings"))
    taught = grid.rows[grid.rows["teacher"] != "none"]
    sizes = taught[size]
    student_size = size.replace("teacher", "student")
    optima = []
    for (student, parameters, init, objective), rows in taught.groupby(
        ["student", student_size, "init", "objective"], sort=False
    ):
        if rows[size].nunique() < 3:  # pruned starts have fewer teachers
            continue
        curve = fit_u_curve(rows, size=size, value="nats")
        best = curve.optimum
        # Where the parabola's vertex is no optimum, the best size tried and those that are worse are all that is known.
        inside = curve.kind == "interior"
        estimate = best.estimate if inside else curve.best_tried
        low, high = (best.low, best.high) if inside else curve.bracket
        optima.append((student, parameters, init, objective, curve.best_tried, estimate, low, high,
                       estimate / parameters, curve.kind, best.n))  # fmt: skip
    columns = ["student", "student_size", "init", "objective", "best_tried", "estimate", "low", "high", "ratio",
               "kind", "n"]  # fmt: skip
    return pd.DataFrame(optima, columns=columns).assign(smallest=sizes.min(), largest=sizes.max())


def fit_law(config: Config, optima: pd.DataFrame) -> pd.DataFrame:
    """A line through best teacher size against student size per start and objective, where there are two students.

    Only ``interior`` optima count; with fewer than two of them there is no line and its numbers are NaN.

    Returns:
        The columns ``init``, ``objective``, ``slope``, ``low``, ``high`` (t interval, NaN for two
        optima), ``intercept``, ``r_squared``, ``students`` and ``interior``, how many of them have an
        optimum. Empty where there is one student.
    """
    fits = []
    for (init, objective), points in optima.groupby(["init", "objective"], sort=False):
        if len(points) < 2:  # one row per student
            continue
        inside = points[points["kind"] == "interior"]
        line = [float("nan")] * 5
        if len(inside) > 1:
            law = CapacityGapLaw.fit(inside[["student_size", "estimate"]].to_numpy(), unit="")
            line = [law.slope, law.slope_interval.low, law.slope_interval.high, law.intercept, law.r_squared]
        fits.append((init, objective, *line, len(points), len(inside)))
    columns = ["init", "objective", "slope", "low", "high", "intercept", "r_squared", "students", "interior"]
    return pd.DataFrame(fits, columns=columns)


def conclude(
    config: Config, teachers: list[Teacher], grid: DistilGrid, optima: pd.DataFrame, law: pd.DataFrame
) -> Result:
    """What the paper says, judged by these tables."""
    rows = grid.rows
    claims = [*_ladder_claims(teachers), *_curse_claims(rows), *_ratio_claims(optima), *_law_claims(law),
              *_start_claims(rows), *_published_claims()]  # fmt: skip
    factors = ["student", "teacher", "ratio", "init", "objective"]
    return Result("capacity_gap", config, rows, grid.curves, claims, by=factors, measures=MEASURES)


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    teachers = train_teachers(config)
    grid = distil_students(config, teachers)
    optima = locate_optima(config, grid)
    return conclude(config, teachers, grid, optima, fit_law(config, optima))


def _ladder_claims(teachers: list[Teacher]) -> list[Claim]:
    nats = np.array([teacher.held_out_nats for teacher in teachers])
    return [Claim("Every larger teacher predicts held-out text better (largest step in nats per byte; one ladder)",
                  Effect.exact(np.diff(nats).max()), below=0.0, source="the teachers")]  # fmt: skip


def _curse_claims(rows: pd.DataFrame) -> list[Claim]:
    """Differences of held-out nats per byte, paired by student and seed, from random starts."""
    placed = _place(rows[(rows["teacher"] != "none") & (rows["init"] == rows["init"].iloc[0])])
    claims = []
    for objective, some in placed.groupby("objective", sort=False):
        places = set(some["place"])

        def gap(first: str, some: pd.DataFrame = some) -> Effect:
            return paired_difference(some, first, "near", value="nats", by="place", on=["student", "seed"])

        other = f"worse than that of a teacher about {LAW_RATIO:g} times its size"
        if "far" in places:
            claims.append(Claim(f"Curse ({objective}): the student of the largest teacher is {other}", gap("far"),
                                above=0.0, source="the curse"))  # fmt: skip
        if "small" in places:
            claims.append(Claim(f"Gain ({objective}): the student of a teacher smaller than itself is {other}",
                                gap("small"), above=0.0, source="the curse",
                                gating=objective == "forward_kl"))  # fmt: skip
    return claims


def _place(rows: pd.DataFrame) -> pd.DataFrame:
    """Each student's teachers called ``near`` (about 2.5 times its size), ``far`` (the largest) or ``small``."""
    parts = []
    for _, some in rows.groupby("student", sort=False):
        ratios = some["ratio"].drop_duplicates()
        near = ratios.loc[(np.log(ratios / LAW_RATIO)).abs().idxmin()]
        names = {near: "near"}
        if ratios.max() > near:
            names[ratios.max()] = "far"
        if ratios.min() < 1:
            names[ratios.min()] = "small"
        parts.append(some.assign(place=some["ratio"].map(names)).dropna(subset="place"))
    return pd.concat(parts, ignore_index=True)


def _ratio_claims(optima: pd.DataFrame) -> list[Claim]:
    slope = published.load("capacity_gap", "law_fit").set_index("quantity").loc["rounded_ratio"]
    shown = optima[optima["objective"] == PAPERS_OBJECTIVE]
    return [
        Claim(f"The best teacher of student {row.student} ({row.init} start) is 2 to 3 times its size",
              Effect(row.ratio, row.low / row.student_size, row.high / row.student_size, row.n), above=2.0, below=3.0,
              source="the law", published=float(slope["value"]), published_status=slope["status"])
        for row in shown.itertuples()
    ]  # fmt: skip


def _law_claims(law: pd.DataFrame) -> list[Claim]:
    line = published.load("capacity_gap", "law_fit").set_index("quantity").loc["slope"]
    return [
        Claim(f"The best teacher's size grows as 2 to 3 times the student's ({row.init} start: slope)",
              Effect(row.slope, row.low, row.high, row.interior), above=2.0, below=3.0, source="the law",
              published=float(line["value"]), published_status=line["status"])
        for row in law[law["objective"] == PAPERS_OBJECTIVE].itertuples()
    ]  # fmt: skip


def _start_claims(rows: pd.DataFrame) -> list[Claim]:
    shared = rows[(rows["objective"] == PAPERS_OBJECTIVE) & (rows["teacher"] != "none")]
    others = {"random": "from random weights", "given": "as it was published"}
    return [
        Claim(f"A student pruned from its teacher ends better than one that starts {words} (minima)",
              paired_difference(shared, "pruned", other, value="nats", by="init", on=["student", "teacher", "seed"]),
              below=0.0, source="pruned students")
        for other, words in others.items()
        if {"pruned", other} <= set(shared["init"])
    ]  # fmt: skip


def _published_claims() -> list[Claim]:
    """Arithmetic over the paper's own numbers."""
    models = mean_scores()
    minima = models.set_index("model").loc["MiniMA-3B"]
    cheaper = models[(models["compute"] <= minima["compute"]) & (models["model"] != "MiniMA-3B")]
    fit = published.load("capacity_gap", "law_fit").set_index("quantity")["value"]
    predicted = CapacityGapLaw(fit["slope"], fit["intercept"]).optimal_teacher(fit["extrapolation_student"])
    return [
        Claim("MiniMA-3B is ahead of every published model of no more compute (mean of six benchmarks, points)",
              Effect.exact(minima["mean"] - cheaper["mean"].max()), above=0.0, source="MiniMA's table", gating=True),
        Claim("The 7B teacher of MiniMA-3B is the one its law asks for (teacher's size over the law's)",
              Effect.exact(fit["extrapolation_teacher"] / predicted), above=0.9, below=1.1, source="the law"),
    ]  # fmt: skip
