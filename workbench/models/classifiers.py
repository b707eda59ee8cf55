"""Classifiers of pictures by name: perceptrons, a small convolutional network, CIFAR's residual networks."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import UnknownName
from workbench.runtime import seeded

STAGES = 3  # of a CIFAR residual network, each with twice the channels and half the size
NAMES = re.compile(r"(?:(?P<width>[1-9]\d*)x(?P<layers>[1-9]\d*)|cnn(?P<channels>[1-9]\d*)|resnet(?P<depth>[1-9]\d*))")


def named_classifier(name: str, shape: tuple[int, int, int], classes: int, *, seed: int) -> nn.Module:
    """The classifier called ``name`` for pictures of ``shape`` (channels, height, width), initialised by ``seed``.

    ``256x2`` is a perceptron with two hidden layers of 256, ``cnn16`` has convolutions of 16 and 32 channels,
    ``resnet20`` is He et al.'s (2016) for CIFAR with 20 layers (8, 14, 20, 26, ...).

    Raises:
        UnknownName: no such form of name, or a depth that residual networks do not have.
    """
    check_classifier(name)
    found = NAMES.fullmatch(name)
    with seeded(seed):
        if found["width"]:
            return perceptron(shape, classes, width=int(found["width"]), layers=int(found["layers"]))
        if found["channels"]:
            return convolutional(shape, classes, channels=int(found["channels"]))
        return ResidualNetwork(shape[0], classes, blocks=(int(found["depth"]) - 2) // (2 * STAGES))


def check_classifier(name: str) -> None:
    """Raise :class:`UnknownName` unless :func:`named_classifier` knows ``name``."""
    found = NAMES.fullmatch(name)
    if found is None or (found["depth"] and (int(found["depth"]) < 8 or (int(found["depth"]) - 2) % (2 * STAGES))):
        raise UnknownName(
            f"classifier={name!r} must be widthxlayers such as 256x2, cnn with its channels such as cnn16, "
            "or resnet with 6n + 2 layers such as resnet20."
        )


def perceptron(shape: tuple[int, int, int], classes: int, *, width: int, layers: int) -> nn.Sequential:
    """Flattened pixels through ``layers`` hidden layers of ``width`` with ReLU; ``[batch, classes]`` logits."""
    parts: list[nn.Module] = [nn.Flatten()]
    inputs = shape[0] * shape[1] * shape[2]
    for _ in range(layers):
        parts += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*parts, nn.Linear(inputs, classes))


def convolutional(shape: tuple[int, int, int], classes: int, *, channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each halved by max pooling, then a linear layer; for 8 x 8 pictures and larger."""
    height, width = shape[1] // 4, shape[2] // 4
    return nn.Sequential(
        nn.Conv2d(shape[0], channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * channels * height * width, classes),
    )  # fmt: skip


class ResidualNetwork(nn.Module):
    """He et al.'s (2016) network for CIFAR: three stages of 16, 32 and 64 channels, shortcuts without weights."""

    def __init__(self, channels: int, classes: int, *, blocks: int) -> None:
        super().__init__()
        widths = [16 * 2**stage for stage in range(STAGES)]
        self.first = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        inputs = [16, *widths[:-1]]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(before if block == 0 else width, width)
                for before, width in zip(inputs, widths, strict=True)
                for block in range(blocks)
            )
        )
        self.last = nn.Linear(widths[-1], classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``[batch, classes]`` of pictures ``[batch, channels, height, width]``."""
        return self.last(self.blocks(self.first(pictures)).mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which where channels double takes every second pixel and adds zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.padding = outputs - inputs
        self.convolutions = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, inputs, height, width]`` to ``[batch, outputs, height / stride, width / stride]``."""
        shortcut = F.pad(hidden[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padding))
        return F.relu(self.convolutions(hidden) + shortcut)


def parameter_count(model: nn.Module) -> int:
    """Numbers that training moves."""
    return sum(tensor.numel() for tensor in model.parameters())
