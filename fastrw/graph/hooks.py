"""Hooks on nodes: ours, and whether a graph can have any of the user's.

A hook lives on a node, and each forward creates its own nodes. So where none has been registered since a graph of the
same kind was examined, and all nodes are younger, there is none to look for; this costs a call next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from fastrw.graph.walk import Graph

_ours = 0  # handles of our own hooks, so far


@contextmanager
def before(hooks: Iterable[tuple[Node, Callable]]) -> Iterator[None]:
    """Calls each hook with the gradients of its node's outputs, before the node, in this context."""
    with uncounted():
        handles = [node.register_prehook(hook) for node, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def uncounted() -> Iterator[None]:
    """Hooks registered in this context are ours."""
    global _ours
    start = RemovableHandle.next_id
    try:
        yield
    finally:
        _ours += RemovableHandle.next_id - start


def on_leaf(node: Node) -> bool:
    """Does this leaf's node have hooks registered in Python? (A backward for given inputs does not run them.)"""
    with uncounted():
        handles = [register(lambda *grads: None) for register in (node.register_prehook, node.register_hook)]
    try:
        return any(len(handle.hooks_dict_ref()) > 1 for handle in handles)
    finally:
        for handle in handles:
            handle.remove()


class Moment(NamedTuple):
    """When a graph was examined: hooks registered until then, not counting ours, and nodes created until then."""

    hooks: int
    nodes: int

    @classmethod
    def now(cls) -> Moment:
        with torch.enable_grad():
            node = torch.empty(0, requires_grad=True).view(0).grad_fn
        return cls(RemovableHandle.next_id - _ours, node._sequence_nr())

    def precedes_all_hooks_of(self, graph: Graph) -> bool:
        """Can the graph have no hook? Then all that there are were there before its nodes."""
        if RemovableHandle.next_id - _ours != self.hooks:
            return False
        return min([node._sequence_nr() for node in graph.nodes]) > self.nodes
