"""The networks of the papers and smaller ones for two cores, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from fastrw.demo.models import seeded
from fastrw.testing import models
from fastrw.testing.models import Shape


def make_model(name: str, shape: Shape, classes: int, seed: int) -> nn.Module:
    """The network `name` for images of `shape`; its initial values depend on `seed` alone."""
    return seeded(MODELS[name], shape, classes, seed)


def lenet(shape: Shape, classes: int) -> nn.Module:
    """LeNet-5; two convolutions of 3x3 where the images are too small for it."""
    return (models.small if min(shape[1:]) < 16 else models.lenet)(shape, classes)


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "lenet": lenet,
    "convnet": models.convnet,
    "resnet32": models.resnet,
    "resnet32_gn": partial(models.resnet, norm=partial(nn.GroupNorm, 8)),
    "wrn28_10": partial(models.wide_resnet, dropout=0.3),  # Ren et al. 2018, section 4.2
}
