"""A quantised embedding gives the rows of its dequantised matrix, and an output layer may share its storage."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.quantizers.embedding import QuantizedEmbedding
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.spec import QuantSpec
from workbench.quantizers.tensor import QuantizedTensor
from workbench.quantizers.transforms import InputScale

VOCAB, WIDTH = 200, 64
IDS = torch.tensor([[3, 0, 199], [3, 64, 7]])
SPECS = [QuantSpec(8, symmetric=True), QuantSpec(8), QuantSpec(4, 32), QuantSpec(4, 32, codebook="nf4"),
         QuantSpec(8, 32), QuantSpec(3)]  # fmt: skip


def make(spec: QuantSpec = SPECS[0], *, dtype: torch.dtype = torch.float32, **options: object) -> QuantizedEmbedding:
    torch.manual_seed(0)
    embedding = nn.Embedding(VOCAB, WIDTH, dtype=dtype)
    return QuantizedEmbedding.from_embedding(embedding, quantize_rtn(embedding.weight, spec), **options)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_rows_are_those_of_the_dequantised_matrix(spec):
    embedding = make(spec)
    found = embedding(IDS)
    assert found.shape == (2, 3, WIDTH)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.embedding(IDS, embedding.quantized.dequantize()))
    assert embedding(IDS[:, :0]).shape == (2, 0, WIDTH)
    assert torch.equal(embedding(IDS.int()), found)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_a_tied_head_multiplies_by_the_very_storage_of_the_embedding(spec):
    embedding = make(spec)
    head = embedding.tied_head(torch.ones(VOCAB))
    assert head.storage is embedding.storage
    assert head.quantized is embedding.quantized
    hidden = torch.randn(2, 3, WIDTH)
    expected = F.linear(hidden, embedding.quantized.dequantize()) + 1
    assert (head(hidden) - expected).norm() < 0.01 * expected.norm()


def test_embedding_and_head_stay_one_when_copied_or_pickled():
    embedding = make()
    pair = nn.ModuleList([embedding, embedding.tied_head()])
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert other[0].storage is other[1].storage
        assert other[0].storage is not embedding.storage
        assert torch.equal(other[0](IDS), embedding(IDS))


def test_rows_come_in_the_dtype_of_the_model():
    assert make(dtype=torch.bfloat16)(IDS).dtype == torch.bfloat16
    assert make().to(torch.float16)(IDS).dtype == torch.float16


def test_it_holds_a_quarter_and_an_eighth_of_the_float_bytes():
    whole = 4 * VOCAB * WIDTH
    assert make().nbytes < 0.30 * whole
    assert make(QuantSpec(4, symmetric=True, scale_dtype="bfloat16")).nbytes < 0.21 * whole
    assert list(make().parameters()) == []
    assert make().state_dict().keys() == {
        "weight.packed",
        "weight.scales.values",
    }


def test_a_scaled_embedding_keeps_its_factor():
    class Scaled(nn.Embedding):
        embed_scale = 8.0

    plain = Scaled(VOCAB, WIDTH)
    quantized = quantize_rtn(plain.weight, SPECS[0])
    torch.testing.assert_close(
        QuantizedEmbedding.from_embedding(plain, quantized)(IDS), 8 * F.embedding(IDS, quantized.dequantize())
    )


def test_what_cannot_be_looked_up_is_refused():
    embedding = nn.Embedding(VOCAB, WIDTH)
    quantized = quantize_rtn(embedding.weight, SPECS[0])
    scaled = QuantizedTensor(
        quantized.spec,
        quantized.shape,
        quantized.packed,
        quantized.scale_table,
        transform=InputScale(torch.ones(WIDTH)),
    )
    with pytest.raises(ValueError, match="looked up by row"):
        QuantizedEmbedding.from_embedding(embedding, scaled)
    with pytest.raises(ValueError, match="cannot read single rows"):
        make(kernel="int8_dynamic")
    with pytest.raises(ValueError, match="max_norm"):
        QuantizedEmbedding.from_embedding(nn.Embedding(VOCAB, WIDTH, max_norm=1.0), quantized)
    with pytest.raises(ValueError, match=r"wte: expected a quantised weight \[100, 64\]"):
        QuantizedEmbedding.from_embedding(nn.Embedding(100, WIDTH), quantized, layer="wte")
    with pytest.raises(TypeError, match=r"expected an nn\.Embedding, got Linear"):
        QuantizedEmbedding.from_embedding(nn.Linear(WIDTH, VOCAB), quantized)
    with pytest.raises(TypeError, match=r"token ids in int64 or int32, got torch\.float32"):
        make()(IDS.float())


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2], SPECS[3]], ids=lambda spec: spec.label)
@pytest.mark.parametrize("wrong", [VOCAB, -1])
def test_an_id_outside_the_vocabulary_is_an_error(spec, wrong):
    with pytest.raises(IndexError):
        make(spec)(torch.tensor([1, wrong]))


def test_a_state_dict_brings_the_rows_back():
    torch.manual_seed(5)
    plain = nn.Embedding(VOCAB, WIDTH)
    other = QuantizedEmbedding.from_embedding(plain, quantize_rtn(plain.weight, SPECS[0]))
    embedding = make()
    assert not torch.equal(other(IDS), embedding(IDS))
    other.load_state_dict(embedding.state_dict())
    assert torch.equal(other(IDS), embedding(IDS))
