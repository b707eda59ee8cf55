"""Tables: the error's digits, and how sure we are of the paper's numbers."""

import pandas as pd
import pytest

from workbench.plots.tables import beside_published, claims, marked, mean_and_error
from workbench.published import STATUSES
from workbench.result import Claim, Effect, Result

ROWS = pd.DataFrame({"loss": ["kl"] * 3 + ["mse"], "seed": [0, 1, 2, 0], "accuracy": [0.5, 0.6, 0.7, 0.4]})
PUBLISHED = pd.DataFrame(
    {"loss": ["kl", "mse"], "measure": "accuracy", "published": [0.61, 0.42], "status": ["read", "recalled"]}
)


def test_a_mean_is_given_to_the_second_digit_of_its_error():
    assert mean_and_error(0.670000, 0.0213) == "0.670 ± 0.021"
    assert mean_and_error(1234.5, 56.0) == "1234 ± 56"
    assert mean_and_error(0.25, float("nan")) == "0.25"
    assert mean_and_error(float("nan"), float("nan")) == ""


def test_ours_stands_beside_the_papers_with_n():
    shown = beside_published(Result("x", {}, ROWS, published=PUBLISHED).table()).data
    assert list(shown.columns) == ["loss", "measure", "mean ± s.e.", "n", "published"]
    assert list(shown["mean ± s.e."]) == ["0.600 ± 0.058", "0.4"]
    assert list(shown["published"]) == ["0.61", "0.42 †"]


def test_only_recalled_numbers_are_greyed_and_the_caption_says_what_the_mark_means():
    html = beside_published(Result("x", {}, ROWS, published=PUBLISHED).table(), caption="Held out.").to_html()
    assert html.count("font-style: italic") == 1
    assert "Held out. Published numbers: † from memory" in html


def test_a_table_without_published_numbers_has_no_such_column():
    assert "published" not in beside_published(Result("x", {}, ROWS).table()).data.columns


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_mark_of_its_own(status):
    texts = {marked(1.0, one) for one in STATUSES}
    assert len(texts) == len(STATUSES)
    assert marked(1.0, status).startswith("1")


def test_the_claims_table_is_not_cut_and_says_verdicts_by_sign():
    long = "A sentence that is much longer than the fifty letters after which pandas cuts"
    result = Result("x", {}, ROWS, claims=[Claim(long, Effect(1.0, 0.5, 1.5, 5), above=0.0)])
    html = claims(result.check()).to_html()
    assert long in html
    assert "✓ supported" in html


def test_a_size_is_shown_whole_and_a_ratio_with_its_digits():
    table = pd.DataFrame({"teacher_parameters": [1344960.0, float("nan")], "ratio": [2.5, 1 / 3], "measure": "nats",
                          "mean": 1.0, "error": 0.1, "n": 5})  # fmt: skip
    html = beside_published(table).to_html()
    assert ">1,344,960<" in html
    assert ">2.5<" in html
    assert ">nan<" not in html
