"""Tables of a quantised grid as a reader wants them: by variant, by dimension with intervals, by layer."""

from __future__ import annotations

import math

import pandas as pd

from workbench.metrics.uncertainty import t_interval
from workbench.training.quantized_grid import QuantizedGrid

NATS_OR_SHARE = ("nats", "accuracy", "spelling", "cloze", "next word", "truth", "stereotype", "instructions")
SUMMARY = {"nats": ("knowledge", "nats per byte"), "bytes": ("efficiency", "MB, all weights")}
MEGABYTE = 1e6


def by_variant(wide: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of :func:`workbench.metrics.quantization.one_row_a_variant`, one row per model and variant."""
    shown = [name for name in NATS_OR_SHARE if name in wide and wide[name].notna().any()]
    means = wide.groupby(["model", "variant", "group"], sort=False)[
        ["bits_per_weight", "bytes", *shown, "rise", "outlier_share"]
    ].mean()
    return means.reset_index().assign(kilobytes=lambda table: table.pop("bytes") / 1e3).round(4)


def by_dimension(grid: QuantizedGrid, *, whole: bool = False) -> pd.DataFrame:
    """One row per model, variant and measure with its interval: over questions, windows or seeds.

    Args:
        whole: leave out the single kinds of text, and take the largest model alone; what a figure has room for.

    Returns:
        ``dimension, measure, model, variant, value, low, high, n``; shares have Wilson's interval over questions,
        nats a t interval over windows (one model) or seeds, bytes none.
    """
    columns = ["dimension", "measure", "model", "variant", "value", "low", "high", "n"]
    if grid.rows.empty:
        return pd.DataFrame(columns=columns)
    rows = grid.rows
    if whole:
        largest = rows.loc[rows["parameters"].idxmax(), "model"]
        rows = rows[(rows["model"] == largest) & rows["measure"].isin([*NATS_OR_SHARE, "bytes"])]
    found = []
    for (dimension, measure, model, variant), cell in rows.groupby(
        ["dimension", "measure", "model", "variant"], sort=False
    ):
        values = cell["value"].to_numpy()
        low, high, n = _interval(grid.answers, measure, model, variant, values)
        scale = 1 / MEGABYTE if measure == "bytes" else 1.0
        dimension, measure = SUMMARY.get(measure, (dimension, measure))
        found.append((dimension, measure, model, variant, values.mean() * scale, low, high, n))
    return pd.DataFrame(found, columns=columns)


def _interval(answers: pd.DataFrame, measure: str, model: str, variant: str, values) -> tuple[float, float, int]:
    if measure == "bytes":
        return math.nan, math.nan, 1
    if len(values) > 1:
        found = t_interval(values)
        return found.low, found.high, found.n
    name = "text" if measure == "nats" else measure
    some = answers[(answers["benchmark"] == name) & (answers["model"] == model) & (answers["variant"] == variant)]
    if len(some) < 2:
        return math.nan, math.nan, 1
    if name == "text":
        # Windows have their own levels: as wide as the interval of their mean, about the value of the whole text.
        found = t_interval(some["value"].to_numpy())
        half = (found.high - found.low) / 2
        return values.mean() - half, values.mean() + half, found.n
    return *wilson(float(some["value"].mean()), len(some)), len(some)


def wilson(share: float, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` questions; never beyond 0 and 1, never without width."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def layer_means(sensitivity: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of what each layer adds alone, with the standard error over seeds; layers in their order."""
    keys = ["layer", "bits", "group", "method", "measure"]
    groups = sensitivity.groupby(keys, sort=False)
    table = groups[["added_nats", "output_error", "bytes", "bits_per_weight"]].mean().reset_index()
    return table.assign(standard_error=groups["added_nats"].sem().to_numpy())


def speed_beside_published(speed: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Memory (MB) and tokens per second of decoding: medians over rounds, and adjacent published ones."""
    ours = speed[speed["phase"] == "decode"].groupby(["model", "path"], sort=False)
    ours = ours.agg(memory=("bytes", "first"), speed=("tokens_per_second", "median")).reset_index()
    ours = ours.rename(columns={"path": "precision"}).assign(whose="measured here", status="read")
    ours["memory"] /= MEGABYTE
    theirs = published.rename(columns={"tokens_per_second": "speed"}).assign(whose="adjacent: Qwen chat on an A100")
    theirs["memory"] = 1000 * theirs["memory_gb"]
    columns = ["whose", "model", "precision", "memory", "speed", "status"]
    return pd.concat([ours[columns], theirs[columns]], ignore_index=True)
