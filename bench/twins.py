"""A second model over the same parameters, for ways that hang hooks on a model or lay it out anew: the other ways of
the same run must not pay for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


class Twins:
    """`make(twin)` is called once for each model; what it returns is kept as long as the model lives."""

    def __init__(self, make: Callable[[nn.Module], Any]):
        self._make = make
        self._made: WeakKeyDictionary = WeakKeyDictionary()

    def of(self, model: nn.Module) -> tuple[nn.Module, Any]:
        """The twin of `model`, with modules of its own and the model's parameters, and what was made of it."""
        if model not in self._made:
            twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
            self._made[model] = twin, self._make(twin)
        return self._made[model]
