"""What checkpointing (torch.utils.checkpoint, use_reentrant=False) recomputes when it is read. torch does so once for a
segment in a backward, and lets each saved tensor be read once; outside a backward, it does so at every read.
Here a segment is recomputed once for all reads, which come before those of the backward itself, or, outside a
backward, until another segment is read: no more than one of them is in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.checkpoint import GraphExecGroup, _Handle, _Holder


class _Thread(threading.local):
    reads: Reads | None = None  # in whose context this thread is


_thread = _Thread()


def is_checkpointed(node: Node) -> bool:
    """Is what this node saved recomputed when it is read?"""
    return any(_packed(node, name) for name in dir(type(node)) if name.startswith("_raw_saved_"))


def _packed(node: Node, name: str) -> list[Any]:
    """Of what the node saved under this name, that which is recomputed."""
    raw = getattr(node, name, None)
    found = []
    for one in raw if isinstance(raw, list | tuple) else [raw]:
        try:
            if isinstance(one.data, _Holder):
                found.append(one)
        except (AttributeError, RuntimeError):  # nothing was packed, or it is freed
            continue
    return found


def _segment(packed: Any) -> Any:
    """torch's record of the segment that a saved tensor belongs to."""
    hook = packed.unpack_hook
    return dict(zip(hook.__code__.co_freevars, hook.__closure__, strict=True))["frame"].cell_contents


class Reads:
    """A reusable context for reads of what nodes saved, and for calls of nodes."""

    def __init__(self):
        self._group, self._last = GraphExecGroup(), None
        self._touched: list[tuple[Any, Any]] = []  # (segment, key of a recomputation)

    def __enter__(self) -> Reads:
        self._before = _thread.reads
        _thread.reads = self
        return self

    def __exit__(self, *error: Any) -> None:
        _thread.reads = self._before

    def read(self, node: Node, name: str) -> Any:
        with self._kept(_packed(node, "_raw_saved_" + name)):
            return getattr(node, "_saved_" + name)

    def all_of(self, node: Node) -> AbstractContextManager:
        """In this context, the node may be called; afterwards, its saved tensors can still be read."""
        names = [name for name in dir(type(node)) if name.startswith("_raw_saved_")]
        return self._kept([one for name in names for one in _packed(node, name)])

    @contextmanager
    def _kept(self, packed: list[Any]) -> Iterator[None]:
        """In this context, these are read once more; afterwards too."""
        if not packed:
            yield
            return
        segment, task = _segment(packed[0]), torch._C._current_graph_task_id()
        if task == -1 and segment is not self._last:
            self.forget()
            self._group, self._last = GraphExecGroup(), segment
        key = self._group if task == -1 else task
        with self._group if task == -1 else nullcontext():
            values = [one.unpack_hook(one.data) for one in packed]
            self._touch(packed, key)
            self._arm(packed, values, key)
            yield
            self._arm(packed, values, key)

    def _arm(self, packed: list[Any], values: list[Tensor], key: Any) -> None:
        for one, value in zip(packed, values, strict=True):
            handle = _Handle()
            _segment(one).recomputed[key][handle] = value
            one.data.handles[key] = handle

    def _touch(self, packed: list[Any], key: Any) -> None:
        for one in packed:
            segment = _segment(one)
            if not any(segment is known and key == k for known, k in self._touched):
                self._touched.append((segment, key))
                self._touch([arg for arg in getattr(segment, "saved_args", ()) if _is_packed(arg)], key)

    def forget(self) -> None:
        """Frees what was recomputed."""
        for segment, key in self._touched:
            for table in (segment.recomputed, segment.is_recomputed, segment.recomp_counter):
                table.pop(key, None)
        self._touched, self._last = [], None


def _is_packed(arg: Any) -> bool:
    """Is this input of a segment itself recomputed, by one around it?"""
    try:
        return isinstance(arg.data, _Holder)
    except (AttributeError, RuntimeError):
        return False


class _Plain(nullcontext):
    """Nothing is recomputed."""

    def __enter__(self) -> _Plain:
        return self

    def forget(self) -> None:
        pass


def reads(checkpointed: bool) -> Reads | _Plain:
    return Reads() if checkpointed else _Plain()


def callable_again(node: Node) -> AbstractContextManager:
    """See `Reads.all_of`; nothing to do outside a context of reads."""
    current = _thread.reads
    return nullcontext() if current is None else current.all_of(node)
