"""What quantising costs: added loss, models matched by bytes, grids matched by bits, and what predicts what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pandas as pd

from workbench.errors import check_choice
from workbench.metrics.uncertainty import Effect, paired_difference, t_interval

NOT_QUANTISED = "not quantised"
KEYS = [
    "model",
    "parameters",
    "seed",
    "variant",
    "method",
    "bits",
    "group",
    "bits_per_weight",
    "bytes",
    "outlier_share",
]
RESAMPLES = 2000


def one_row_a_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows with the measures as columns, and ``added`` and ``rise``: nats over those of the model as it was.

    ``added`` is in nats per byte, ``rise`` in parts of the loss before; rows keep their order.
    """
    measured = rows[rows["measure"] != "bytes"]
    order = measured[KEYS].drop_duplicates()
    wide = measured.pivot(index=KEYS, columns="measure", values="value").reset_index()
    wide = order.merge(wide, on=KEYS)
    before = wide.loc[wide["variant"] == NOT_QUANTISED, ["model", "seed", "nats"]]
    wide = wide.merge(before.rename(columns={"nats": "before"}), on=["model", "seed"])
    return wide.assign(added=wide["nats"] - wide["before"], rise=wide["nats"] / wide["before"] - 1)


def difference(wide: pd.DataFrame, first: str, second: str, *, value: str = "nats") -> Effect:
    """Mean of ``value`` of one variant minus that of another, paired over models and seeds; t interval over seeds.

    Raises:
        UnknownName: a variant that is not there ("did you mean").
    """
    for side in (first, second):
        check_choice("variant", side, wide["variant"].unique())
    pair = wide[wide["variant"].isin([first, second])]
    means = pair.groupby(["variant", "seed"], as_index=False)[value].mean()  # over models: they share their seed
    return paired_difference(means, first, second, value=value, by="variant")


def share_kept(wide: pd.DataFrame, variant: str, *, value: str) -> Effect:
    """Mean over models of a score in parts of that of the model as it was, per seed; t interval over seeds."""
    check_choice("variant", variant, wide["variant"].unique())
    means = wide.groupby(["variant", "seed"])[value].mean()
    return t_interval((means[variant] / means[NOT_QUANTISED]).dropna().to_numpy())


def level(wide: pd.DataFrame, variant: str, *, value: str) -> Effect:
    """Mean of ``value`` of one variant over models; t interval over seeds."""
    check_choice("variant", variant, wide["variant"].unique())
    return t_interval(wide[wide["variant"] == variant].groupby("seed")[value].mean().to_numpy())


def same_bytes(wide: pd.DataFrame, *, method: str, share: float = 1.0) -> pd.DataFrame:
    """The smaller models as they are beside the next larger one, quantised so far that it takes no more bytes.

    Of the larger model that variant of ``method`` is taken which has the most bits among those that fit; nothing
    looks at losses before it is chosen.

    Args:
        share: bytes of the smaller model that count: 0.5 as if its float32 weights were kept in 16 bits.

    Returns:
        One row a pair and seed: ``small``, ``large``, ``variant``, ``small_bytes``, ``large_bytes``, ``small_nats``,
        ``large_nats`` and ``gain``, the nats per byte that the larger one is ahead; empty where nothing fits.
    """
    names = wide.sort_values("parameters")["model"].unique()
    pairs = []
    for small, large in pairwise(names):
        plain = wide[(wide["model"] == small) & (wide["variant"] == NOT_QUANTISED)].set_index("seed")
        budget = share * plain["bytes"].min()
        fitting = wide[(wide["model"] == large) & (wide["method"] == method) & (wide["bytes"] <= budget)]
        if fitting.empty:
            continue
        chosen = fitting[fitting["bits_per_weight"] == fitting["bits_per_weight"].max()].set_index("seed")
        both = plain[["bytes", "nats"]].add_suffix("_small").join(chosen[["variant", "bytes", "nats"]], how="inner")
        pairs.append(
            pd.DataFrame(
                {
                    "small": small, "large": large, "variant": both["variant"], "seed": both.index,
                    "small_bytes": share * both["bytes_small"], "large_bytes": both["bytes"],
                    "small_nats": both["nats_small"], "large_nats": both["nats"],
                    "gain": both["nats_small"] - both["nats"],
                }
            )
        )  # fmt: skip
    columns = ["small", "large", "variant", "seed", "small_bytes", "large_bytes", "small_nats", "large_nats", "gain"]
    return pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame(columns=columns)


def same_bits(wide: pd.DataFrame, variant: str, methods: Sequence[str]) -> list[str]:
    """The variants of ``methods`` nearest to ``variant`` in bits per weight: one with no more, one with no fewer.

    Measured bits, scales, zeros and outliers included, mean over models and seeds; losses are not looked at. Where
    there is none on one side the list has one entry.

    Raises:
        UnknownName: no such variant.
        ValueError: no variant of these methods.
    """
    bits = wide.groupby("variant")["bits_per_weight"].mean()
    check_choice("variant", variant, bits.index)
    others = bits[wide[wide["method"].isin(methods)]["variant"].unique()]
    if others.empty:
        raise ValueError(f"no variant of {tuple(methods)} is there to be matched with {variant!r}.")
    fewer, more = others[others <= bits[variant]], others[others >= bits[variant]]
    return list(dict.fromkeys([*fewer.nlargest(1).index, *more.nsmallest(1).index]))


def rank_correlation(first: Sequence[float], second: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Effect:
    """Spearman's rho with a percentile bootstrap interval over the pairs (variants); NaN where either is constant.

    Raises:
        ValueError: fewer than three pairs, or lists of unequal lengths.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if x.shape != y.shape or x.size < 3:
        raise ValueError(f"a rank correlation needs at least three pairs, got {x.size} and {y.size} numbers.")
    draws = np.random.default_rng(seed).integers(0, x.size, size=(RESAMPLES, x.size))
    estimate = float(_rho(x[None], y[None])[0])
    found = _rho(x[draws], y[draws])
    found = found[np.isfinite(found)]  # a resample of one variant alone has no ranks
    if not found.size or math.isnan(estimate):
        return Effect(estimate, math.nan, math.nan, x.size)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Effect(estimate, float(low), float(high), x.size)


def proxies(wide: pd.DataFrame, benchmarks: Sequence[str]) -> pd.DataFrame:
    """Does perplexity predict scores: Spearman's rho of minus nats per byte and each benchmark, over variants.

    Args:
        wide: of :func:`one_row_a_variant`; means over seeds are taken.
        benchmarks: names of columns; those that are not there or empty are passed over.

    Returns:
        ``benchmark``, ``model`` (``all`` pools them), ``estimate``, ``low``, ``high``, ``n``.
    """
    there = [name for name in benchmarks if name in wide and wide[name].notna().any()]
    means = wide.groupby(["model", "variant"], sort=False)[["nats", *there]].mean().reset_index()
    rows = []
    for who in ("all", *means["model"].unique()):
        some = means if who == "all" else means[means["model"] == who]
        for name in there if len(some) > 4 else ():
            rows.append({"benchmark": name, "model": who, **asdict(rank_correlation(-some["nats"], some[name]))})
    return pd.DataFrame(rows, columns=["benchmark", "model", "estimate", "low", "high", "n"])


def ratio_of_speed(speed: pd.DataFrame, path: str, against: str, *, phase: str = "decode") -> np.ndarray:
    """CPU time of ``against`` in parts of that of ``path``, one number a round: above 1 the path is faster."""
    wide = speed[speed["phase"] == phase].pivot(index="round", columns="path", values="cpu_ms")
    return (wide[against] / wide[path]).to_numpy()


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (x, y)]
    centred = [values - values.mean(axis=1, keepdims=True) for values in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (centred[0] * centred[1]).sum(1) / np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))


def paired_questions(answers: pd.DataFrame, first: str, second: str, benchmark: str) -> np.ndarray:
    """``value`` of every question (or window) under ``first`` minus that under ``second``, over all models.

    Raises:
        UnknownName: a variant or benchmark that is not there.
    """
    check_choice("benchmark", benchmark, answers["benchmark"].unique())
    some = answers[answers["benchmark"] == benchmark]
    for side in (first, second):
        check_choice("variant", side, some["variant"].unique())
    wide = some[some["variant"].isin([first, second])].pivot(
        index=["model", "seed", "question"], columns="variant", values="value"
    )
    return (wide[first] - wide[second]).dropna().to_numpy()


def paired_share(differences: Sequence[float], *, level: float = 0.95) -> Effect:
    """Difference of two shares over the same questions, each entry 1, 0 or -1 (a part where choices tied).

    Agresti & Min 2005: as if two more questions had been asked, so that questions which all came out equal do not
    give an interval of no width.

    Raises:
        ValueError: no questions.
    """
    from scipy.stats import norm

    values = np.asarray(differences, dtype=float)
    if not values.size:
        raise ValueError("differences is empty: no question was asked of both.")
    gained, lost = values[values > 0].sum() + 0.5, -values[values < 0].sum() + 0.5
    n = values.size + 2
    middle = (gained - lost) / n
    half = norm.ppf((1 + level) / 2) * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return Effect(float(values.mean()), float(middle - half), float(middle + half), values.size)
