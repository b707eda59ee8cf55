"""A verdict follows from interval and threshold alone."""

import pytest

from workbench.claim import Claim
from workbench.metrics.uncertainty import Effect


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.5, "supported"), (-0.5, -0.1, "contradicted"), (-0.1, 0.5, "inconclusive"), (-0.5, 0.0, "contradicted")],
)
def test_above_asks_on_which_side_the_whole_interval_lies(low, high, verdict):
    effect = Effect((low + high) / 2, low, high, 5)
    mirrored = Effect(-effect.estimate, -high, -low, 5)
    assert Claim("it helps", effect, above=0.0).verdict == verdict
    assert Claim("it helps", mirrored, below=0.0).verdict == verdict


def test_between_needs_the_whole_interval_inside():
    def verdict(low, high):
        return Claim("about 2.5", Effect(low, low, high, 9), above=2.0, below=3.0).verdict

    assert verdict(2.2, 2.8) == "supported"
    assert verdict(1.8, 2.8) == "inconclusive"
    assert verdict(1.0, 4.0) == "inconclusive"
    assert verdict(3.1, 4.0) == "contradicted"
    assert verdict(1.0, 1.9) == "contradicted"


def test_one_seed_gives_no_interval_and_so_no_verdict():
    nan = float("nan")
    assert Claim("it helps", Effect(3.0, nan, nan, 1), above=0.0).verdict == "inconclusive"


def test_a_claim_over_seeds_gates_only_with_five_of_them_and_an_exact_one_always():
    def gates(effect):
        return Claim("it helps", effect, above=0.0, gating=True).gates

    assert not gates(Effect(1.0, 0.5, 1.5, 4))
    assert gates(Effect(1.0, 0.5, 1.5, 5))
    assert gates(Effect.exact(1.0))
    assert not Claim("it helps", Effect.exact(1.0), above=0.0).gates


def test_a_claim_without_a_threshold_or_with_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="needs above=, below= or both"):
        Claim("it helps", Effect.exact(1.0))
    with pytest.raises(ValueError, match="must be smaller"):
        Claim("it helps", Effect.exact(1.0), above=2.0, below=1.0)
