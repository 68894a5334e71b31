"""The networks of the papers and smaller ones for two cores, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models import ResidualBlock
from fastrw.demo.models import lenet as _lenet
from fastrw.demo.models import small

Shape = tuple[int, int, int]  # C, H, W


def make_model(name: str, shape: Shape, classes: int, seed: int) -> nn.Module:
    """The network `name` for images of `shape`, its parameters drawn from `seed` alone."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return MODELS[name](shape, classes)


def lenet(shape: Shape, classes: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling; two convolutions of 3x3 where the images are too small for it."""
    return (small if min(shape[1:]) < 16 else _lenet)(shape, classes)


def convnet(shape: Shape, classes: int) -> nn.Module:
    """Three strided convolutions of 16, 32 and 64 channels with GroupNorm: 24 thousand parameters and a head."""
    blocks, (channels, height, width) = [], shape
    for each in (16, 32, 64):
        blocks += [nn.Conv2d(channels, each, 3, 2, padding=1), nn.GroupNorm(8, each), nn.ReLU()]
        channels, height, width = each, -(-height // 2), -(-width // 2)
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(channels * height * width, classes))


def resnet(shape: Shape, classes: int, blocks: int = 5, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A ResNet of 6 * blocks + 2 layers for small images (He et al. 2016): ResNet-32 at 5 blocks."""
    widths = [16] * blocks + [32] * blocks + [64] * blocks
    body = [ResidualBlock(i, o, 1 if i == o else 2, norm) for i, o in zip([16, *widths[:-1]], widths, strict=True)]
    stem = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), norm(16), nn.ReLU()]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class WideBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice, with dropout between, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm1(x))
        y = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(z)))))
        return y + (x if self.shortcut is None else self.shortcut(z))


def wide_resnet(shape: Shape, classes: int, depth: int = 28, widen: int = 10, dropout: float = 0.3) -> nn.Module:
    """WRN-28-10 (Zagoruyko & Komodakis 2016) with dropout 0.3, as in Ren et al. 2018, section 4.2."""
    layers, channels = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)], 16
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
        for block in range((depth - 4) // 6):
            layers.append(WideBlock(channels, width, 2 if stage and not block else 1, dropout))
            channels = width
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *head)


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "lenet": lenet,
    "convnet": convnet,
    "resnet32": resnet,
    "resnet32_gn": partial(resnet, norm=partial(nn.GroupNorm, 8)),
    "wrn28_10": wide_resnet,
}
