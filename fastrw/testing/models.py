"""Networks of full size: those of the demo, the benchmarks and the papers' experiments.

The order in which a network makes its parameters is part of it: a seed gives the same initial values in every release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .parts import dense

Shape = tuple[int, int, int]  # C, H, W
Norm = Callable[[int], nn.Module]  # number of channels -> the layer


def mlp(inputs: int = 784, width: int = 1024, depth: int = 3, classes: int = 10) -> nn.Sequential:
    """`depth` hidden layers of `width` features with ReLU, and a head."""
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), *hidden, nn.Linear(width, classes))


def small(shape: Shape, classes: int) -> nn.Sequential:
    """Two convolutions and two linear layers, for images such as 8x8 digits."""
    features = [nn.Conv2d(shape[0], 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
                nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]  # fmt: skip
    return _headed(features, shape, 128, classes)


def lenet(shape: Shape, classes: int) -> nn.Sequential:
    """LeNet-5 with ReLU and max pooling, for images such as MNIST's."""
    features = [nn.Conv2d(shape[0], 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]  # fmt: skip
    return _headed(features, shape, 120, 84, classes)


def _group_normed(shape: Shape, classes: int, widths: Sequence[int], *, pool: bool) -> nn.Sequential:
    """A block for each width: convolution, GroupNorm, ReLU; it halves the image by pooling or by its stride."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((shape[0], *widths)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1 if pool else 2, padding=1), nn.GroupNorm(8, outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return _headed(layers, shape, classes)


colour = partial(_group_normed, widths=(32, 64, 128), pool=True)  # for colour images
convnet = partial(_group_normed, widths=(16, 32, 64), pool=False)  # 24 thousand parameters and a head


def _headed(features: Sequence[nn.Module], shape: Shape, *widths: int) -> nn.Sequential:
    """The features of images of this shape, flattened, and linear layers to these widths with ReLU between them."""
    flat = nn.Sequential(*features, nn.Flatten())
    with torch.no_grad():
        width = flat(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*flat, *dense(width, *widths, activation=nn.ReLU))


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), norm(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), norm(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [n, C, H, W]
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


RESNET_32 = (16,) * 5 + (32,) * 5 + (64,) * 5


def resnet(shape: Shape, classes: int, widths: Sequence[int] = RESNET_32, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """A ResNet for small images (He et al. 2016): a block for each width, strided where the width changes."""
    inputs = [widths[0], *widths[:-1]]
    blocks = [ResidualBlock(i, o, 1 if i == o else 2, norm) for i, o in zip(inputs, widths, strict=True)]
    stem = [nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False), norm(widths[0]), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each convolution, dropout between the two, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [n, C, H, W]
        z = F.relu(self.norm1(x))
        y = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(z)))))
        return y + (x if self.shortcut is None else self.shortcut(z))


def wide_resnet(shape: Shape, classes: int, depth: int = 28, widen: int = 10, dropout: float = 0.0, *,
                stem_last: bool = False) -> nn.Sequential:  # fmt: skip
    """WRN-28-10 (Zagoruyko & Komodakis 2016). `stem_last`: the first convolution is the last to draw its values."""
    stem = partial(nn.Conv2d, shape[0], 16, 3, padding=1, bias=False)
    layers, channels = [] if stem_last else [stem()], 16
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
        for block in range((depth - 4) // 6):
            layers.append(WideBlock(channels, width, 2 if stage and not block else 1, dropout))
            channels = width
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*([stem()] if stem_last else []), *layers, *head)


class Attention(nn.Module):
    """Self-attention, written out or by torch's fused kernel.

    The fused kernel has no second derivative and no forward mode, so Algorithm 1 cannot differentiate through it."""

    def __init__(self, width: int, heads: int, *, fused: bool = False, causal: bool = False):
        super().__init__()
        self.heads, self.fused, self.causal = heads, fused, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [n, T, d]
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, dim=-1))
        if self.fused:
            rows = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            rows = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v
        return self.out(rows.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention and two linear layers with GELU, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int, growth: int = 4, **attention: bool):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, **attention)
        self.norm2, self.up = nn.LayerNorm(width), nn.Linear(width, growth * width)
        self.down = nn.Linear(growth * width, width)

    def forward(self, x: Tensor) -> Tensor:  # [n, T, d]
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class FusedLayer(TransformerLayer):
    """The same with fused attention, whose parameters are drawn last."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__(width, heads)
        self.attention = Attention(width, heads, fused=True, causal=causal)


class Transformer(nn.Module):
    """Tokens to classes: written-out attention, mean over positions."""

    def __init__(self, width: int = 128, layers: int = 4, heads: int = 4, vocabulary: int = 1000, classes: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:  # [n, T] -> [n, classes]
        return self.head(self.layers(self.embedding(tokens)).mean(1))


class VisionTransformer(nn.Module):
    """ViT-S (Dosovitskiy et al. 2021): patches, a class token, learned positions."""

    def __init__(self, width: int = 384, layers: int = 12, heads: int = 6, patch: int = 16, size: int = 224,
                 classes: int = 1000):  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.Sequential(*(FusedLayer(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # [n, 3, size, size] -> [n, classes]
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


class LanguageModel(nn.Module):
    """GPT-2 small (Radford et al. 2019): causal, learned positions, the head tied to the embedding."""

    def __init__(self, width: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 50257,
                 longest: int = 1024):  # fmt: skip
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.layers = nn.Sequential(*(FusedLayer(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:  # [n, T] -> [n, T, vocabulary]
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.layers(x)))
