"""The five models that every end-to-end figure is taken on, each with a training and a validation batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


def mlp() -> nn.Module:
    wide = [layer for _ in range(2) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), *wide, nn.Linear(1024, 10))


def lenet() -> nn.Module:
    first = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*first, *second, *head)


class Attention(nn.Module):
    """Written out: the fused kernel has no second derivative, so double backward could not run beside it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [n, T, d]
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, dim=-1))
        attention = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
        return self.out((attention @ v).transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Tokens to classes; pre-norm, mean over positions."""

    def __init__(self, width: int = 128, layers: int = 4, heads: int = 4, vocabulary: int = 1000, classes: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(tokens)).mean(1))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), norm(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), norm(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet32(norm: Callable[[int], nn.Module]) -> nn.Module:
    widths = [16] * 5 + [32] * 5 + [64] * 5
    blocks = [ResidualBlock(i, o, 1 if i == o else 2, norm) for i, o in zip([16, *widths[:-1]], widths, strict=True)]
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), norm(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@dataclass(frozen=True)
class Model:
    """A model and the batches it is measured on: n training examples, m validation examples."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    classes: int = 10
    n: int = 100
    m: int = 10

    def make(self, device: str = "cpu", n: int | None = None, m: int | None = None) -> tuple[nn.Module, Batch, Batch]:
        """The model, a training batch and a validation batch, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().to(device)
            sizes = (n or self.n, m or self.m)
            train, val = ((self.inputs(b).to(device), torch.randint(self.classes, (b,)).to(device)) for b in sizes)
        return model, train, val


def images(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape)


MODELS = {
    "mlp": Model(mlp, images(784)),
    "lenet": Model(lenet, images(1, 28, 28)),
    "transformer": Model(Transformer, lambda n: torch.randint(1000, (n, 64)), classes=2, n=64, m=8),
    "resnet32_gn": Model(partial(resnet32, partial(nn.GroupNorm, 8)), images(3, 32, 32)),
    "resnet32_bn": Model(partial(resnet32, nn.BatchNorm2d), images(3, 32, 32)),
}
