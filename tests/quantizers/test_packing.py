"""Codes are packed without gaps, and come back as they were."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.quantizers.codebooks import codebook_levels
from workbench.quantizers.lookup import look_up
from workbench.quantizers.packing import pack_codes, packed_width, unpack_codes


@given(bits=st.integers(1, 8), rows=st.integers(1, 3), columns=st.integers(0, 40), seed=st.integers(0, 99))
def test_what_is_packed_comes_back(bits, rows, columns, seed):
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    packed = pack_codes(codes, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    assert torch.equal(unpack_codes(packed, bits, columns), codes)


@pytest.mark.parametrize(("bits", "columns", "size"), [(2, 64, 16), (3, 64, 24), (3, 7, 3), (4, 5, 3), (8, 5, 5)])
def test_no_bit_is_wasted_but_at_the_end_of_a_row(bits, columns, size):
    assert packed_width(columns, bits) == size


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_a_stream_of_bits_from_the_lowest_of_the_first_byte_on(bits):
    codes = torch.randint(2**bits, (11,), dtype=torch.uint8, generator=torch.Generator().manual_seed(bits))
    stream = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    expected = stream.to_bytes(packed_width(11, bits), "little")
    assert bytes(pack_codes(codes, bits).tolist()) == expected


def test_a_code_that_needs_more_bits_is_refused():
    with pytest.raises(ValueError, match="code 9 does not fit into 3 bits"):
        pack_codes(torch.tensor([1, 9], dtype=torch.uint8), 3)


def test_codes_that_are_not_bytes_are_refused():
    with pytest.raises(TypeError, match="must be uint8"):
        pack_codes(torch.tensor([1, 2]), 3)


def test_a_width_that_does_not_fit_the_columns_is_refused():
    with pytest.raises(ValueError, match="expected 4"):
        unpack_codes(torch.zeros(2, 3, dtype=torch.uint8), 4, 8)


@given(bits=st.integers(1, 8), rows=st.integers(1, 3), columns=st.integers(0, 40), seed=st.integers(0, 99))
def test_codes_are_looked_up_in_their_bytes_as_after_unpacking(bits, rows, columns, seed):
    codes = torch.randint(2**bits, (rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(look_up(pack_codes(codes, bits), bits, columns), codes.float())


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_levels_of_a_codebook_are_looked_up_two_at_a_time(name):
    codes = torch.arange(256, dtype=torch.uint8).view(2, 128) % 16
    levels = codebook_levels(name, torch.device("cpu"))
    assert torch.equal(look_up(pack_codes(codes, 4), 4, 128, name), levels[codes.long()])
