"""The bars of distributions and pushes: what is drawn is what the table says."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import UnknownName
from workbench.plots.distributions import distributions_and_gradients, gradient_bars, probability_bars
from workbench.plots.theme import PALETTE

TOKENS = ("a", "b", "a")  # two that look alike


def probabilities() -> pd.DataFrame:
    heights = {"teacher": (0.5, 0.3, 0.2), "student": (0.2, 0.2, 0.6), "mixture": (0.35, 0.25, 0.4)}
    return pd.DataFrame(
        [
            {"position": place, "token": TOKENS[place], "series": name, "probability": height}
            for name, row in heights.items()
            for place, height in enumerate(row)
        ]
    )


def pushes(count: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"position": place, "token": TOKENS[place], "loss": f"loss {index}", "push": index - place}
            for index in range(count)
            for place in range(3)
        ]
    )


def test_every_distribution_is_drawn_with_its_numbers_and_mixtures_are_markers():
    figure = probability_bars(probabilities(), marked=("mixture",))
    assert [trace.type for trace in figure.data] == ["bar", "bar", "scatter"]
    assert [list(trace.y) for trace in figure.data] == [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.35, 0.25, 0.4]]
    assert figure.layout.yaxis.title.text == "probability"


def test_tokens_that_look_alike_keep_their_own_places():
    figure = probability_bars(probabilities())
    assert list(figure.layout.xaxis.ticktext) == ["a", "b", "a"]
    assert list(figure.data[0].x) == [0, 1, 2]


def test_no_two_losses_look_the_same_not_even_after_the_colours_come_round():
    figure = gradient_bars(pushes(14))
    looks = {(trace.marker.color, trace.marker.pattern.shape) for trace in figure.data}
    assert len(looks) == 14
    assert len({trace.marker.pattern.shape for trace in figure.data[: len(PALETTE)]}) == len(PALETTE)


def test_both_together_share_the_tokens_and_keep_their_legends_apart():
    figure = distributions_and_gradients(probability_bars(probabilities()), gradient_bars(pushes()), title="both")
    assert isinstance(figure, go.Figure)
    assert [trace.legend for trace in figure.data] == ["legend"] * 3 + ["legend2"] * 2
    assert [trace.yaxis for trace in figure.data] == ["y"] * 3 + ["y2"] * 2
    assert list(figure.layout.xaxis2.ticktext) == list(TOKENS)
    assert figure.layout.title.text == "both"


def test_wrong_tables_are_refused_by_name():
    with pytest.raises(ValueError, match="no rows"):
        probability_bars(probabilities().iloc[:0])
    with pytest.raises(UnknownName, match="Did you mean 'probability'"):
        probability_bars(probabilities(), probability="probabilty")
    with pytest.raises(UnknownName, match="Did you mean 'mixture'"):
        probability_bars(probabilities(), marked=("mixtures",))
    with pytest.raises(UnknownName, match="Did you mean 'push'"):
        gradient_bars(pushes(), push="pushs")
