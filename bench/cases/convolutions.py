"""The ops on a convolution: n train and m validation examples, C channels in, O out, square images and kernels."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case, alive


@dataclass
class Layer:
    C: int
    O: int
    size: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1
    n: int = 100
    m: int = 10

    def __post_init__(self):
        self.size_out = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        self.inputs, self.outputs = self.C * self.size**2, self.O * self.size_out**2  # of one example
        self.weight = self.O, self.C // self.groups, self.kernel, self.kernel
        self.taps, self.parameters = math.prod(self.weight[1:]), math.prod(self.weight)  # taps: terms of one output
        self.how = [self.stride] * 2, [self.padding] * 2, [1, 1], self.groups  # stride, padding, dilation, groups

    def x(self, draw, n: int) -> Tensor:
        return draw(n, self.C, self.size, self.size)

    def x_and_g(self, draw, n: int) -> tuple[Tensor, Tensor]:
        return self.x(draw, n), draw(n, self.O, self.size_out, self.size_out)

    def __str__(self) -> str:
        more = f", {self.groups} groups" if self.groups > 1 else ""
        return f"n={self.n} {self.C}→{self.O} {self.size}² k={self.kernel} stride={self.stride}{more}"


def weight_gradient(x: Tensor, g: Tensor, kernel: list[int], how: tuple) -> Tensor:
    stride, padding, dilation, groups = how
    weight = x.new_empty(g.shape[1], x.shape[1] // groups, *kernel)
    rest = stride, padding, dilation, False, [0, 0], groups, [False, True, False]
    return torch.ops.aten.convolution_backward(g, x, weight, None, *rest)[1]


def through_V(x: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, *how) -> Tensor:
    return (F.conv2d(x, V, v_b, *how) * g).sum((1, 2, 3))


def conv_dot(layer: Layer) -> Case:
    n = layer.n
    return Case(
        sizes=str(layer),
        make=lambda draw: (*layer.x_and_g(draw, n), draw(*layer.weight), None, *layer.how),
        eager={"F.conv2d": through_V},
        flops=2 * n * layer.outputs * (layer.taps + 1),
        elements=n * (layer.inputs + layer.outputs) + layer.parameters,
        results=n,
        terms=layer.outputs + layer.taps,
    )


def outer(x: Tensor, g: Tensor, w: Tensor | None, kernel: list[int], *how) -> Tensor:
    return weight_gradient(x, g if w is None else g * w.to(g.dtype).view(-1, 1, 1, 1), kernel, how)


def outer_of_live(x: Tensor, g: Tensor, w: Tensor | None, kernel: list[int], *how) -> Tensor:
    if w is None:
        return outer(x, g, w, kernel, *how)
    live = w.nonzero().squeeze(1)
    return outer(x[live], g[live], w[live], kernel, *how)


def conv_outer(layer: Layer, weighted: bool = True) -> Case:
    n = layer.n if weighted else layer.m
    kept, w = (alive(n), "half of w 0") if weighted else (n, "no w")
    return Case(
        sizes=f"{replace(layer, n=n)}, {w}",
        make=lambda draw: (
            *layer.x_and_g(draw, n),
            draw.weights(n) if weighted else None,
            layer.weight[2:],
            *layer.how,
        ),
        eager={"convolution_backward": outer} | ({"live examples": outer_of_live} if weighted else {}),
        flops=kept * layer.outputs * (2 * layer.taps + weighted),
        elements=kept * (layer.inputs + layer.outputs),
        results=layer.parameters + weighted * n,
        terms=kept * layer.size_out**2,
    )


def _grouped(x: Tensor, g: Tensor, n: int, V: None, kernel: list[int], *how) -> tuple[Tensor, Tensor, Tensor]:
    """Examples become groups of one convolution."""
    V = weight_gradient(x[n:], g[n:], kernel, how)
    G = _grouped_gradients(x[:n], g[:n], kernel, *how)
    return G.flatten(1) @ V.flatten(), G, V


def _grouped_gradients(x: Tensor, g: Tensor, kernel: list[int], *how) -> Tensor:
    n, as_groups = len(x), [t.reshape(1, -1, *t.shape[2:]) for t in (x, g)]
    return weight_gradient(*as_groups, kernel, (*how[:3], how[3] * n)).unflatten(0, (n, g.shape[1]))


def conv_instance(layer: Layer) -> Case:
    n, both = layer.n, layer.n + layer.m
    return Case(
        sizes=f"m={layer.m} {layer}",
        make=lambda draw: (*layer.x_and_g(draw, both), n, None, layer.weight[2:], *layer.how),
        eager={"examples as groups": _grouped},
        flops=2 * both * layer.outputs * layer.taps + 2 * n * layer.parameters,
        elements=both * (layer.inputs + layer.outputs),
        results=n + (n + 1) * layer.parameters,
        terms=both * layer.size_out**2 + layer.parameters,
    )


def conv_gradients(layer: Layer) -> Case:
    n = layer.n
    return Case(
        sizes=f"n={n} {layer}",
        make=lambda draw: (*layer.x_and_g(draw, n), layer.weight[2:], *layer.how),
        eager={"examples as groups": _grouped_gradients},
        flops=2 * n * layer.outputs * layer.taps,
        elements=n * (layer.inputs + layer.outputs),
        results=n * layer.parameters,
        terms=layer.size_out**2,
    )


def combine(layer: Layer) -> Case:
    n = layer.n
    return Case(
        sizes=f"n={n} G of {layer.parameters}, half of w 0",
        make=lambda draw: (draw(n, *layer.weight), draw.weights(n)),
        eager={"w @ G": lambda G, w: (w.to(G.dtype) @ G.flatten(1)).view(G.shape[1:])},
        flops=2 * alive(n) * layer.parameters,
        elements=alive(n) * layer.parameters,
        results=layer.parameters + n,
        terms=alive(n),
    )


def grouped_combine(layers: list[Layer]) -> Case:
    n, parameters = layers[0].n, sum(layer.parameters for layer in layers)
    return Case(
        sizes=f"n={n} {len(layers)} G of {parameters} in all, half of w 0",
        make=lambda draw: ([draw(n, *layer.weight) for layer in layers], draw.weights(n)),
        eager={"layer by layer": lambda G, w: tuple((w.to(t.dtype) @ t.flatten(1)).view(t.shape[1:]) for t in G)},
        flops=2 * alive(n) * parameters,
        elements=alive(n) * parameters,
        results=parameters + n,
        terms=alive(n),
    )


def _with_sums(t_y: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return t_y, torch.stack([t_y.sum((0, 2, 3)), (t_y * y).sum((0, 2, 3))])


def _two(x, V, v_b, t, W, y, *how) -> tuple[Tensor, Tensor]:
    t_y = F.conv2d(x, V, v_b, *how)
    return _with_sums(t_y if t is None else t_y + F.conv2d(t, W, None, *how), y)


def _one(x, V, v_b, t, W, y, *how) -> tuple[Tensor, Tensor]:
    return _with_sums(F.conv2d(torch.cat([x, t], 1), torch.cat([V, W], 1), v_b, *how), y)


def conv_tangent(layer: Layer, first: bool = False) -> Case:
    """`first`: nothing below it is selected, so its input has no tangent."""
    n, products = layer.n, 1 if first else 2

    def make(draw):
        t, W = (None, None) if first else (layer.x(draw, n), draw(*layer.weight))
        x, y = layer.x_and_g(draw, n)
        return x, draw(*layer.weight), None, t, W, y, *layer.how

    return Case(
        sizes=f"{layer}" + (", no t" if first else ""),
        make=make,
        eager={"two convolutions": _two} | ({} if first or layer.groups > 1 else {"one of both": _one}),
        flops=n * layer.outputs * (2 * products * layer.taps + 3),
        elements=products * (n * layer.inputs + layer.parameters) + n * layer.outputs,
        results=n * layer.outputs + 2 * layer.O,
        terms=n * layer.size_out**2 + products * layer.taps,
    )


LAYERS = {
    "resnet stem 3-16": Layer(3, 16, 32),
    "resnet 16-16": Layer(16, 16, 32),
    "resnet 16-32 /2": Layer(16, 32, 32, stride=2),
    "resnet 32-32": Layer(32, 32, 16),
    "resnet 32-64 /2": Layer(32, 64, 16, stride=2),
    "resnet 64-64": Layer(64, 64, 8),
    "resnet 16-32 1x1 /2": Layer(16, 32, 32, 1, 2, 0),
    "resnet 32-64 1x1 /2": Layer(32, 64, 16, 1, 2, 0),
    "lenet 1-6": Layer(1, 6, 28, 5, 1, 2),
    "lenet 6-16": Layer(6, 16, 14, 5, 1, 0),
    "depthwise 32-32": Layer(32, 32, 16, groups=32),
    # WRN-28-10, and the patches of ViT-S
    "wrn 160-160": Layer(160, 160, 32, n=128, m=16),
    "wrn 320-320": Layer(320, 320, 16, n=128, m=16),
    "wrn 640-640": Layer(640, 640, 8, n=128, m=16),
    "vit patches": Layer(3, 384, 224, 16, 16, 0, n=64, m=8),
}
RESNET = [name for name in LAYERS if name.startswith(("resnet", "wrn"))]  # what BatchNorm follows

CONVOLUTIONS = {
    "conv_dot": {name: conv_dot(layer) for name, layer in LAYERS.items()},
    "conv_outer": {
        **{name: conv_outer(layer) for name, layer in LAYERS.items()},
        "resnet 64-64, V": conv_outer(LAYERS["resnet 64-64"], weighted=False),
    },
    "conv_instance": {name: conv_instance(layer) for name, layer in LAYERS.items() if name != "wrn 640-640"},
    "conv_gradients": {name: conv_gradients(layer) for name, layer in LAYERS.items() if name != "wrn 640-640"},
    "conv_tangent": {name: conv_tangent(LAYERS[name], first="stem" in name) for name in RESNET},
    "combine": {name: combine(layer) for name, layer in LAYERS.items() if name != "wrn 640-640"},
    "grouped_combine": {"resnet": grouped_combine([layer for name, layer in LAYERS.items() if "resnet" in name])},
}
