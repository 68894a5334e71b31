"""A network for each kind of image. None lets examples meet (no BatchNorm), so the layerwise method serves them all."""

import torch
from torch import nn


def make_model(shape: tuple[int, int, int], classes: int, seed: int) -> nn.Sequential:
    """The network for images of `shape` [C, H, W], its parameters drawn from `seed` alone."""
    channels, height, width = shape
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        make = small if min(height, width) < 16 else lenet if channels == 1 else colour
        return make(shape, classes)


def small(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Two convolutions and two linear layers, for images such as 8x8 digits."""
    features = nn.Sequential(
        nn.Conv2d(shape[0], 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential(*features, nn.Linear(_width(features, shape), 128), nn.ReLU(), nn.Linear(128, classes))


def lenet(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """LeNet-5 with ReLU and max pooling, for grey images such as MNIST."""
    features = nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential(
        *features, nn.Linear(_width(features, shape), 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


def colour(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Three blocks of convolution, GroupNorm, ReLU and pooling, for colour images."""
    blocks, channels = [], shape[0]
    for width in (32, 64, 128):
        blocks += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    features = nn.Sequential(*blocks, nn.Flatten())
    return nn.Sequential(*features, nn.Linear(_width(features, shape), classes))


def _width(features: nn.Sequential, shape: tuple[int, int, int]) -> int:
    with torch.no_grad():
        return features(torch.zeros(1, *shape)).shape[1]
