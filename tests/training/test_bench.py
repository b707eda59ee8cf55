"""The benchmarks of training run and compare like with like; how fast anything is, is not asked here."""

import torch

from workbench.bench import replicas as replicas_bench
from workbench.bench import training as bench


def test_the_benchmark_has_a_row_a_loop_and_the_bare_one_is_its_own_measure():
    table = bench.run(quick=True).set_index("loop")
    assert set(table.index) == {"bare", "fit"}
    assert table.speed["bare"] == 1.0
    assert table.parameters.between(0.8e6, 1.2e6).all()


def test_both_loops_take_the_same_kind_of_step():
    size = bench.ModelSize(16, 1, 1)
    batches = list(torch.randint(bench.VOCABULARY, (1, 2, 9), generator=torch.Generator().manual_seed(0)))
    models = [bench.small_lm(bench.VOCABULARY, size, context=8, seed=0) for _ in range(2)]
    bench._bare(models[0], batches)
    bench._fit(models[1], batches)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_the_replicas_of_the_benchmark_end_where_the_plain_loop_ends():
    for name, (make, data) in replicas_bench.MODELS.items():
        row = replicas_bench._row(name, make, data, count=2, steps=3, repeats=1)
        assert row["difference"] < 1e-5
        assert row["speed"] > 0
