"""A case of the zoo (the collection of test models): a small seeded model, its two batches and the methods allowed.

The other files add cases by `case`, which takes a function that makes the model, `features`, which takes one for what a
linear head classifies, and `between`, for the middle of a small network; `@named(features)` decorates longer functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .batches import vectors
from .parts import headed, linear

LAYERWISE = frozenset({"layerwise"})
TANGENT = frozenset({"tangent"})
COUPLED = frozenset({"tangent", "double_backward", "per_example"})  # layerwise would be wrong
ANY = LAYERWISE | COUPLED  # whichever is exact

Made = tuple[nn.Module, Any, Any]  # model, batch, val_batch
_REGISTRY: dict[str, Case] = {}


@dataclass(frozen=True, eq=False)
class Case:
    """A model and its two batches, which are `data(*train)` and `data(*val)`, in float32 and not yet made.

    `expect` holds the methods that "auto" may choose; `change(model)` is called once it is made; `draws` says that the
    forward pass draws random numbers, which need not agree between two dtypes; `dtype` is the one that the model takes,
    if it takes no other; `kwargs` are those of meta_weights.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[..., Any] = vectors
    expect: frozenset[str] = LAYERWISE
    change: Callable[[nn.Module], Any] = lambda model: None
    train: tuple = ()
    val: tuple = (4,)
    draws: bool = False
    dtype: torch.dtype | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Made:
        """The same numbers at every call and in every dtype; the caller's random state does not move."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1 + sum(map(ord, self.name)))
            model = self.model()
            self.change(model)
            batches = self.data(*self.train), self.data(*self.val)

        dtype = self.dtype or dtype

        def move(leaf: Tensor) -> Tensor:
            return leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

        return model.to(device, dtype), *tree_map_only(Tensor, move, batches)


def case(name: str, model: Callable[[], nn.Module], data: Callable = vectors, **options: Any) -> None:
    """Adds a case with these fields of `Case`, loss_fn, losses_fn and params."""
    if name in _REGISTRY:
        raise ValueError(f"fastrw.testing: case names must be unique, got {name!r} twice")
    kwargs = {key: options.pop(key) for key in ("loss_fn", "losses_fn", "params") if key in options}
    _REGISTRY[name] = Case(name, model, data, kwargs=kwargs, **options)


def features(name: str, rule: Callable, data: Callable = vectors, *, expect: frozenset[str] = LAYERWISE,
             draws: bool = False, **parts: Any) -> None:  # fmt: skip
    """Adds a case by the features that its head classifies: see `headed`."""
    case(name, headed(rule, **parts), data, expect=expect, draws=draws)


def between(name: str, rule: Callable, **parts: Any) -> None:
    """Adds a case by `rule(net, hidden [n, 5]) -> [n, width]` between a linear layer with tanh and the head."""
    features(name, lambda net, x: rule(net, net.enter(x).tanh()), **parts, enter=linear(6, 5))


def named(add: Callable, *args: Any, **options: Any) -> Callable[[Callable], None]:
    """Decorates the function of a case, which has the same name: `add(name, function, *args, **options)`."""
    return lambda function: add(function.__name__, function, *args, **options)
