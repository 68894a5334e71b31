"""A network for each kind of image. None has BatchNorm, so the layerwise method serves them all."""

import torch
from torch import nn

from fastrw.testing.models import Shape, colour, lenet, small


def make_model(shape: Shape, classes: int, seed: int) -> nn.Sequential:
    """The network for images of `shape` [C, H, W]; its initial values depend on `seed` alone."""
    channels, height, width = shape
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        make = small if min(height, width) < 16 else lenet if channels == 1 else colour
        return make(shape, classes)
