"""What is cached for a model from one call to the next: one bounded store for each model.

A store lives as long as its model (it is held weakly). An entry is dropped when its table is full (least recently used
first), when a parameter that it refers to is no longer the same object, and by `drop`, when a check has shown that it
no longer holds."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from operator import is_
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_stores = WeakIdKeyDictionary()  # owner, by identity -> name -> Table


class Table:
    """At most `size` entries by key; the least recently used is dropped first. An entry may refer to parameters, whose
    ids are then part of its key: it is dropped if an id now belongs to another tensor."""

    def __init__(self, size: int):
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[list[weakref.ref], Any]] = OrderedDict()

    def get(self, key: Hashable, parameters: Sequence[Tensor] = ()) -> Any:
        """The entry, or None."""
        found = self._entries.get(key)
        if found is None:
            return None
        refs, value = found
        if not all(map(is_, [ref() for ref in refs], parameters)):  # (as many: they are part of the key)
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Any, parameters: Sequence[Tensor] = ()) -> Any:
        """Stores the value, and returns it."""
        self._entries[key] = [weakref.ref(p) for p in parameters], value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return value

    def drop(self, key: Hashable) -> None:
        self._entries.pop(key, None)


def table(owner: Any, name: str, size: int = 64) -> Table:
    """The table of that name in the store of `owner`: a model, or a parameter where no model is known."""
    store = _stores.setdefault(owner, {})
    if name not in store:
        store[name] = Table(size)
    return store[name]
