"""The re-analysis of the matrix nuclear norm's tables counts what stands there, and flags what cannot be right."""

import pytest

from workbench.published import nuclear_norm


@pytest.fixture(scope="module")
def correlations():
    return nuclear_norm.rank_correlations().set_index(["family", "dataset", "metric"])


def test_every_cell_that_repeats_the_entropy_is_flagged_and_no_other():
    table = nuclear_norm.indicators()
    copied = table["mnn"] == table["matrix_entropy"]
    assert copied.tolist() == table["suspicious"].tolist()
    assert table.loc[copied, ["dataset", "model"]].to_numpy().tolist() == [["dolly-15k", "13B"], ["dolly-15k", "410M"]]


def test_entropy_falls_with_every_step_of_cerebras_and_the_norm_does_not(correlations):
    cerebras = correlations.loc["cerebras"].reset_index()
    assert cerebras.query("metric == 'matrix_entropy'")["rises"].eq(0).all()
    rising = cerebras.query("metric == 'mnn' and rises > 0")["dataset"].tolist()
    assert {"dolly-15k", "hh-rlhf", "openbookqa", "winogrande", "piqa"} <= set(rising)


def test_a_correlation_by_hand(correlations):
    # Pythia on OpenWebText2: loss falls at every size, so the ranks of the losses are 10 to 1.
    norms = [0.5041, 0.6186, 0.7142, 0.7258, 0.7105, 0.6215, 0.6378, 0.5967, 0.5275, 0.5110]
    ranks = [sorted(norms).index(norm) + 1 for norm in norms]
    squares = sum((rank - loss) ** 2 for rank, loss in zip(ranks, range(10, 0, -1), strict=True))
    assert correlations.loc[("pythia", "openwebtext2", "mnn"), "spearman"] == pytest.approx(1 - 6 * squares / 990)
    assert correlations.loc[("pythia", "openwebtext2", "mnn"), "spearman"] < 0.5


def test_accuracy_counts_with_its_sign_turned(correlations):
    winogrande = correlations.loc[("cerebras", "winogrande", "matrix_entropy")]
    assert winogrande["against"] == "accuracy"
    assert winogrande["spearman"] > 0.9


def test_flagged_cells_are_left_out_once_and_only_there(correlations):
    without = correlations["without_suspicious"].dropna()
    assert without.index.tolist() == [("cerebras", "dolly-15k", "mnn"), ("pythia", "dolly-15k", "mnn")]


def test_times_have_the_ratio_that_their_seconds_give():
    table = nuclear_norm.times()
    miss = (table["matrix_entropy_s"] / table["mnn_s"] - table["ratio"]).abs().groupby(table["family"]).max()
    assert miss["cerebras"] < 1e-4
    assert miss["pythia"] < 0.1  # their digits do not fit each other as well: one more reason to call them secondary
    cerebras = table.query("family == 'cerebras'")["ratio"]
    assert (cerebras.min(), cerebras.max()) == (8.58, 24.2685)
    assert set(table.query("family == 'pythia'")["status"]) == {"secondary"}


def test_the_norm_rises_with_the_length_of_text_from_128_tokens_on():
    for _, rows in nuclear_norm.by_length().groupby("model"):
        assert rows["tokens"].tolist() == [64, 128, 512, 1024]
        assert rows["mnn"].iloc[1:].is_monotonic_increasing


def test_a_larger_chat_model_is_not_always_lower():
    table = nuclear_norm.chat_models().set_index(["dataset", "model"])
    assert table.loc[("alpaca", "Qwen1.5-72B"), "rises"] == 1
    assert table.loc[("alpaca", "Vicuna-33B"), "rises"] == 0
    assert table["rises"].isna().sum() == 2 * table["series"].nunique()
