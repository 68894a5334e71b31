"""What is remembered of a model from one call to the next: one bounded store for each model.

Everything that is forgotten is forgotten here. A store goes with its model (it is held weakly). An entry goes when its
table is full (the one that was used least recently), when a parameter that it speaks of is no longer the same object,
and by `drop`, where a check has shown that what was learned no longer holds."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_stores = WeakIdKeyDictionary()  # owner, by identity -> name -> Table


class Table:
    """At most `size` entries by key; the least recently used goes first. An entry may speak of parameters, whose ids
    are then part of its key: it is dropped where an id belongs to another tensor now."""

    def __init__(self, size: int):
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[list[weakref.ref], Any]] = OrderedDict()

    def get(self, key: Hashable, parameters: Sequence[Tensor] = ()) -> Any:
        """The entry, or None."""
        found = self._entries.get(key)
        if found is None:
            return None
        refs, value = found
        if any(ref() is not p for ref, p in zip(refs, parameters, strict=True)):
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Any, parameters: Sequence[Tensor] = ()) -> Any:
        """Enters the value, and returns it."""
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


def forget(owner: Any) -> None:
    """All that was learned of it."""
    _stores.pop(owner, None)
