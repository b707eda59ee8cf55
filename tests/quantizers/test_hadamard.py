"""What a randomised Hadamard rotation promises: an orthonormal change of basis, for any width, from a seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.quantizers.hadamard import Hadamard, factors_of, hadamard_rotate, incoherence
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.transforms import restore_transform

SIGNS_OF_SEED_0 = [-1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]


def matrix(width: int, seed: int = 0) -> torch.Tensor:
    return Hadamard(width, seed).apply_to_inputs(torch.eye(width, dtype=torch.float64)).t()


@pytest.mark.parametrize("width", [2, 12, 20, 28, 36, 60, 64, 76, 108, 140, 148, 192, 576, 960, 1536])
def test_a_width_of_a_known_order_gets_a_true_hadamard_matrix(width):
    rotation = matrix(width)
    torch.testing.assert_close(rotation @ rotation.t(), torch.eye(width, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(rotation.abs(), torch.full_like(rotation, width**-0.5), rtol=1e-6, atol=0)
    assert Hadamard(width).block == width


@pytest.mark.parametrize(
    ("width", "factors"),
    [(576, [36, 16]), (1536, [12, 32, 4]), (2048, [32, 32, 2]), (11008, [32, 8]), (9, []), (1, [])],
)
def test_the_factors_of_a_width(width, factors):
    assert factors_of(width) == factors
    assert Hadamard(width).block == math.prod(factors)


def test_a_power_of_two_is_sylvester_s_matrix_times_the_signs():
    from scipy.linalg import hadamard

    rotation = matrix(64, seed=5)
    signs = rotation[0].sign()  # the first row of Sylvester's matrix is all ones
    expected = torch.from_numpy(hadamard(64)).double() / 8 * signs
    torch.testing.assert_close(rotation, expected, rtol=0, atol=1e-7)


@given(width=st.integers(1, 96), seed=st.integers(0, 2**40), rows=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_product_stays_and_the_weight_comes_back(width, seed, rows):
    torch.manual_seed(seed % 1000)
    rotation, weight, inputs = Hadamard(width, seed), torch.randn(4, width), torch.randn(rows, width)
    turned = rotation.apply_to_weight(weight)
    torch.testing.assert_close(rotation.apply_to_inputs(inputs) @ turned.t(), inputs @ weight.t(), rtol=0, atol=2e-4)
    torch.testing.assert_close(rotation.undo_on_weight(turned), weight, rtol=0, atol=2e-6)
    torch.testing.assert_close(turned.norm(dim=1), weight.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_the_hessian_is_that_of_rotated_inputs():
    torch.manual_seed(0)
    inputs, rotation = torch.randn(50, 36), Hadamard(36, 1)
    turned = rotation.apply_to_inputs(inputs)
    torch.testing.assert_close(rotation.apply_to_hessian(inputs.t() @ inputs), turned.t() @ turned, rtol=0, atol=1e-4)


def test_one_outlier_is_spread_over_all_columns():
    weight = torch.zeros(1, 576)
    weight[0, 77] = 3.0
    assert incoherence(weight) == pytest.approx(24.0)  # sqrt(576)
    turned = hadamard_rotate(weight, seed=3)
    assert incoherence(turned) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(turned.abs(), torch.full_like(turned, 3 / 24), rtol=1e-5, atol=0)


def test_blocks_keep_an_outlier_among_themselves():
    weight = torch.zeros(1, 8 * 43)  # 43 is no part of an order that Paley's primes make from so few twos
    weight[0, 11] = 1.0
    assert hadamard_rotate(weight).nonzero()[:, 1].tolist() == list(range(8, 16))


def test_rotation_makes_columns_with_outliers_easier_to_round():
    torch.manual_seed(0)
    weight = torch.randn(64, 576)
    weight[:, ::50] *= 20
    spec, rotation = QuantSpec(4), Hadamard(576)

    def error(matrix: torch.Tensor) -> float:
        return float((quantize_rtn(matrix, spec).dequantize() - matrix).square().sum())

    turned = rotation.apply_to_weight(weight)
    assert incoherence(turned) < incoherence(weight) / 2
    assert error(turned) < error(weight) / 3


def test_a_seed_is_the_same_rotation_everywhere_and_another_seed_another():
    # The first signs of seed 0, stored: a saved model finds its rotation again.
    assert Hadamard(8, 0).apply_to_inputs(torch.eye(8))[:, 0].sign().tolist() == SIGNS_OF_SEED_0
    assert not torch.equal(matrix(64, 0), matrix(64, 1))


def test_the_description_is_all_that_is_stored():
    rotation = Hadamard(192, 9)
    again = restore_transform(rotation.description(), rotation.tensors())
    inputs = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    assert again == rotation
    assert torch.equal(again.apply_to_inputs(inputs), rotation.apply_to_inputs(inputs))
    assert rotation.tensors() == {}
    assert rotation.nbytes == 0


def test_half_precision_comes_back_as_it_went():
    inputs = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    turned = Hadamard(64).apply_to_inputs(inputs)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, Hadamard(64).apply_to_inputs(inputs.float()).bfloat16())


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Hadamard(0), ValueError, "width=0"),
        (lambda: Hadamard(8, -1), ValueError, "seed=-1"),
        (lambda: Hadamard(8).apply_to_inputs(torch.ones(2, 9)), ValueError, "8 inputs"),
        (lambda: Hadamard(8).apply_to_inputs(torch.ones(2, 8, dtype=torch.int64)), TypeError, "floating"),
        (lambda: hadamard_rotate(torch.ones(8)), ValueError, "out, in"),
    ],
)
def test_bad_input_is_told(make, kind, words):
    with pytest.raises(kind, match=words):
        make()
