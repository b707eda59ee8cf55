"""A student that may ask and a teacher that answers share more than a student who only looks at hidden states.

Paper: "Talking Models: Distill Pre-trained Knowledge to Downstream Models via Interactive Communication" (arXiv
2310.03188), which published no code. This is a reconstruction; none of the paper's numbers was read, so none stands
beside ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from workbench.claim import Claim
from workbench.errors import check_positive
from workbench.metrics.uncertainty import Effect, paired_difference, t_interval
from workbench.profiles import Profiled
from workbench.result import Result
from workbench.training.downstream import (
    DIGIT_TASKS,
    Downstream,
    PreparedTexts,
    digits_task,
    prepare_texts,
    task_and_teacher,
    text_task,
)
from workbench.training.interactive import TERMS
from workbench.training.interactive_grid import (
    DIGITS_ONLY,
    HINT,
    HINT_MODULES,
    KD,
    LABELS,
    METHODS,
    PROBE,
    SELF_TALK,
    TALK,
    TRAINED,
    UNTRAINED,
    WITHOUT,
    Cell,
    Found,
    Setting,
    talk_grid,
)

CONTROL = "halves"  # the negative control: few noisy images, none without a label
CONTROL_METHODS = (LABELS, HINT, TALK, PROBE)
MANY_ROUNDS = ("parity", "genre")  # one task of digits and one of text are enough to see what rounds do
NO_EFFECT = 0.05  # accuracy; a control whose interval lies within this shows no effect
KEPT = 0.01  # accuracy on its own task that a teacher may lose and still count as kept
SOURCE = "the paper's claim, in our reconstruction"
REVIEW = "a question of the paper's reviewers"


@dataclass(frozen=True)
class Config(Profiled):
    """The defaults are the ``quick`` profile. ``Config.of`` gives the others.

    Raises:
        ValueError: tasks, sizes or seeds that cannot work.
    """

    tasks: tuple[str, ...] = ("parity", "halves", "genre", "speaker")  # digits or text, task@model names a teacher
    corpus: str = "shakespeare"  # whose plays genre and speaker are about, or a folder of plays
    teacher: str = "minilm"  # of texts: a short name, a folder or owner/name on the hub
    texts: int = 400  # passages or speeches of a text task at most
    label_counts: tuple[int, ...] = (20, 80)  # labelled inputs of a student, rising
    rounds: tuple[int, ...] = (1,)  # questions that a student asks per input
    message_dim: int = 32  # numbers in a message
    steps: int = 400  # optimiser steps of a student of digits
    text_steps: int = 115  # optimiser steps of a student of texts
    batch_size: int = 16  # inputs a step, half with and half without label
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # data split, labels and first weights, the spread is the error bar
    profile: str = "quick"  # smoke, quick, full or paper

    profiles: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "tasks": ("parity", "halves", "genre"), "texts": 60, "label_counts": (12,), "steps": 8, "text_steps": 4,
            "seeds": (0, 1),
        },
        "full": {
            "tasks": ("parity", "halves", "genre", "speaker", "genre@smollm2-135m"), "texts": 500,
            "label_counts": (20, 80, 320), "rounds": (1, 2, 3), "steps": 1000, "text_steps": 450,
            "seeds": tuple(range(10)),
        },
        # The paper's own data (films by their ratings, photographs) are not among ours: name a folder of texts.
        "paper": {
            "teacher": "BAAI/bge-large-en-v1.5", "texts": 6000, "label_counts": (20, 80, 320, 1280),
            "rounds": (1, 2, 3), "message_dim": 256, "steps": 3000, "text_steps": 3000, "batch_size": 128,
            "seeds": tuple(range(10)),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(
            texts=self.texts, message_dim=self.message_dim, steps=self.steps, text_steps=self.text_steps,
            batch_size=self.batch_size,
            **{f"label_counts[{place}]": count for place, count in enumerate(self.label_counts)},
            **{f"rounds[{place}]": count for place, count in enumerate(self.rounds)},
        )  # fmt: skip
        for task in self.tasks:
            task_and_teacher(task, self.teacher)
        if "parity" not in self.tasks:
            raise ValueError(f"tasks={self.tasks} lacks 'parity', whose teacher the claims about teachers need.")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks={self.tasks} names a task twice.")
        if not self.seeds or not self.label_counts or list(self.label_counts) != sorted(set(self.label_counts)):
            raise ValueError(f"label_counts={self.label_counts} must rise, and seeds={self.seeds} must not be empty.")
        if not self.rounds or self.rounds[0] != 1 or list(self.rounds) != sorted(set(self.rounds)):
            raise ValueError(f"rounds={self.rounds} must rise and begin with 1, the talk that the others are held to.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size} must be at least 2: half of it has labels, half has none.")


def prepare(config: Config) -> dict[str, PreparedTexts | None]:
    """Every task's texts with what its teacher's layers say of them, computed once and kept; None for digits."""
    config.require_setting()
    named = {task: task_and_teacher(task, config.teacher) for task in config.tasks}
    wanted = {task: pair for task, pair in named.items() if pair[0] not in DIGIT_TASKS}
    found = prepare_texts(list(wanted.values()), corpus=config.corpus, texts=config.texts)
    return dict.fromkeys(config.tasks) | dict(zip(wanted, found, strict=True))


def load_task(config: Config, prepared: dict[str, PreparedTexts | None], task: str) -> Downstream:
    """One task with its teacher and the data of every seed, to look at."""
    texts = prepared[task]
    return digits_task(task, config.seeds) if texts is None else text_task(texts, config.seeds)


def describe(config: Config, prepared: dict[str, PreparedTexts | None]) -> pd.DataFrame:
    """One row per task: classes, how many inputs train and test the first seed, and what guessing would get."""
    rows = []
    for task in config.tasks:
        loaded = load_task(config, prepared, task)
        draw = loaded.draws[0]
        answers = draw.labels[draw.test]
        rows.append({
            "task": task, "classes": loaded.classes, "training inputs": len(draw.pool), "test inputs": len(draw.test),
            "unlabelled inputs": "yes" if loaded.unlabelled else "no",
            "most frequent class": float(answers.bincount().max() / len(answers)),
            "teacher's width": loaded.teacher.hidden_dim,
        })  # fmt: skip
    return pd.DataFrame(rows)


def example_texts(prepared: dict[str, PreparedTexts | None], task: str, count: int = 2) -> pd.DataFrame:
    """Some texts of each label as the student and the teacher read them: ``label, text, group``."""
    texts = pd.DataFrame([vars(text) for text in prepared[task].texts])
    return texts.groupby("label").head(count).reset_index(drop=True)


def methods_of(config: Config, task: str) -> list[tuple[str, int]]:
    """``(method, rounds)`` of every student that ``task`` is taught to."""
    if task == CONTROL:
        return [(method, 1) for method in CONTROL_METHODS]
    chosen = [(method, 1) for method in METHODS if method not in DIGITS_ONLY or task == "parity"]
    more = config.rounds[1:] if task in MANY_ROUNDS else ()
    return chosen + [(TALK, count) for count in more]


def teach_students(config: Config, prepared: dict[str, PreparedTexts | None]) -> Found:
    """Every method on every task; the students of one seed and label count start alike and see the same labels."""
    sizes = {"batch_size": config.batch_size, "message_dim": config.message_dim}
    digits, texts = Setting(steps=config.steps, **sizes), Setting(steps=config.text_steps, **sizes)
    cells = [
        Cell(
            task, method, rounds, config.label_counts, config.seeds, texts if prepared[task] else digits, prepared[task]
        )
        for task in config.tasks
        for method, rounds in methods_of(config, task)
    ]
    # The longest first, so that no core waits for one that began last.
    order = sorted(range(len(cells)), key=lambda place: -_cost(cells[place]))
    found = talk_grid([cells[place] for place in order])
    ranks = {name: place for names in (config.tasks, METHODS) for place, name in enumerate(names)}
    return Found(*(_sorted(table, ranks) for table in (found.rows, found.curves, found.messages)))


def conclude(config: Config, found: Found) -> Result:
    """What the paper says, judged by these tables."""
    claims = [*_knowledge_claims(found.rows), *_term_claims(found.rows), *_control_claims(found.rows)]
    factors = ["task", "method", "rounds", "labels", "parameters", "added_parameters"]
    return Result(
        "talking_models", config, found.rows, found.curves, claims, by=factors,
        measures=["accuracy", "teacher_accuracy", "deployment_gap"],
    )  # fmt: skip


def run(config: Config | None = None) -> Result:
    """The notebook's steps in the notebook's order."""
    config = config or Config()
    return conclude(config, teach_students(config, prepare(config)))


def over_label_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over the label counts: one row per task, method, rounds and seed, which claims pair over seeds."""
    keys = ["task", "method", "rounds", "seed"]
    return rows.groupby(keys, sort=False, as_index=False)[["accuracy", "teacher_accuracy"]].mean()


def differences(rows: pd.DataFrame, against: str = LABELS) -> pd.DataFrame:
    """Accuracy of every method less that of ``against``, per task and seed, over all label counts; one round."""
    means = over_label_counts(rows[rows["rounds"] == 1])
    base = means[means["method"] == against].set_index(["task", "seed"])["accuracy"]
    others = means[means["method"] != against].copy()
    others["gain"] = others["accuracy"] - base.reindex(pd.MultiIndex.from_frame(others[["task", "seed"]])).to_numpy()
    return others


def _gain(rows: pd.DataFrame, first: str, second: str) -> Effect:
    return paired_difference(rows, first, second, value="accuracy", by="method")


def _knowledge_claims(rows: pd.DataFrame) -> list[Claim]:
    """Differences of test accuracy, per task; first whether there is anything to be learned from the teacher."""
    claims = []
    for task, of_task in over_label_counts(rows[rows["rounds"] == 1]).groupby("task", sort=False):
        if task == CONTROL:
            continue
        claims += [
            Claim(f"{task}: the teacher knows more than labels teach (probe against labels only)",
                  _gain(of_task, PROBE, LABELS), above=0.0, source="a condition of the experiment",
                  gating=task in ("parity", "genre")),
            Claim(f"{task}: hints beat labels only", _gain(of_task, HINT, LABELS), above=0.0, source=SOURCE),
            Claim(f"{task}: talking beats labels only", _gain(of_task, TALK, LABELS), above=0.0, source=SOURCE),
            Claim(f"{task}: talking beats hints", _gain(of_task, TALK, HINT), above=0.0, source=SOURCE),
        ]  # fmt: skip
    return claims


def _term_claims(rows: pd.DataFrame) -> list[Claim]:
    """Means over the tasks of one seed, so that a seed counts once."""
    means = over_label_counts(rows[(rows["rounds"] == 1) & (rows["task"] != CONTROL)])
    shared = means.groupby(["method", "seed"], as_index=False, sort=False)["accuracy"].mean()
    claims = [
        Claim(f"All tasks: the term {term} helps (talk against talk without it)",
              _gain(shared, TALK, WITHOUT[term]), above=0.0, source="the paper's ablation, as reviewers report it")
        for term in TERMS
    ]  # fmt: skip
    claims += [
        Claim("All tasks: talking beats hints through the same modules", _gain(shared, TALK, HINT_MODULES), above=0.0,
              source=REVIEW),
        Claim("All tasks: talking beats the same modules without a teacher", _gain(shared, TALK, SELF_TALK), above=0.0,
              source=REVIEW),
        Claim("All tasks: talking beats soft labels of a probe of the teacher", _gain(shared, TALK, KD), above=0.0,
              source=REVIEW),
    ]  # fmt: skip
    talked = over_label_counts(rows[(rows["method"] == TALK) & rows["task"].isin(MANY_ROUNDS)])
    most = talked["rounds"].max()
    if most > 1:
        by_rounds = talked.groupby(["rounds", "seed"], as_index=False)["accuracy"].mean()
        more = by_rounds.pivot(index="seed", columns="rounds", values="accuracy")
        where = " and ".join(dict.fromkeys(talked["task"]))
        more_rounds = t_interval(more[most] - more[1])
        claims.append(Claim(f"{where}: {most} rounds beat one", more_rounds, above=0.0, source=REVIEW))
    return claims


def _control_claims(rows: pd.DataFrame) -> list[Claim]:
    means = over_label_counts(rows[rows["rounds"] == 1])
    parity = means[means["task"] == "parity"]
    claims = [
        Claim("Without its modules the deployed student answers as before (largest difference of logits)",
              Effect.exact(rows["deployment_gap"].max()), below=1e-4, source="by construction", gating=True),
        Claim("parity: a teacher that learned beats one with random weights (both talk)",
              _gain(parity, TALK, UNTRAINED), above=0.0, source="negative control"),
    ]  # fmt: skip
    if CONTROL in set(means["task"]):
        claims.append(Claim("Negative control (few noisy digits, none unlabelled): talking changes nothing",
                            _gain(means[means["task"] == CONTROL], TALK, LABELS), above=-NO_EFFECT, below=NO_EFFECT,
                            source="negative control"))  # fmt: skip
    if TRAINED in set(parity["method"]):
        lost = paired_difference(parity, TRAINED, TALK, value="teacher_accuracy", by="method")
        claims += [
            Claim("parity: a teacher that learns, too, beats a frozen one", _gain(parity, TRAINED, TALK), above=0.0,
                  source=REVIEW),
            Claim("parity: a teacher that learns, too, keeps its accuracy on its own task", lost, above=-KEPT,
                  source=REVIEW),
        ]  # fmt: skip
    return claims


def _cost(cell: Cell) -> float:
    wide = 1.0 if cell.texts is None else 8.0
    return wide * cell.rounds * (1.0 if cell.method in (LABELS, PROBE, KD, HINT, WITHOUT["interact"]) else 3.0)


def _sorted(table: pd.DataFrame, ranks: dict[str, int]) -> pd.DataFrame:
    """Rows in the config's order, whatever cell came first; stable within a cell."""
    keys = [name for name in ("task", "method", "rounds") if name in table.columns]
    return table.sort_values(keys, key=lambda column: column.map(lambda value: ranks.get(value, value)), kind="stable",
                             ignore_index=True)  # fmt: skip
