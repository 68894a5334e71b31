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
    """`build()` gives (model, batch, val_batch) in float32; `make()` seeds it and moves it to a dtype and a device.

    `kwargs` are those of meta_weights (loss_fn, losses_fn, params); `expect` the methods that "auto" may choose;
    `draws` says that the forward pass draws random numbers, which need not agree between two dtypes.
    """

    name: str
    build: Callable[[], Made]
    expect: frozenset[str]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False

    def make(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Made:
        """The same numbers at every call, whatever the dtype; the caller's random state does not move."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1 + sum(map(ord, self.name)))
            model, *batches = self.build()

        def move(leaf: Tensor) -> Tensor:
            return leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)

        return model.to(device, dtype), *tree_map_only(Tensor, move, batches)


def case(
    name: str,
    make: Callable[[], nn.Module],
    data: Callable = vectors,
    *,
    expect: frozenset[str] = LAYERWISE,
    change: Callable[[nn.Module], Any] = lambda model: None,
    train: tuple = (),
    val: tuple = (4,),
    draws: bool = False,
    **kwargs: Any,
) -> None:
    """Adds a case: the model is `make()`, then changed, the batch `data(*train)`, the validation batch `data(*val)`."""

    def build() -> Made:
        model = make()
        change(model)
        return model, data(*train), data(*val)

    if name in _REGISTRY:
        raise ValueError(f"fastrw.testing: case names must be unique, got {name!r} twice")
    _REGISTRY[name] = Case(name, build, expect, kwargs, draws)


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
