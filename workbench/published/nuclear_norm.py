"""What the paper on the matrix nuclear norm printed, tidy, and how far its numbers follow loss and size.

Source: Li, Xia, Chang & Wu 2024, "Large Language Model Evaluation via Matrix Nuclear-Norm" (arXiv 2410.10672).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.published import load

if TYPE_CHECKING:
    import pandas as pd

STEM = "matrix_nuclear_norm"
FAMILIES = ("cerebras", "pythia")
METRICS = ("mnn", "matrix_entropy")
UNITS = {"M": 1e6, "B": 1e9}


def parameters(name: str) -> float:
    """Parameters of a size as the tables write it: ``111M``, ``1.3B``."""
    return float(name[:-1]) * UNITS[name[-1]]


def indicators() -> pd.DataFrame:
    """One row per family, data set and model: ``parameters``, what was measured, whether a cell is ``suspicious``.

    Columns: ``family, dataset, model, parameters, mnn, matrix_entropy, loss, ppl, accuracy`` (NaN where not printed),
    ``suspicious, source, status``; sizes rise.
    """
    import pandas as pd

    flagged = load(STEM, "suspicious_cells")
    flags = set(zip(flagged["family"], flagged["dataset"], flagged["model"], strict=True))
    parts = []
    for family in FAMILIES:
        wide = load(STEM, f"{family}_indicators")
        models = [name for name in wide.columns if name[0].isdigit()]
        long = wide.melt(id_vars=["dataset", "indicator", "source", "status"], value_vars=models, var_name="model")
        long["place"] = long["model"].map({name: place for place, name in enumerate(models)})
        table = long.pivot(
            index=["dataset", "model", "place", "source", "status"], columns="indicator", values="value"
        ).reset_index()
        parts.append(table.assign(family=family))
    table = pd.concat(parts, ignore_index=True)
    table["parameters"] = table["model"].map(parameters)
    keys = zip(table["family"], table["dataset"], table["model"], strict=True)
    table["suspicious"] = [key in flags for key in keys]
    order = ["family", "dataset", "model", "parameters", *METRICS, "loss", "ppl", "accuracy", "suspicious"]
    table = table.sort_values(["family", "dataset", "place"], ignore_index=True)
    return table[[*order, "source", "status"]].rename_axis(columns=None)


def rank_correlations() -> pd.DataFrame:
    """Spearman's rank correlation of each metric with loss (or accuracy) per family and data set, poor ones included.

    Columns: ``family, dataset, metric, against`` (``loss``, or ``accuracy`` where no loss was printed), ``n``,
    ``spearman`` (of accuracy with its sign turned, so that 1 always means: the better model has the lower metric),
    ``without_suspicious`` (NaN where no cell is), ``rises`` (steps to the next larger model at which the metric goes
    up), ``status``.
    """
    import pandas as pd

    rows = []
    for (family, dataset), table in indicators().groupby(["family", "dataset"], sort=False):
        against = "loss" if table["loss"].notna().any() else "accuracy"
        if not table[against].notna().any():
            continue  # norms by length of text have nothing beside them
        sign = 1 if against == "loss" else -1
        for metric in METRICS:
            kept = table[~table["suspicious"]] if metric == "mnn" else table
            without = sign * kept[metric].corr(kept[against], method="spearman")
            rows.append({
                "family": family, "dataset": dataset, "metric": metric, "against": against, "n": len(table),
                "spearman": sign * table[metric].corr(table[against], method="spearman"),
                "without_suspicious": without if len(kept) < len(table) else float("nan"),
                "rises": int((table[metric].diff() > 0).sum()), "status": table["status"].iloc[0],
            })  # fmt: skip
    return pd.DataFrame(rows)


def times() -> pd.DataFrame:
    """Seconds of the whole pipeline: ``family, model, parameters, matrix_entropy_s, mnn_s, ratio, source, status``."""
    import pandas as pd

    tables = [load(STEM, f"{family}_time").assign(family=family) for family in FAMILIES]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(parameters=table["model"].map(parameters))


def by_length() -> pd.DataFrame:
    """Cerebras-GPT's norm by length of text: ``model, parameters, tokens, mnn, status``."""
    table = indicators()
    table = table[table["dataset"].str.startswith("length-")]
    tokens = table["dataset"].str.removeprefix("length-").astype(int)
    found = table.assign(tokens=tokens)[["model", "parameters", "tokens", "mnn", "status"]]
    return found.sort_values(["parameters", "tokens"], ignore_index=True)


def chat_models() -> pd.DataFrame:
    """Norms of models' own answers: ``series, model, parameters, dataset, mnn, rises`` and ``status``.

    ``rises`` is whether a model's norm is above that of the next smaller one of its series; NaN for the smallest.
    """
    table = load(STEM, "chat_models")
    split = table["model"].str.rsplit("-", n=1)
    table = table.assign(series=split.str[0], parameters=split.str[1].map(parameters))
    long = table.melt(
        id_vars=["series", "model", "parameters", "source", "status"], value_vars=["alpaca", "arena_hard"],
        var_name="dataset", value_name="mnn",
    ).sort_values(["dataset", "series", "parameters"], ignore_index=True)  # fmt: skip
    step = long.groupby(["dataset", "series"])["mnn"].diff()
    return long.assign(rises=step.gt(0).astype(float).where(step.notna()))
