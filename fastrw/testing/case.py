"""A case of the zoo: a small seeded model with its two batches, and the methods that may serve it.

Every family file adds its cases with the decorator `case`; the small makers below give them data and parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

LAYERWISE = frozenset({"layerwise"})
TANGENT = frozenset({"tangent"})
COUPLED = frozenset({"tangent", "double_backward", "per_example"})  # layerwise would be wrong
ANY = LAYERWISE | COUPLED  # whichever is exact

_REGISTRY: dict[str, Case] = {}


@dataclass(frozen=True, eq=False)
class Case:
    """`build()` gives (model, batch, val_batch) in float32; `make()` seeds it and moves it to a dtype and a device.

    `kwargs` are meta_weights' own (loss_fn, losses_fn, params); `expect` the methods that "auto" may choose;
    `draws` tells that the forward draws random numbers, which need not agree between two dtypes.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Any, Any]]
    expect: frozenset[str]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False

    def make(
        self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> tuple[nn.Module, Any, Any]:
        """The same numbers at every call, whatever the dtype; the caller's random state does not move."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1 + sum(map(ord, self.name)))
            model, batch, val_batch = self.build()

        def move(leaf: Any) -> Any:
            return (
                leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype) if isinstance(leaf, Tensor) else leaf
            )

        return model.to(device, dtype), tree_map(move, batch), tree_map(move, val_batch)


def case(expect: frozenset[str], *, name: str | None = None, draws: bool = False, **kwargs: Any) -> Callable:
    """Adds the decorated build function to the zoo, under its own name unless another is given."""

    def add(build: Callable) -> Callable:
        label = name or build.__name__
        if label in _REGISTRY:
            raise ValueError(f"fastrw.testing: case names must be unique, got {label!r} twice")
        _REGISTRY[label] = Case(label, build, expect, kwargs, draws)
        return build

    return add


class Net(nn.Module):
    """A model given as its parts and one rule, `rule(net, *inputs) -> output`; a plain tensor becomes a buffer."""

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


def param(*shape: int, scale: float = 0.5) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * scale)


def labels(n: int, classes: int = 4) -> Tensor:
    return torch.randint(0, classes, (n,))


def vectors(n: int, p: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    """x [n, p] and labels [n]."""
    return torch.randn(n, p), labels(n, classes)


def images(n: int, channels: int = 3, size: int = 8, classes: int = 4) -> tuple[Tensor, Tensor]:
    """x [n, channels, size, size] and labels [n]."""
    return torch.randn(n, channels, size, size), labels(n, classes)


def words(n: int, length: int = 5, vocab: int = 11, classes: int = 4) -> tuple[Tensor, Tensor]:
    """tokens [n, length] and labels [n]."""
    return torch.randint(0, vocab, (n, length)), labels(n, classes)


def sentences(n: int, length: int = 5, vocab: int = 11) -> tuple[Tensor, Tensor]:
    """tokens [n, length] and the token to predict at each position [n, length]."""
    return torch.randint(0, vocab, (n, length)), torch.randint(0, vocab, (n, length))


def series(n: int, length: int = 5, p: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    """x [n, length, p] and labels [n]."""
    return torch.randn(n, length, p), labels(n, classes)
