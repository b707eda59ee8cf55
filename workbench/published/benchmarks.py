"""What MiniMA and its rivals score: exact from the authors' table, else read off their figure.

Source: Zhang et al. 2025, "Towards the Law of Capacity Gap in Distilling Language Models", MiniMA's repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.errors import check_choice
from workbench.published import load

if TYPE_CHECKING:
    import pandas as pd

BENCHMARKS = ("MMLU_5shot", "CEval_5shot", "DROP_3shot", "HumanEval_0shot", "BBH_3shot", "GSM8K_8shot")
FIGURE = 1e9  # TFLOPs per unit of compute in the authors' figure


def mean_scores(benchmarks: Sequence[str] = BENCHMARKS, *, chat: bool = False) -> pd.DataFrame:
    """Training compute (TFLOPs) and mean score (per cent) over ``benchmarks``, in rising compute.

    Models known from the figure alone have one number, the mean of all six: they are left out of any
    other selection.

    Args:
        chat: keep the models that were tuned on instructions; their table counts only the compute
            of the model that they were tuned from.

    Returns:
        The columns ``model``, ``compute``, ``mean``, ``status`` and ``source``.

    Raises:
        ValueError: no benchmark, or an unknown one ("did you mean").
    """
    import pandas as pd

    if not benchmarks:
        raise ValueError(f"benchmarks is empty: choose at least one of {', '.join(BENCHMARKS)}.")
    for name in benchmarks:
        check_choice("benchmarks", name, BENCHMARKS)
    columns = ["model", "compute", "mean", "status", "source"]
    table = load("capacity_gap", "standard_benchmarks")
    exact = table.assign(compute=table["train_compute_TFLOPs"], mean=table[list(benchmarks)].mean(axis=1))
    parts = [exact[columns]]
    if set(benchmarks) == set(BENCHMARKS):
        read = load("capacity_gap", "pareto_figure_readings")
        figure = read.assign(compute=FIGURE * read["compute_1e9_TFLOPs_approx"], mean=read["mean_performance_approx"])
        known = {_plain(model) for model in exact["model"]}
        parts.append(figure.loc[[_plain(model) not in known for model in figure["model"]], columns])
    scores = pd.concat(parts, ignore_index=True).sort_values("compute", kind="stable", ignore_index=True)
    return scores if chat else scores[~scores["model"].str.contains("Chat")].reset_index(drop=True)


def _plain(name: str) -> str:
    """The two files spell some names differently."""
    return name.lower().replace("-", "")
