"""What is kept of a layer's inputs stands for all of them."""

import pytest
import torch

from workbench.quantizers.layer_inputs import SAMPLES, LayerInputs
from workbench.quantizers.recipes import LayerRecipe
from workbench.quantizers.spec import QuantSpec

AWQ = LayerRecipe(QuantSpec(4, 32), "awq")


@pytest.mark.parametrize(("sequences", "time"), [(32, 512), (16, 256), (7, 300), (3, 100)])
@pytest.mark.parametrize("batch", [1, 5])
def test_samples_are_spread_over_all_places_of_a_sequence(sequences, time, batch):
    gathered = LayerInputs(1, [AWQ], tokens=sequences * time)
    places = torch.arange(time).float()[:, None]
    for start in range(0, sequences, batch):
        gathered.add(places.repeat(min(batch, sequences - start), 1))
    kept = gathered.samples.flatten()
    counts = torch.bincount(kept.long(), minlength=time)
    assert len(kept) == min(sequences * time, SAMPLES)
    # The first token of a sequence draws all attention: met at every sequence, it would decide a search alone.
    assert counts.max() <= -(-len(kept) // time) + 1


def test_the_largest_magnitude_is_that_of_all_inputs_not_of_the_samples():
    gathered = LayerInputs(4, [AWQ], tokens=5000)
    inputs = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    gathered.add(inputs)
    assert torch.equal(gathered.absmax, inputs.abs().amax(0))
