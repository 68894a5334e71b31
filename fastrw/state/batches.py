"""Batches as nested data: their tensors, a function of each leaf, and two batches joined into one.

What is opened: mappings, lists, tuples, named tuples, dataclasses, classes made by attrs, and what is registered with
torch's pytree. All else is a leaf."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

_COLLECTIONS = (tuple, list, dict)
_PLAIN = frozenset({int, float, bool, str, type(None)})


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch of any structure, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    kind = type(batch)
    found: list[Tensor] = []
    for item in (batch.values() if kind is dict else batch) if kind in _COLLECTIONS else _open(batch)[0]:
        if type(item) is Tensor:
            found.append(item)
        elif type(item) not in _PLAIN:
            found += tensors_of(item)
    return found


def examples(batch: Any) -> int | None:
    """The length of the first tensor that is not 0-d; None if there is none."""
    return next((t.size(0) for t in tensors_of(batch) if t.ndim), None)


def sizes(batch: Any, n: int) -> tuple[tuple[bool, ...], ...]:
    """Of each tensor, which of its dimensions are of size n."""
    return tuple(tuple([size == n for size in t.shape]) for t in tensors_of(batch))


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with `function` applied to each leaf."""
    items, made = _open(batch)
    return function(batch) if made is None else made([mapped(function, item) for item in items])


def join(batch: Any, val_batch: Any, n: int, m: int) -> Any | None:
    """[batch; val_batch] if they agree in structure and in all shapes except the first dimension (n, m); else None."""
    try:
        return _join(batch, val_batch, n, m)
    except _Unlike:
        return None


class _Unlike(Exception):
    """The batches are not alike."""


def _join(x: Any, y: Any, n: int, m: int) -> Any:
    kind = type(x)
    if kind is not type(y):
        raise _Unlike
    if isinstance(x, Tensor):
        if not all(t.layout == torch.strided and not t.is_nested for t in (x, y)):
            raise _Unlike
        alike = (x.shape[1:], x.dtype, x.device) == (y.shape[1:], y.dtype, y.device)
        if not alike or x.shape[:1] != (n,) or y.shape[:1] != (m,):
            raise _Unlike
        return torch.cat([x, y])
    if kind in _PLAIN:
        if x != y:
            raise _Unlike
        return x
    if kind in (tuple, list):
        if len(x) != len(y):
            raise _Unlike
        return kind([_join(a, b, n, m) for a, b in zip(x, y, strict=True)])
    (items, made), (others, made_other) = _open(x), _open(y)
    if made is None or made_other is None or _names(x) != _names(y) or len(items) != len(others):
        raise _Unlike
    return made([_join(a, b, n, m) for a, b in zip(items, others, strict=True)])


def _open(batch: Any) -> tuple[Iterable[Any], Callable[[list], Any] | None]:
    """The items of a batch, and what makes a batch like it of others; ((), None) of a leaf."""
    kind = type(batch)
    if kind in (tuple, list):
        return batch, kind
    if isinstance(batch, MutableMapping):
        return list(batch.values()), lambda items: _filled(batch, items)
    if isinstance(batch, Mapping):
        return list(batch.values()), lambda items: dict(zip(batch, items, strict=True))
    if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
        return batch, kind._make
    if _is_record(kind):
        fields = _fields(batch)
        return list(fields.values()), lambda items: _set(batch, zip(fields, items, strict=True))
    if kind in _pytree.SUPPORTED_NODES:
        items, context = _pytree.SUPPORTED_NODES[kind].flatten_fn(batch)
        return items, lambda items: _pytree.SUPPORTED_NODES[kind].unflatten_fn(items, context)
    return (), None


def _names(batch: Any) -> Any:
    """What must agree besides the items."""
    if isinstance(batch, Mapping):
        return list(batch)
    if _is_record(type(batch)):
        return list(_fields(batch))
    if type(batch) in _pytree.SUPPORTED_NODES:
        return _pytree.SUPPORTED_NODES[type(batch)].flatten_fn(batch)[1]
    return None


@cache
def _is_record(kind: type) -> bool:
    return is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")


def _fields(record: Any) -> dict[str, Any]:
    """All attributes, also those that are no fields."""
    slots = [s for base in type(record).__mro__ for s in base.__dict__.get("__slots__", ()) if not s.startswith("__")]
    return {s: getattr(record, s) for s in slots if hasattr(record, s)} | getattr(record, "__dict__", {})


def _filled(mapping: MutableMapping, items: list) -> MutableMapping:
    """A copy of the mapping with these values."""
    found = copy.copy(mapping)
    for key, item in zip(mapping, items, strict=True):
        found[key] = item
    return found


def _set(record: Any, fields: Iterable[tuple[str, Any]]) -> Any:
    """A copy of the record with these attributes, frozen or not."""
    found = copy.copy(record)
    for name, value in fields:
        object.__setattr__(found, name, value)
    return found
