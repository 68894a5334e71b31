"""One walk of the graph that autograd would run: nodes, edges, leaves, and what two graphs of one making have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

Leaf = type(get_gradient_edge(torch.empty(0, requires_grad=True)).node)  # AccumulateGrad

Edge = tuple[int, int]  # (node, which of its outputs)


class Graph:
    """The nodes below `roots`, numbered in the order of one depth-first walk: graphs of one structure are numbered
    alike. A node takes gradients of the outputs of an operation and sends gradients of its inputs: `below[i]` holds,
    for each input of the operation of node i, the edge that its gradient goes to, or None."""

    def __init__(self, roots: Iterable[Node]):
        self.roots = [root for root in roots if root is not None]
        self.index: dict[Node, int] = {}
        self.nodes: list[Node] = []
        self.next: list[tuple] = []  # as torch gives them: (node or None, which of its outputs)
        index, nodes, following = self.index, self.nodes, self.next
        stack: list[Node] = []
        for root in self.roots:
            if root not in index:
                index[root] = len(index)
                stack.append(root)
                nodes.append(root)
            while stack:
                below = stack.pop().next_functions
                for node, _ in below:
                    if node is not None and node not in index:
                        index[node] = len(nodes)
                        nodes.append(node)
                        stack.append(node)
        following += [node.next_functions for node in nodes]

    def skeleton(self) -> tuple:
        """What two graphs of one structure share: types, edges, shapes. Cheap: it is asked for at every call."""
        index = self.index
        return (
            tuple([type(node) for node in self.nodes]),
            tuple([-1 if node is None else index[node] * 64 + k for below in self.next for node, k in below]),
            tuple([tuple([tuple(m.shape) for m in node._input_metadata]) for node in self.nodes]),
        )

    @property
    def below(self) -> list[list[Edge | None]]:
        index = self.index
        return [[None if node is None else (index[node], k) for node, k in edges] for edges in self.next]

    def leaf(self, i: int) -> Tensor | None:
        """The tensor that node i accumulates into; None where it is no leaf's."""
        node = self.nodes[i]
        return node.variable if type(node) is Leaf else None

    def leaves(self) -> dict[int, Tensor]:
        """Node -> the leaf whose `.grad` a plain backward would fill there."""
        return {i: node.variable for i, node in enumerate(self.nodes) if type(node) is Leaf}

    def order(self) -> list[int]:
        """Every node after all that send to it."""
        below = self.below
        waiting = [0] * len(self.nodes)
        for edges in below:
            for edge in edges:
                if edge is not None:
                    waiting[edge[0]] += 1
        ready = [i for i, count in enumerate(waiting) if not count]
        found = []
        while ready:
            i = ready.pop()
            found.append(i)
            for edge in below[i]:
                if edge is not None:
                    waiting[edge[0]] -= 1
                    if not waiting[edge[0]]:
                        ready.append(edge[0])
        return found


def shape_of(node: Node, k: int = 0) -> torch.Size:
    """The shape of output k of the node's operation."""
    return torch.Size(node._input_metadata[k].shape)


def dtypes(*outputs: Tensor) -> set[torch.dtype]:
    """The dtypes of every gradient that a backward of `outputs` passes on: autocast inside a forward shows here, where
    the dtypes of parameters and losses do not tell of it."""
    graph = Graph(t.grad_fn for t in outputs)
    return {t.dtype for t in outputs} | {m.dtype for node in graph.nodes for m in node._input_metadata}
