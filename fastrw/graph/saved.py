"""The only file that reads what a node saved. The names are internals of torch; tests/test_nodes.py lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from fastrw.graph.recomputed import _thread

_PREFIX = "_saved_"
_PLAIN = (bool, int, float, str, torch.Size, torch.dtype, torch.device)
_NUMBERS = frozenset({int, float, bool})


def saved(node: Node, name: str) -> Any:
    """What `node` saved under this name. Tensors are detached, because a saved output holds the node.

    Raises torch's RuntimeError if a backward has freed it or it was written to since.
    """
    found = _read(node, name)
    if isinstance(found, Tensor):
        return _detached(found)
    if type(found) is list or type(found) is tuple:
        return [_detached(t) if isinstance(t, Tensor) else t for t in found]
    return found


def _detached(t: Tensor) -> Tensor:
    """(A number that stands for a tensor stays as it is: a mode that watches dispatches sees no tensor in it.)"""
    return t.detach() if t.requires_grad or type(t) is not Tensor else t


def _read(node: Node, name: str) -> Any:
    reads = _thread.reads
    return getattr(node, _PREFIX + name) if reads is None else reads.read(node, name)


class Saved:
    """What a node saved, read on access: `s.mat1`; and the shapes of the inputs and the output of its operation."""

    __slots__ = ("node",)

    def __init__(self, node: Node):
        self.node = node

    def __getattr__(self, name: str) -> Any:
        if name == "eps" and not hasattr(self.node, "_saved_eps"):  # the name in cuDNN's BatchNorm
            name = "epsilon"
        return saved(self.node, name)

    @property
    def output(self):
        """Shape, dtype and device of the operation's first output."""
        return self.node._input_metadata[0]

    def shape(self, j: int) -> torch.Size | None:
        """The shape of input j of the operation; None where no gradient goes to it."""
        child, k = self.node.next_functions[j]
        return None if child is None else torch.Size(child._input_metadata[k].shape)


@cache
def reading(reads: str) -> type[Saved]:
    """`Saved`, for nodes of a type whose formulas read these names: faster."""
    fast = {name: property(_one(name)) for name in reads.split() if name != "eps"}
    return type("Saved", (Saved,), {"__slots__": (), **fast})


def _one(name: str) -> Callable[[Saved], Any]:
    read = attrgetter(f"node.{_PREFIX}{name}")

    def get(self: Saved) -> Any:
        if _thread.reads is not None:
            return saved(self.node, name)
        found = read(self)
        if type(found) in _NUMBERS:
            return found
        if type(found) is Tensor:
            return found.detach() if found.requires_grad else found
        if type(found) is tuple:
            return [_detached(t) if isinstance(t, Tensor) else t for t in found]
        return saved(self.node, name)

    return get


@cache
def together(*names: str) -> Callable[[Node], tuple]:
    """Reads what nodes saved under these names, as it is: tensors are not detached, nor recomputed."""
    read = attrgetter(*(_PREFIX + name for name in names))
    return read if len(names) > 1 else lambda node: (read(node),)


class Values:
    """Replaces `Saved` where there is no node: plain values, under the names that formulas read."""

    def __init__(self, output: Any = None, shapes: Sequence[torch.Size | None] = (), /, **read: Any):
        self.output, self._shapes = output, shapes
        for name, value in read.items():
            setattr(self, name, value)

    def shape(self, j: int) -> torch.Size | None:
        return self._shapes[j]


def signed(value: int) -> int:
    """torch saves dimensions and indices as unsigned integers."""
    return value - (1 << 64) if value >= 1 << 63 else value


@cache
def names(kind: type) -> tuple[str, ...]:
    """The names of what nodes of this type save."""
    return tuple(name[len(_PREFIX) :] for name in dir(kind) if name.startswith(_PREFIX))


def is_custom(node: Node) -> bool:
    """Is this the backward of a torch.autograd.Function written in Python?"""
    return isinstance(node, BackwardCFunction)


def plain_values(node: Node) -> tuple:
    """The numbers, strings and sizes in the context of a custom Function."""
    return tuple((k, plain(v)) for k, v in sorted(vars(node).items()) if not k.startswith("_"))


def plain(value: Any) -> Any:
    """A number, string or size, also in lists; of all else its type."""
    if value is None or isinstance(value, _PLAIN):
        return value
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else type(value)


def tensors(node: Node) -> list[Tensor]:
    """The tensors that it saved, as they are: parameters are Parameters."""
    if is_custom(node):
        return [t for t in node.saved_tensors if t is not None]
    values = [_read(node, name) for name in names(type(node))]
    items = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    return [one for one in items if isinstance(one, Tensor)]


def address(t: Tensor) -> int | None:
    """Where its elements lie in memory; None where it has no single place."""
    try:
        return t.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError, ValueError):  # sparse, functional, uninitialised
        return None
