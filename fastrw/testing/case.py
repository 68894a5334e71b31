"""A case of the zoo (the collection of test models): a small seeded model, its two batches and the methods allowed.

The other files add cases in three ways: `case` takes a function that makes the model, `@model` decorates one, and
`@forward` decorates the forward pass of a model given by its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .parts import net, vectors

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
    expect: frozenset[str],
    make: Callable[[], nn.Module],
    data: Callable = vectors,
    *,
    train: tuple = (),
    val: tuple = (4,),
    draws: bool = False,
    **kwargs: Any,
) -> None:
    """Adds a case: the model is `make()`, the batch `data(*train)` and the validation batch `data(*val)`."""
    if name in _REGISTRY:
        raise ValueError(f"fastrw.testing: case names must be unique, got {name!r} twice")
    _REGISTRY[name] = Case(name, lambda: (make(), data(*train), data(*val)), expect, kwargs, draws)


def model(expect: frozenset[str], data: Callable = vectors, **options: Any) -> Callable:
    """Adds a case by the function that makes its model."""
    return lambda make: case(make.__name__, expect, make, data, **options)


def forward(expect: frozenset[str], data: Callable = vectors, *, draws: bool = False, **parts: Callable) -> Callable:
    """Adds a case by the rule of its `net`."""
    return lambda rule: case(rule.__name__, expect, net(rule, **parts), data, draws=draws)
