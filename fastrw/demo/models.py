"""A network for each kind of image. None has BatchNorm, so the layerwise method serves them all."""

from collections.abc import Callable

import torch
from torch import nn

from fastrw.testing.models import Shape, colour, lenet, small


def make_model(shape: Shape, classes: int, seed: int) -> nn.Module:
    """The network for images of `shape` [C, H, W]; its initial values depend on `seed` alone."""
    channels, height, width = shape
    return seeded(small if min(height, width) < 16 else lenet if channels == 1 else colour, shape, classes, seed)


def seeded(make: Callable[[Shape, int], nn.Module], shape: Shape, classes: int, seed: int) -> nn.Module:
    """make(shape, classes), drawing its initial values from `seed` alone."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return make(shape, classes)
