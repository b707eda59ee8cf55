"""The benchmark of the training loop runs and compares like with like; how fast it is, is not asked here."""

import torch

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
