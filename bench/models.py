"""The models that every end-to-end figure is taken on, each with a training and a validation batch.

Five of a size for two CPU cores; three more of the size that people train on a GPU."""

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


class WideBlock(nn.Module):
    """Norm and ReLU before each convolution (Zagoruyko & Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        past = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(F.relu(self.norm2(self.conv1(y)))) + past


def wide_resnet(depth: int = 28, widening: int = 10, classes: int = 10) -> nn.Module:
    each, widths = (depth - 4) // 6, [16 * widening, 32 * widening, 64 * widening]
    blocks, inputs = [], 16
    for stage, outputs in enumerate(widths):
        for index in range(each):
            blocks.append(WideBlock(inputs, outputs, 2 if stage and not index else 1))
            inputs = outputs
    end = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), *blocks, *end)


class FusedAttention(nn.Module):
    """As one writes it: torch's fused kernel, which Algorithm 1 and forward mode cannot differentiate again."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [n, T, d]
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(out.transpose(1, 2).flatten(2))


class PreNormLayer(TransformerLayer):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__(width, heads)
        self.attention = FusedAttention(width, heads, causal)


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021: patches, a class token, learned positions."""

    def __init__(self, width: int = 384, layers: int = 12, heads: int = 6, patch: int = 16, size: int = 224,
                 classes: int = 1000):  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.Sequential(*(PreNormLayer(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # [n, 3, size, size]
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


class LanguageModel(nn.Module):
    """GPT-2 (Radford et al. 2019): causal, learned positions, the head tied to the embedding."""

    def __init__(
        self, width: int = 768, layers: int = 12, heads: int = 12, vocabulary: int = 50257, longest: int = 1024
    ):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.layers = nn.Sequential(*(PreNormLayer(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:  # [n, T] -> [n, T, vocabulary]
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.layers(x)))


@dataclass(frozen=True)
class Model:
    """A model and the batches it is measured on: n training examples, m validation examples."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    classes: int = 10
    n: int = 100
    m: int = 10
    positions: tuple[int, ...] = ()  # a target at each
    large: bool = False  # for a GPU

    def small(self, batch: Batch, val_batch: Batch) -> tuple[Batch, Batch]:
        """The batches it is checked on: Algorithm 1 of a large model, in float64, has no room for all of them."""
        if not self.large:
            return batch, val_batch
        return tuple(t[:4] for t in batch), tuple(t[:2] for t in val_batch)

    def make(self, device: str = "cpu", n: int | None = None, m: int | None = None) -> tuple[nn.Module, Batch, Batch]:
        """The model, a training batch and a validation batch, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().to(device)
            sizes = (n or self.n, m or self.m)
            shapes = ((b, *self.positions) for b in sizes)
            train, val = (
                (self.inputs(shape[0]).to(device), torch.randint(self.classes, shape).to(device)) for shape in shapes
            )
        return model, train, val


def images(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape)


MODELS = {
    "mlp": Model(mlp, images(784)),
    "lenet": Model(lenet, images(1, 28, 28)),
    "transformer": Model(Transformer, lambda n: torch.randint(1000, (n, 64)), classes=2, n=64, m=8),
    "resnet32_gn": Model(partial(resnet32, partial(nn.GroupNorm, 8)), images(3, 32, 32)),
    "resnet32_bn": Model(partial(resnet32, nn.BatchNorm2d), images(3, 32, 32)),
    "wrn28_10": Model(wide_resnet, images(3, 32, 32), n=128, m=16, large=True),
    "vit_s": Model(VisionTransformer, images(3, 224, 224), classes=1000, n=64, m=8, large=True),
    "gpt2_small": Model(
        LanguageModel, lambda n: torch.randint(50257, (n, 512)), classes=50257, n=16, m=2, positions=(512,), large=True
    ),
}


def on_this(device: str) -> list[str]:
    """The models measured there unless told otherwise."""
    return [name for name, model in MODELS.items() if device.startswith("cuda") or not model.large]
