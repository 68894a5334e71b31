"""What the models of the zoo are made of, and common losses.

Functions that draw numbers are given, not called, because nothing may be drawn before a case sets its seed.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """[n]"""
    return F.cross_entropy(output, target, reduction="none")


def direct_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Losses [n] that do not depend on which dimension of the input holds the examples."""
    x, target = batch
    return cross_entropy(model(x), target)


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.5)


def dense(*widths: int, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of these widths with the activation between them."""
    first, *others = (nn.Linear(p, q) for p, q in pairwise(widths))
    return nn.Sequential(first, *(part for layer in others for part in (activation(), layer)))


two_layers, three_layers = partial(dense, 6, 5, 4), partial(dense, 6, 5, 5, 4)


def encoder(width: int, hidden: int, **options: Any) -> nn.TransformerEncoder:
    """Two layers with two heads each, without dropout."""
    layer = nn.TransformerEncoderLayer(width, 2, hidden, 0.0, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def later(make: Callable) -> Callable[..., partial]:
    """`later(make)(*args)` is a function that calls make(*args)."""
    return lambda *args, **options: partial(make, *args, **options)


linear, conv, embedding, learned = map(later, (nn.Linear, nn.Conv2d, nn.Embedding, param))


def sequence(*parts: Callable) -> Callable[[], nn.Sequential]:
    """A function that makes the parts, in this order, and their nn.Sequential."""
    return lambda: nn.Sequential(*(make() for make in parts))


class Net(nn.Module):
    """A model given by its parts (modules, parameters, buffers) and one rule, `rule(net, *inputs) -> output`."""

    def __init__(self, rule: Callable, **parts: Any):
        super().__init__()
        self.rule = rule
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.rule(self, *args, **kwargs)


def net(rule: Callable, **parts: Callable) -> Callable[[], Net]:
    """A function that makes the parts, in this order, and the Net."""
    return lambda: Net(rule, **{name: make() for name, make in parts.items()})


def headed(rule: Callable, width: int = 5, **parts: Callable) -> Callable[[], Net]:
    """As `net`, with a linear head on the features `rule(net, *inputs) -> [n, ..., width]`."""
    return net(lambda net, *inputs: net.head(rule(net, *inputs)), **parts, head=linear(width, 4))


def tie_head(model: nn.Module) -> None:
    """The head shares the weight of the embedding `table`."""
    model.head.weight = model.table.weight
