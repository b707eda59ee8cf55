"""Classifiers by name: the sizes that papers print, and names that are refused."""

import pytest
import torch

from workbench.errors import UnknownName
from workbench.models.classifiers import check_classifier, named_classifier, parameter_count


def test_a_perceptron_has_the_weights_that_its_name_says():
    assert parameter_count(named_classifier("256x2", (1, 8, 8), 10, seed=0)) == 64 * 256 + 256 + 256 * 257 + 2570
    assert parameter_count(named_classifier("12x1", (1, 8, 8), 10, seed=0)) == 64 * 12 + 12 + 130


def test_the_residual_network_of_20_layers_has_the_published_270_thousand_weights():
    network = named_classifier("resnet20", (3, 32, 32), 10, seed=0)
    assert parameter_count(network) == 269_722
    layers = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 20


@pytest.mark.parametrize("name", ["16x2", "cnn4", "resnet8"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_every_form_takes_pictures_of_every_size(name, shape):
    network = named_classifier(name, shape, 7, seed=0).eval()
    assert network(torch.rand(2, *shape)).shape == (2, 7)


def test_the_seed_alone_decides_the_weights():
    first, again, other = (named_classifier("cnn4", (1, 8, 8), 3, seed=seed) for seed in (1, 1, 2))
    pictures = torch.rand(4, 1, 8, 8)
    assert torch.equal(first(pictures), again(pictures))
    assert not torch.equal(first(pictures), other(pictures))


@pytest.mark.parametrize("name", ["256", "0x2", "cnn", "resnet2", "resnet21", "lenet", "16x2 "])
def test_names_that_mean_nothing_are_refused(name):
    with pytest.raises(UnknownName, match="256x2"):
        check_classifier(name)
