"""Bits chosen layer by layer: what a choice is predicted to cost, the best under a size, and the recipe it makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from workbench.errors import UnknownName, check_choice
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.spec import QuantSpec

BITS = (2, 3, 4, 8)
FLOAT = "float"  # the method of a layer that is left as it is


class Prediction(NamedTuple):
    """What a choice of bits costs."""

    added_nats: float  # per token
    standard_error: float
    bytes: int  # of the layers it is about


def predict_added_nats(sensitivity: pd.DataFrame, choice: Mapping[str, int]) -> Prediction:
    """The sum of what the chosen layers add alone: errors of layers taken as if they did not meet.

    Args:
        sensitivity: of :func:`workbench.quantizers.sensitivity.layer_sensitivity`, one row per layer and bits.
        choice: bits by layer; layers that are left out stay as they are.

    Returns:
        The standard error is that of the sum over windows where the table has ``window_nats``; else the sum of the
        layers' errors, the most it can be since all saw the same text.

    Raises:
        ValueError, UnknownName: a layer or bits that the table does not hold, or holds twice.
    """
    table = _by_layer_and_bits(sensitivity)
    whole = _as_they_are(sensitivity)
    for layer, bits in choice.items():
        check_choice("layer", layer, whole)
        if (layer, bits) not in table.index:
            known = ", ".join(str(one) for one in table.loc[layer].index)
            raise UnknownName(f"{layer}: bits={bits!r} is not one of {known}.")
    rows = table.loc[[(layer, choice.get(layer, bits)) for layer, bits in whole.items()]]
    error = float(rows["standard_error"].sum(skipna=False))
    if "window_nats" in rows:
        windows = np.array(rows["window_nats"].tolist(), dtype=float).sum(0)
        error = float(windows.std(ddof=1) / np.sqrt(len(windows))) if len(windows) > 1 else float("nan")
    return Prediction(float(rows["added_nats"].sum(skipna=False)), error, int(rows["bytes"].sum()))


def cheapest_recipe(sensitivity: pd.DataFrame, max_bytes: float) -> dict[str, int]:
    """Bits by layer whose predicted loss is least among all choices of at most ``max_bytes``; exact.

    Best on a table of ``measure="fisher"``: a choice by a loss takes what rounding happens to do on a few windows for
    its merit. For the choice, no bits count as less than more bits of the same layer do, nor as less than nothing.
    Among equal losses the smaller size is taken.

    Raises:
        ValueError: even the fewest bits are larger than ``max_bytes``, or the table tells no nats.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    table = _by_layer_and_bits(sensitivity).reset_index()
    if table["added_nats"].isna().any():
        raise ValueError("the table tells no nats for some layers: take measure='loss' or 'fisher'.")
    least = int(table.groupby("layer")["bytes"].min().sum())
    if max_bytes < least:
        raise ValueError(f"max_bytes={max_bytes:.0f} is below {least}, the size at the fewest bits of every layer.")
    layer, _ = pd.factorize(table["layer"])
    places = np.arange(len(table))
    one_each = csr_array((np.ones(len(table)), (layer, places)), shape=(layer.max() + 1, len(table)))
    size = table["bytes"].to_numpy(dtype=float)
    falling = table.sort_values("bits", ascending=False)
    cost = falling["added_nats"].clip(lower=0).groupby(falling["layer"]).cummax().sort_index().to_numpy(dtype=float)
    # In thousandths of the dearest choice, so that the solver's tolerances mean the same for every model.
    unit = cost.max() or 1.0
    found = milp(
        1e3 * cost / unit + 1e-6 * size / size.sum(),
        integrality=np.ones(len(table)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(size[None] / max_bytes, -np.inf, 1.0),
        ],
        options={"mip_rel_gap": 1e-6, "time_limit": 30},
    )
    if found.x is None:
        raise ValueError(f"no choice was found under max_bytes={max_bytes:.0f}: {found.message}")
    chosen = table[found.x > 0.5]
    return dict(zip(chosen["layer"], chosen["bits"].astype(int), strict=True))


def as_recipe(
    choice: Mapping[str, int], recipes: Sequence[int | QuantSpec | LayerRecipe] = BITS, *, kernel: str = "auto"
) -> Recipe:
    """The recipe that quantises every layer as ``choice`` says; the commonest rule is its default.

    Args:
        choice: bits by layer, for every layer of the model; bits that no recipe has leave a layer as it is.
        recipes: those that the sensitivities were found with.

    Raises:
        ValueError: an empty choice, or two recipes of the same bits.
    """
    if not choice:
        raise ValueError("choice is empty: give bits for every layer.")
    rules = {rule.spec.bits: rule for rule in map(rule_of, recipes)}
    if len(rules) < len(recipes):
        raise ValueError("two recipes have the same bits: which of them is meant is not known; leave one out.")
    usual = Counter(bits if bits in rules else None for bits in choice.values()).most_common(1)[0][0]
    others = {layer: rules.get(bits) for layer, bits in choice.items() if (bits if bits in rules else None) != usual}
    return Recipe(rules.get(usual), others, kernel=kernel)


def rule_of(recipe: int | QuantSpec | LayerRecipe) -> LayerRecipe:
    """Bits, a grid or a rule as a rule; bits alone are rounded to nearest in the usual groups.

    Raises:
        TypeError: something else.
    """
    if isinstance(recipe, LayerRecipe):
        return recipe
    if isinstance(recipe, QuantSpec):
        return LayerRecipe(recipe)
    if isinstance(recipe, int) and not isinstance(recipe, bool):
        return Recipe.of("rtn", recipe).default
    raise TypeError(f"a recipe is bits, a QuantSpec or a LayerRecipe, got {type(recipe).__name__}.")


def _by_layer_and_bits(sensitivity: pd.DataFrame) -> pd.DataFrame:
    if sensitivity.duplicated(["layer", "bits"]).any():
        raise ValueError("a layer stands there twice with the same bits: select one method and group first.")
    return sensitivity.set_index(["layer", "bits"])


def _as_they_are(sensitivity: pd.DataFrame) -> dict[str, int]:
    """Bits of every layer that is left as it is."""
    rows = sensitivity[sensitivity["method"] == FLOAT]
    return dict(zip(rows["layer"], rows["bits"].astype(int), strict=True))
