"""The benchmark of the nuclear norm compares equal numbers and judges each goal; how fast anything is, is not asked."""

import pandas as pd
import pytest
import torch

from workbench.bench import nuclear_norm as bench
from workbench.metrics import mnn_timing


def test_the_quick_form_times_what_gives_the_same_numbers(monkeypatch):
    monkeypatch.setattr(bench, "TOKENS", 48)
    monkeypatch.setattr(bench, "QUICK_WIDTHS", (64,))
    monkeypatch.setattr(bench, "TEXT_TOKENS", 8)
    table = bench.run(quick=True)
    assert list(table.columns) == bench.ORDER
    metric = table[table["section"] == "metric"].set_index("what")
    assert metric.loc["ours", "value"] == pytest.approx(metric.loc["official nuclear norm", "value"], rel=1e-5)
    assert metric.loc["Gram entropy", "value"] == pytest.approx(metric.loc["official entropy", "value"], abs=2e-5)
    assert metric.loc["true nuclear norm", "value"] <= metric.loc["ours", "value"]
    assert metric.loc["two reads", "cpu_ms"] == pytest.approx(2 * metric.loc["one read", "cpu_ms"], abs=2e-4)
    whole = table[table["section"] == "end to end"].set_index("what")
    assert set(whole.index) == {"forward", "ours", "official nuclear norm", "Gram entropy", "official entropy"}
    assert (whole["cpu_ms"] >= whole.loc["forward", "cpu_ms"]).all()
    assert (table["goal"] == "").all()  # the goals are those of the full form


def row(what, width, cpu, wall, threads=1):
    return {"section": "metric", "what": what, "tokens": 1024, "width": width, "threads": threads, "repeats": 3,
            "wall_ms": wall, "cpu_ms": cpu, "value": 1.0}  # fmt: skip


def test_goals_are_of_their_width_and_of_cpu_time_with_one_thread():
    rows = [row("ours", 2048, 1.0, 1.0), row("official nuclear norm", 2048, 1.7, 1.0),
            row("official entropy", 2048, 999.0, 5000.0), row("Gram entropy", 2048, 60.0, 1.0)]  # fmt: skip
    reached = bench.judged(pd.DataFrame(rows), full=True).set_index("what")["reached"]
    assert reached.tolist() == [None, True, False, True]
    together = bench.judged(pd.DataFrame(rows).assign(threads=2), full=True).set_index("what")["reached"]
    assert together.tolist() == [None, False, True, False]
    narrow = [row("ours", 768, 1.0, 1.0), row("official nuclear norm", 768, 1.0, 1.0),
              row("official entropy", 768, 400.0, 1.0), row("Gram entropy", 768, 1.0, 1.0)]  # fmt: skip
    assert bench.judged(pd.DataFrame(narrow), full=True)["goal"].tolist() == ["", "", "ours >= 400x faster", ""]


def test_calls_take_turns():
    seen = []
    calls = {name: lambda name=name: seen.append(name) or 1.0 for name in "ab"}
    found = mnn_timing.interleaved(calls, repeats=10)
    turn = ["a"] * 5 + ["b"] * 5
    assert seen == ["a", "b", *turn, *turn]  # the first of each pays for memory and is not counted
    assert [one["repeats"] for one in found] == [10, 10]


def test_without_decomposition_nothing_slow_is_called():
    table = mnn_timing.metric_times(torch.randn(8, 6), fast=1, slow=1, decompose=False)
    assert set(table["what"]) == {"ours", "official nuclear norm", "one read", "Gram entropy"}
