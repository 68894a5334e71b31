"""The modules and parameters of a model, by name: found by a walk, which is made again only when they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from operator import attrgetter, is_, methodcaller
from typing import Any

from torch import nn


class Structure:
    """Of a model as it is now. It holds the model: whoever keeps one keeps the model too."""

    def __init__(self, model: nn.Module):
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self._all = [*self.modules.values()]
        own = type(model).named_modules is nn.Module.named_modules and "named_modules" not in vars(model)
        registers = [d for m in self._all for d in (m._modules, m._parameters)]
        self._can_tell = own and all(isinstance(d, dict) for d in registers)  # not those of a scripted module
        self._content = _content(self._all) if self._can_tell else None
        self.from_torch = [type(m).__module__.startswith("torch.nn.modules.") for m in self._all]
        self.selected: dict[Any, tuple] = {}  # what was selected of the parameters: see `api.problem`

    def holds(self) -> bool:
        """Has every module the modules and parameters that it had, under the same names?"""
        return self._content is not None and _same(self._content, _content(self._all))

    def current(self) -> Structure:
        """This one or, if the model has changed, that of the model as it is now."""
        return self if self.holds() else Structure(self.modules[""])

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """`model.named_parameters()`: shared parameters have their first name, and torch.compile does not show."""
        return {name.replace("_orig_mod.", ""): p for name, p in self.places.values()}

    @cached_property
    def places(self) -> dict[int, tuple[str, nn.Parameter]]:
        """Id of a parameter -> its first name, and itself."""
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for path, module in self.modules.items():
            for name, p in module._parameters.items():
                if p is not None:
                    found.setdefault(id(p), (f"{path}.{name}" if path else name, p))
        return found

    @cached_property
    def names(self) -> dict[int, str]:
        """Id of a parameter -> its name."""
        return {id(p): name for name, p in self.parameters.items()}

    @cached_property
    def ids(self) -> frozenset[int]:
        """Of the modules and parameters."""
        return frozenset(map(id, self._all)).union(self.places)


def _content(modules: Sequence[nn.Module]) -> tuple[list, list, list]:
    """What decides the structure, in flat lists, which are made and compared fast: sizes; names; things and their
    types."""
    held = [*map(_MODULES, modules), *map(_PARAMETERS, modules)]
    things: list[Any] = [*modules, *chain.from_iterable(map(_VALUES, held))]
    return [*map(len, held)], [*chain.from_iterable(held)], [*things, *map(type, things)]


_MODULES, _PARAMETERS, _VALUES = attrgetter("_modules"), attrgetter("_parameters"), methodcaller("values")


def _same(a: tuple[list, list, list], b: tuple[list, list, list]) -> bool:
    return a[0] == b[0] and a[1] == b[1] and _identical(a[2], b[2])


def _identical(a: Sequence[Any], b: Iterable[Any]) -> bool:
    return all(map(is_, a, b))
