"""Batches as nested data: their tensors, a function of each leaf, and two batches joined into one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

_COLLECTIONS = (tuple, list, dict)
_PLAIN = frozenset({int, float, bool, str, type(None)})


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch of any structure, in order. Plain collections are walked without pytree, which is slow."""
    if isinstance(batch, Mapping) and type(batch) is not dict:
        batch = dict(batch)
    if type(batch) not in _COLLECTIONS:
        return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    found: list[Tensor] = []
    for item in batch.values() if type(batch) is dict else batch:
        if type(item) is Tensor:
            found.append(item)
        elif type(item) not in _PLAIN:
            found += tensors_of(item)
    return found


def examples(batch: Any) -> int | None:
    """The length of the first tensor that is not 0-d; None if there is none."""
    return next((len(t) for t in tensors_of(batch) if t.ndim), None)


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with `function` applied to each leaf; mappings unknown to pytree (a transformers.BatchEncoding, a
    UserDict) keep their type."""
    if _is_custom_mapping(batch):
        return _with(batch, {key: mapped(function, value) for key, value in batch.items()})
    return tree_map(lambda leaf: mapped(function, leaf) if isinstance(leaf, MutableMapping) else function(leaf), batch)


def join(batch: Any, val_batch: Any, n: int, m: int) -> Any | None:
    """[batch; val_batch] if they agree in structure and in all shapes except the first dimension (n, m); else None."""
    kind = type(batch)
    if kind is not type(val_batch):
        return None
    if _is_custom_mapping(batch):
        found = join(dict(batch), dict(val_batch), n, m)
        return None if found is None else _with(batch, found)
    flat = kind in (tuple, list) and all(type(t) is Tensor for t in (*batch, *val_batch))  # then without pytree
    (leaves, tree), (val_leaves, val_tree) = ((b, len(b)) if flat else tree_flatten(b) for b in (batch, val_batch))
    if tree != val_tree:
        return None
    joined = []
    for x, y in zip(leaves, val_leaves, strict=True):
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            if type(x) is not type(y) or type(x) not in _PLAIN or x != y:
                return None
            joined.append(x)
            continue
        alike = (x.shape[1:], x.dtype, x.device, x.layout) == (y.shape[1:], y.dtype, y.device, y.layout)
        if not alike or x.layout != torch.strided or x.shape[:1] != (n,) or y.shape[:1] != (m,):
            return None
        joined.append(torch.cat([x, y]))
    return kind(joined) if flat else tree_unflatten(joined, tree)


def _is_custom_mapping(batch: Any) -> bool:
    return isinstance(batch, MutableMapping) and type(batch) is not dict


def _with(mapping: MutableMapping, items: dict) -> MutableMapping:
    """A copy of the mapping with these items."""
    found = copy.copy(mapping)
    found.update(items)
    return found
