"""One walk of the graph that autograd would run: nodes, edges, leaves, and what graphs of the same structure share."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from fastrw.errors import NestedTensors

Leaf = type(get_gradient_edge(torch.empty(0, requires_grad=True)).node)  # AccumulateGrad

Edge = tuple[int, int]  # (node, which of its outputs)


class Graph:
    """The nodes below `roots`, numbered in the order of one depth-first walk: graphs of one structure are numbered
    alike. A node takes gradients of the outputs of an operation and sends gradients of its inputs: `next[i]` holds, for
    each input of the operation of node i, (the node that its gradient goes to, which of its outputs), or (None, 0)."""

    def __init__(self, *roots: Node):
        self.index: dict[Node, int] = {}
        self.nodes: list[Node] = []
        self.next: list[tuple] = []
        self.roots: list[Node] = []
        self.nested = False  # does one root lie below another?
        for root in roots:
            self.add(root)

    def add(self, root: Node) -> bool:
        """Continue below another root. Returns whether that reaches an operation that was already known."""
        index, nodes = self.index, self.nodes
        known = len(nodes)
        self.roots.append(root)
        if root in index:
            self.nested = True
            return True
        index[root] = known
        nodes.append(root)
        self.next.append(())
        stack, met = [known], False
        while stack:
            i = stack.pop()
            self.next[i] = below = nodes[i].next_functions
            for node, _ in below:
                if node is None:
                    continue
                at = index.get(node)
                if at is None:
                    index[node] = at = len(nodes)
                    nodes.append(node)
                    self.next.append(())
                    stack.append(at)
                elif at < known and type(node) is not Leaf:
                    met = True
                    self.nested = self.nested or node is self.roots[0]
        return met

    def first(self, count: int) -> Graph:
        """The graph of the first root alone, which has `count` nodes."""
        found = Graph()
        found.nodes, found.next, found.roots = self.nodes[:count], self.next[:count], self.roots[:1]
        found.index = dict(zip(found.nodes, range(count), strict=True))
        return found

    @cached_property
    def form(self) -> tuple:
        """The types of the nodes, and the edges: how many each has, to which nodes, to which of their outputs. It is
        computed at every call, so by loops that are not Python's."""
        nodes, outputs = zip(*chain.from_iterable(self.next), strict=True) if len(self.nodes) > 1 else ((), ())
        return tuple(map(type, self.nodes)), tuple(map(len, self.next)), tuple(map(self.index.get, nodes)), outputs

    def check_shapes(self) -> None:
        """Raises NestedTensors where a gradient has no shape."""
        for node in self.nodes:
            if any(m.is_nested_tensor for m in node._input_metadata):
                raise NestedTensors(f"fastrw.graph: gradients must not be nested tensors, got one at {node.name()}")

    @cached_property
    def below(self) -> list[tuple[Edge | None, ...]]:
        """`next`, in numbers of nodes."""
        index = self.index
        return [tuple([None if node is None else (index[node], k) for node, k in edges]) for edges in self.next]

    @cached_property
    def senders(self) -> dict[Edge, set[int]]:
        """Edge -> the nodes that send a gradient along it."""
        found: dict[Edge, set[int]] = {}
        for i, edges in enumerate(self.below):
            for edge in edges:
                if edge is not None:
                    found.setdefault(edge, set()).add(i)
        return found

    @cached_property
    def leaves(self) -> dict[int, Tensor]:
        """Node -> the leaf whose `.grad` a plain backward would fill there."""
        return {i: node.variable for i, node in enumerate(self.nodes) if type(node) is Leaf}

    @cached_property
    def inner(self) -> list[int]:
        """The nodes that lead to a leaf, without the leaves, each after all that send to it."""
        order, leads = self._order(), set(self.leaves)
        for i in reversed(order):
            if any(edge is not None and edge[0] in leads for edge in self.below[i]):
                leads.add(i)
        return [i for i in order if i in leads and i not in self.leaves]

    def _order(self) -> list[int]:
        """Every node after all that send to it."""
        waiting = Counter(edge[0] for edges in self.below for edge in edges if edge is not None)
        ready = [i for i in range(len(self.nodes)) if not waiting[i]]
        found = []
        while ready:
            i = ready.pop()
            found.append(i)
            for edge in self.below[i]:
                if edge is not None:
                    waiting[edge[0]] -= 1
                    if not waiting[edge[0]]:
                        ready.append(edge[0])
        return found


def dtypes(*outputs: Tensor) -> set[torch.dtype]:
    """The dtypes of all gradients in a backward of `outputs`. Autocast inside a forward shows here, but not in the
    dtypes of parameters and losses."""
    graph = Graph(*(t.grad_fn for t in outputs if t.grad_fn is not None))
    return {t.dtype for t in outputs} | {m.dtype for node in graph.nodes for m in node._input_metadata}
