"""The benchmark of the quantizers compares like with like; how fast anything is, is not asked here."""

from __future__ import annotations

import time

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from workbench.bench import quantizers as bench
from workbench.bench.quantizer_parts import decode, linear
from workbench.bench.quantizer_parts.timing import COLUMNS, interleaved, row
from workbench.models.small_lm import ModelSize, small_lm


def test_every_way_is_called_equally_often_and_each_is_the_first_of_a_round():
    called = []
    ways = {name: (lambda name=name: called.append(name)) for name in "abc"}
    times = interleaved(ways, repeats=6, calls=2, warm_up=1)
    assert {name: called.count(name) for name in ways} == dict.fromkeys("abc", 6 * 3)
    assert {called[start] for start in range(0, len(called), 9)} == set("abc")
    assert all(wall >= 0 and cpu >= 0 for wall, cpu in times.values())


def test_the_median_is_of_one_call_in_milliseconds():
    def busy():
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass

    assert interleaved({"busy": busy}, repeats=3, calls=2)["busy"][0] >= 2.0


def test_a_row_judges_the_ratio_only_where_something_was_promised():
    kept = row("s", "ours", "theirs", 1, (1.0, 3.0), (2.0, 2.0), goal=1.1, by="wall")
    assert (kept["ratio"], kept["goal"], kept["reached"]) == (0.5, "<= 1.1", True)
    assert row("s", "ours", "theirs", 1, (1.0, 3.0), (2.0, 2.0), goal=1.1)["reached"] is False
    assert row("s", "ours", "theirs", 1, (1.0, 3.0), (2.0, 2.0))["reached"] is None
    assert list(kept) == COLUMNS


def test_all_ways_of_a_layer_multiply_by_the_same_weight():
    layers = linear.make_layers(128)
    inputs = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    exact = F.linear(inputs, layers["float32"].weight)
    halves = ("int4", "_weight_int4pack_mm_for_cpu", "int4 of float32 inputs", "blocked, 4 bits", "naive, 4 bits")
    with torch.no_grad():
        for name, way in linear.make_ways(layers, inputs).items():
            assert (way().float() - exact).norm() < (0.15 if name in halves else 0.03) * exact.norm(), name


def test_the_peer_of_a_kernel_is_the_bare_operation_on_the_same_bytes():
    layers = linear.make_layers(128)
    ways = linear.make_ways(layers, torch.randn(2, 128))
    assert torch.equal(ways["int4"](), ways["_weight_int4pack_mm_for_cpu"]())


def test_a_layers_rows_have_goals_in_the_full_size_only(monkeypatch):
    monkeypatch.setattr(linear, "QUICK_WIDTH", 128)
    monkeypatch.setattr(linear, "WIDTH", 128)
    quick, full = linear.measure(True, 1), linear.measure(False, 1)
    assert (quick.goal == "").all()
    promised = full[full.goal != ""]
    assert set(zip(promised.what, promised.peer, promised.tokens, promised.goal, strict=True)) == {
        *(("int8_dynamic", "quantize_dynamic", tokens, "<= 1.1") for tokens in (1, 16, 128)),
        *(("int4", "_weight_int4pack_mm_for_cpu", tokens, "<= 1.1") for tokens in (1, 16, 128)),
        ("int8_dynamic", "bfloat16", 1, "<= 1"), ("int4", "bfloat16", 1, "<= 1"),
    }  # fmt: skip
    assert (full.wall_ms > 0).all()


@pytest.fixture
def small_model(monkeypatch):
    def load(name: str, *, dtype: str = "float32"):
        model = small_lm(64, ModelSize(96, 2, 4), context=128, seed=0)
        return model.to(getattr(torch, dtype)).eval(), None

    monkeypatch.setattr(decode, "load_pretrained", load)
    monkeypatch.setattr(decode, "GROUP", 32)  # divides its 96 and 256 inputs


def test_a_decoding_step_gives_the_logits_of_the_whole_text_and_leaves_the_cache_as_it_was(small_model):
    model, _ = decode.load_pretrained("any")
    text = decode.context_ids(64)
    with torch.inference_mode():
        step = decode.decode_step(model)
        first, second = step(), step()
        whole = model(torch.cat([text, text[:, -1:]], dim=1)).logits[:, -1:]
    assert torch.equal(first, second)
    torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-4)


def test_the_floor_shares_the_float_models_tensors_and_has_no_products(small_model):
    models = decode.make_models(naive=True)
    assert set(models) == {*decode.SPEED, *decode.GOALS, "int4 in bfloat16", decode.NAIVE, decode.FLOOR}
    assert not any(isinstance(module, torch.nn.Linear) for module in models[decode.FLOOR].modules())
    own = {parameter.data_ptr() for parameter in models["float32"].parameters()}
    assert all(parameter.data_ptr() in own for parameter in models[decode.FLOOR].parameters())
    assert {module.kernel for name, module in models["int4"].named_modules() if name.endswith("up_proj")} == {"int4"}


def test_the_table_has_the_common_columns_around_those_of_the_parts(monkeypatch):
    parts = {
        "one": pd.DataFrame([row("one", "a", "b", 1, (1.0, 1.0), (2.0, 2.0), goal=1.0) | {"tokens": 4}]),
        "two": pd.DataFrame([row("two", "a", "b", 1, (1.23456, 1.0)) | {"mib": 2.0}]),
    }

    class Part:
        def __init__(self, table):
            self.table = table

        def measure(self, quick, threads):
            return self.table.assign(threads=threads)

    monkeypatch.setattr(bench, "PARTS", tuple(parts))
    monkeypatch.setattr(bench, "part", lambda name: Part(parts[name]))
    table = bench.run(quick=True)
    assert list(table.columns) == [*COLUMNS[:-2], "tokens", "mib", *COLUMNS[-2:]]
    assert list(table.threads) == [1, 1]
    assert table.wall_ms.iloc[1] == 1.235


@pytest.mark.parametrize("quick", [True, False])
def test_every_quantised_step_stands_beside_both_float_models_and_bytes_beside_float32(small_model, quick):
    table = decode.measure(quick, 1)
    steps = table[table.wall_ms.notna()]
    expected = {*decode.GOALS, "int4 in bfloat16", decode.FLOOR, *(() if quick else (decode.NAIVE,))}
    assert {(what, peer) for what in expected for peer in decode.SPEED} == set(zip(steps.what, steps.peer, strict=True))
    assert (steps.goal == "").all()  # they are for two threads of the real model
    held = table[table.wall_ms.isna()]
    assert (held.ratio < 1).all()
    assert len(held) == 3
