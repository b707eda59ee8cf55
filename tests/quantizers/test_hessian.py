"""The running mean of ``2 x x^T``, and what it refuses."""

import pytest
import torch

from workbench.quantizers import hessian as hessian_module
from workbench.quantizers.hessian import HessianAccumulator, check_hessian


def tokens(count=50, width=7, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_it_is_twice_the_mean_outer_product_over_tokens():
    inputs = tokens()
    found = HessianAccumulator(7).add(inputs).hessian
    torch.testing.assert_close(found, 2 / 50 * inputs.t() @ inputs)


def test_tokens_weigh_alike_however_they_are_batched():
    inputs = tokens(60)
    whole = HessianAccumulator(7).add(inputs)
    parts = HessianAccumulator(7).add(inputs[:10].view(2, 5, 7)).add(inputs[10:11]).add(inputs[11:].view(7, 7, 7))
    assert parts.tokens == whole.tokens == 60
    torch.testing.assert_close(parts.hessian, whole.hessian)


def test_tiles_and_chunks_do_not_show(monkeypatch):
    inputs = tokens(90, 23)
    expected = HessianAccumulator(23).add(inputs).hessian
    monkeypatch.setattr(hessian_module, "TILE", 5)
    monkeypatch.setattr(hessian_module, "CHUNK", 7)
    found = HessianAccumulator(23).add(inputs).hessian
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, found.t())


def test_masked_tokens_count_nothing_not_even_if_they_are_nan():
    inputs, mask = tokens(20).view(4, 5, 7), torch.ones(4, 5, dtype=torch.bool)
    mask[1, 3:] = False
    padded = inputs.masked_fill(~mask[..., None], torch.nan)
    found = HessianAccumulator(7).add(padded, mask)
    assert found.tokens == 18
    torch.testing.assert_close(found.hessian, HessianAccumulator(7).add(inputs[mask]).hessian)


def test_half_precision_inputs_are_summed_in_float32_and_float64_on_demand():
    inputs = tokens(40).bfloat16()
    assert HessianAccumulator(7).add(inputs).hessian.dtype == torch.float32
    wide = HessianAccumulator(7, dtype=torch.float64).add(inputs).hessian
    torch.testing.assert_close(wide, 2 / 40 * inputs.double().t() @ inputs.double(), rtol=1e-12, atol=1e-12)


def test_large_half_precision_inputs_do_not_overflow():
    found = HessianAccumulator(3).add(torch.full((10, 3), 60000.0, dtype=torch.float16)).hessian
    torch.testing.assert_close(found, torch.full((3, 3), 2 * 60000.0**2))


def test_an_empty_calibration_is_an_error_that_names_layer_and_remedy():
    empty = HessianAccumulator(7, layer="blocks.3.q").add(torch.zeros(0, 7))
    with pytest.raises(ValueError, match=r"blocks\.3\.q: the calibration is empty.*run at least one batch"):
        _ = empty.hessian


@pytest.mark.parametrize(
    ("inputs", "mask", "error", "said"),
    [
        (torch.zeros(3, 8), None, ValueError, r"q: expected inputs \[\.\.\., 7\], got \(3, 8\)"),
        (torch.zeros(3, 7, dtype=torch.long), None, TypeError, "q: expected floating inputs.*int64"),
        (None, None, TypeError, "q: expected floating inputs.*NoneType"),
        (torch.zeros(2, 3, 7), torch.ones(2, 3), TypeError, "q: mask must be a bool tensor"),
        (torch.zeros(2, 3, 7), torch.ones(2, 4, dtype=torch.bool), ValueError, r"q: mask has shape \(2, 4\)"),
        (torch.tensor([[1.0] * 7, [torch.inf] * 7]), None, ValueError, "q: 1 of 2 tokens have NaN or infinite inputs"),
    ],
)
def test_wrong_inputs_are_refused_and_leave_what_was_added(inputs, mask, error, said):
    accumulator = HessianAccumulator(7, layer="q").add(tokens())
    before = accumulator.hessian
    with pytest.raises(error, match=said):
        accumulator.add(inputs, mask)
    assert torch.equal(accumulator.hessian, before)


@pytest.mark.parametrize("width", [0, -3, 2.5, True])
def test_a_width_is_a_whole_number(width):
    with pytest.raises(ValueError, match="width="):
        HessianAccumulator(width)


def test_an_accumulator_sums_in_float32_or_float64_only():
    with pytest.raises(TypeError, match=r"torch\.float32 or torch\.float64"):
        HessianAccumulator(4, dtype=torch.float16)


@pytest.mark.parametrize(
    ("hessian", "error", "said"),
    [
        (torch.eye(5), ValueError, r"q: the weight has 4 inputs.*\(5, 5\).*transposed"),
        (torch.ones(4), ValueError, r"q: the weight has 4 inputs"),
        (torch.eye(4, dtype=torch.int32), TypeError, "q: expected a floating Hessian"),
        ([[1.0]], TypeError, "q: expected a floating Hessian.*list"),
        (torch.eye(4) * torch.nan, ValueError, "q: 16 of 16 entries of the Hessian are NaN or infinite"),
        (-torch.eye(4), ValueError, "q: the Hessian has 4 negative diagonal entries"),
        (torch.zeros(4, 4), ValueError, "q: the Hessian is zero.*reaches it"),
    ],
)
def test_what_is_no_hessian_of_the_layer_is_refused(hessian, error, said):
    with pytest.raises(error, match=said):
        check_hessian(hessian, 4, "q")


def test_a_hessian_whose_sum_overflows_is_still_finite():
    assert torch.equal(check_hessian(torch.full((4, 4), 3e38), 4), torch.full((4, 4), 3e38))
