"""What the cases of the zoo are made of: batches, losses, and the parts of a model.

Functions that draw numbers are given, not called, because nothing may be drawn before a case sets its seed.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 11


def labels(n: int, classes: int = 4) -> Tensor:
    return torch.randint(0, classes, (n,))


def drawn(n: int, inputs: Callable[[int], Any]) -> Callable[..., tuple[Any, Tensor]]:
    """A function that draws inputs(n) and labels [n], with this n unless another is given."""
    return lambda n=n: (inputs(n), labels(n))


def labelled(n: int, *shape: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """As `drawn`, with x [n, *shape]."""
    return drawn(n, lambda n: torch.randn(n, *shape))


vectors, series, images = labelled(9, 6), labelled(8, 5, 6), labelled(8, 3, 8, 8)
length_first = drawn(8, lambda n: torch.randn(5, n, 6))  # for `direct_losses`


def words(n: int = 8, length: int = 5) -> tuple[Tensor, Tensor]:
    """Tokens [n, length] and labels [n]."""
    return torch.randint(0, VOCAB, (n, length)), labels(n)


def sentences(n: int = 8) -> tuple[Tensor, Tensor]:
    """Tokens [n, 5] and the token to predict at each position [n, 5]."""
    return torch.randint(0, VOCAB, (n, 5)), torch.randint(0, VOCAB, (n, 5))


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """[n]"""
    return F.cross_entropy(output, target, reduction="none")


def direct_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Losses [n] that do not depend on which dimension of the input holds the examples."""
    x, target = batch
    return cross_entropy(model(x), target)


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.5)


def dense(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with tanh between them."""
    first, *others = (nn.Linear(p, q) for p, q in pairwise(widths))
    return nn.Sequential(first, *(part for layer in others for part in (nn.Tanh(), layer)))


two_layers, three_layers = partial(dense, 6, 5, 4), partial(dense, 6, 5, 5, 4)


def changed(make: Callable[[], nn.Module], change: Callable) -> Callable[[], nn.Module]:
    """A function that makes the model and applies change(model)."""

    def make_and_change() -> nn.Module:
        model = make()
        change(model)
        return model

    return make_and_change


def later(make: Callable) -> Callable[..., partial]:
    """`later(make)(*args)` is a function that calls make(*args)."""
    return lambda *args, **options: partial(make, *args, **options)


linear, conv, embedding, learned = map(later, (nn.Linear, nn.Conv2d, nn.Embedding, param))


class Net(nn.Module):
    """A model given by its parts and one rule, `rule(net, *inputs) -> output`; a plain tensor becomes a buffer."""

    def __init__(self, rule: Callable, **parts: Any):
        super().__init__()
        self.rule = rule
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.rule(self, *args, **kwargs)


def net(rule: Callable, **parts: Callable) -> Callable[[], Net]:
    """A function that makes the parts, in this order, and the Net."""
    return lambda: Net(rule, **{name: make() for name, make in parts.items()})


def between(rule: Callable, width: int = 5, **parts: Callable) -> Callable[[], Net]:
    """As `net`, with `rule(net, hidden [n, 5]) -> [n, width]` between a linear layer with tanh and another."""

    def whole(net: Net, x: Tensor) -> Tensor:
        return net.head(rule(net, net.enter(x).tanh()))

    return net(whole, **parts, enter=linear(6, 5), head=linear(width, 4))
