"""Texts may come in batches and a text in pieces: the numbers are those of each text as a whole."""

import math

import pytest
import torch

from workbench.metrics.mnn_accumulator import MNNAccumulator, long_text_nuclear_norm
from workbench.metrics.nuclear_norm import matrix_nuclear_norm


def texts(count=7, width=10):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(3 + 2 * place, width, generator=random) + 2 for place in range(count)]


def padded(some):
    longest = max(map(len, some))
    batch, mask = torch.full((len(some), longest, 10), math.nan), torch.zeros(len(some), longest, dtype=torch.bool)
    for place, text in enumerate(some):
        batch[place, : len(text)], mask[place, : len(text)] = text, True
    return batch, mask


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_how_texts_are_batched_does_not_show(size):
    whole, counted = texts(), MNNAccumulator()
    for start in range(0, 7, size):
        counted.add(*padded(whole[start : start + size]))
    assert counted.values == pytest.approx([float(matrix_nuclear_norm(text)) for text in whole])
    assert counted.mean == pytest.approx(sum(counted.values) / 7)


def test_texts_without_a_direction_are_counted_and_left_out_of_the_mean():
    counted = MNNAccumulator()
    counted.add(texts()[2])
    for nothing in (texts()[0][:1], torch.ones(4, 10), torch.empty(0, 10)):
        assert math.isnan(counted.add(nothing))
    assert (counted.skipped, len(counted.values)) == (3, 1)
    assert counted.mean == pytest.approx(float(matrix_nuclear_norm(texts()[2])))
    assert math.isnan(MNNAccumulator().mean)


def test_the_mean_has_an_interval_over_texts():
    counted = MNNAccumulator(per_token=False)
    for text in texts():
        counted.add(text)
    effect = counted.effect()
    assert effect.low < counted.mean < effect.high
    assert effect.n == 7
    with pytest.raises(ValueError, match="empty"):
        MNNAccumulator().effect()


def test_two_halves_merge_and_unlike_ones_do_not():
    first, second = MNNAccumulator(), MNNAccumulator()
    first.add(texts()[0])
    second.add(texts()[1])
    second.add(torch.ones(2, 10))
    first.merge(second)
    assert (len(first.values), first.skipped) == (2, 1)
    with pytest.raises(ValueError, match="do not average"):
        first.merge(MNNAccumulator(top=2))


def test_a_refused_batch_counts_nothing():
    counted = MNNAccumulator()
    with pytest.raises(ValueError, match="NaN or infinity"):
        counted.add(torch.stack([texts()[1], texts()[1] * math.inf]))
    assert (counted.values, counted.skipped) == ([], 0)


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_long_text_in_pieces_is_the_text(size, dtype):
    text = (torch.randn(53, 10, generator=torch.Generator().manual_seed(3)) + 20).to(dtype)
    for options in ({}, {"top": 3}, {"per_token": False}):
        found = long_text_nuclear_norm(lambda: text.split(size), **options)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert float(found) == pytest.approx(float(matrix_nuclear_norm(text, **options)), rel=1e-5)


def test_pieces_that_are_no_text_are_nan_or_refused():
    assert math.isnan(long_text_nuclear_norm(lambda: iter(())))
    assert math.isnan(long_text_nuclear_norm(lambda: torch.ones(6, 4).split(2)))
    once = iter(torch.randn(6, 4).split(2))
    with pytest.raises(ValueError, match="the same twice"):
        long_text_nuclear_norm(lambda: once)
    with pytest.raises(ValueError, match="one width"):
        long_text_nuclear_norm(lambda: [torch.randn(3, 4), torch.randn(3, 5)])
    with pytest.raises(ValueError, match=r"min\(tokens, width\) = 4"):
        long_text_nuclear_norm(lambda: [torch.randn(6, 4)], top=5)
    with pytest.raises(ValueError, match="NaN or infinity"):
        long_text_nuclear_norm(lambda: [torch.full((6, 4), math.inf)])
