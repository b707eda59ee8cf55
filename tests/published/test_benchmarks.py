"""The scores of MiniMA and its rivals are the means that the authors draw."""

import numpy as np
import pytest

from workbench.errors import UnknownName
from workbench.published import load
from workbench.published.benchmarks import BENCHMARKS, mean_scores


def score(table, model):
    return table.set_index("model").loc[model, "mean"]


def test_the_mean_of_six_is_the_performance_of_the_authors_figure_within_the_eyes_error():
    ours = mean_scores()
    drawn = load("capacity_gap", "pareto_figure_readings").set_index("model")["mean_performance_approx"]
    for model in ("MiniMA-3B", "MiniMA-2-3B", "MiniMix-2/4x3B", "Mamba-2.8B"):
        assert score(ours, model) == pytest.approx(drawn[model], abs=0.35)


def test_a_model_in_both_files_is_taken_once_and_exact():
    scores = mean_scores()
    plain = scores["model"].str.lower().str.replace("-", "")
    assert plain.is_unique
    assert (scores["model"] == "LLaMA-2-7B").sum() == 1
    assert scores.set_index("model").loc["LLaMA-2-7B", "status"] == "read"
    assert set(scores["status"]) == {"read", "digitised"}
    assert np.all(np.diff(scores["compute"]) >= 0)


def test_fewer_benchmarks_leave_out_what_only_the_figure_knows():
    scores = mean_scores(["MMLU_5shot"])
    assert set(scores["status"]) == {"read"}
    assert score(scores, "MiniMA-3B") == 28.51
    assert score(mean_scores(["MMLU_5shot", "DROP_3shot"]), "MiniMA-3B") == pytest.approx((28.51 + 22.50) / 2)


def test_chat_models_come_only_when_asked_for():
    assert not mean_scores()["model"].str.contains("Chat").any()
    assert {"MiniChat-3B", "MiniChat-2-3B"} <= set(mean_scores(chat=True)["model"])


def test_no_benchmark_or_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="choose at least one"):
        mean_scores([])
    with pytest.raises(UnknownName, match="Did you mean 'MMLU_5shot'"):
        mean_scores(["MMLU"])
    assert len(BENCHMARKS) == 6
