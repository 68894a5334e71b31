"""Which shapes have to be read of a graph, so that all of its shapes are known: the others follow from these, by the
types of the nodes. Reading one costs what a node of a plain backward costs, and there is one for each node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from torch import Size
from torch.autograd.graph import Node

from fastrw.graph.walk import Edge, Graph, Leaf


def _named(words: str) -> frozenset[str]:
    return frozenset(f"{word}Backward0" for word in words.split())


# The shape of the output is that of the first input, and that of the first input is that of the output.
_SAME = _named(
    """Abs Celu Clone Cos Elu Erf Exp Gelu Hardsigmoid Hardswish Hardtanh LeakyRelu Log LogSigmoid LogSoftmax Mish Neg
    Relu Rsqrt Sigmoid Silu Sin Softmax Softplus Sqrt Tanh ToCopy"""
)
# From the first input follows the shape of every output, and from the output that of the first input, ...
_TURNED = _named("T Transpose Permute")
_NORMS = _named("NativeLayerNorm NativeGroupNorm")
# ... but not here.
_PARTED = _named("Split SplitWithSizes Unbind")
# The numbers that this takes. They say where each row goes, too, as far as the operation decides it.
NUMBERS = {
    "TransposeBackward0": ("dim0", "dim1"),
    "PermuteBackward0": ("dims",),
    "SplitBackward0": ("dim", "split_size"),
    "SplitWithSizesBackward0": ("dim", "split_sizes"),
    "UnbindBackward0": ("dim",),
    "SoftmaxBackward0": ("dim",),
    "LogSoftmaxBackward0": ("dim",),
}
_MORE = {"NativeLayerNormBackward0": ("normalized_shape",), "NativeGroupNormBackward0": ("group",)}
# The shape of the output follows from those of two inputs.
_OF_TWO = {name: (0, 1) for name in _named("Add Sub Mul Div Mm Bmm")} | {"AddmmBackward0": (1, 2)}
# Input -> the name under which its shape is saved. Such numbers are read five times faster than shapes.
_TOLD = {name: {0: "self_sym_sizes"} for name in _named("View UnsafeView Expand Sum Mean Split Slice Select")}
_TOLD |= {"MeanBackward1": {0: "self_sym_sizes"}, "SumBackward1": {0: "self_sym_sizes"}}
_TOLD |= {"AddmmBackward0": {1: "mat1_sym_sizes", 2: "mat2_sym_sizes"}}


class Reading:
    """What is read of graphs of the same types and edges as this one. Two of them have equal shapes if, and only if,
    what is read is equal."""

    def __init__(self, graph: Graph):
        names: dict[tuple[str, ...], list[int]] = {}
        others: list[int] = []
        follows = _Follows(graph)
        for i, node in enumerate(graph.nodes):
            name = node.name()
            if type(node) is Leaf:
                follows.add((i, 0))
            elif numbers := NUMBERS.get(name) or (_MORE.get(name) if i in follows.ruled else None):
                names.setdefault(tuple(["_saved_" + number for number in numbers]), []).append(i)
        for edge, (parent, name) in follows.told.items():
            if edge not in follows.known:
                names.setdefault((name,), []).append(parent)
                follows.add(edge)
        for i in reversed(range(len(graph.nodes))):  # from below: more follows
            missing = [(i, k) for k in range(follows.outputs[i]) if (i, k) not in follows.known]
            if missing:
                others.append(i)
            for edge in missing:
                follows.add(edge)
        self._numbers = [(attrgetter(*name), _all_of(found)) for name, found in names.items()]
        self._others = _all_of(others)

    def __call__(self, graph: Graph) -> tuple:
        found: list[Any] = [leaf.shape for leaf in graph.leaves.values()]
        for read, these in self._numbers:
            found += map(read, these(graph.nodes))
        found += [tuple([tuple(m.shape) for m in node._input_metadata]) for node in self._others(graph.nodes)]
        return tuple(found)


class _Follows:
    """Which shapes are known, from what is known and the types of the nodes. That a type does as this file says is made
    sure of on the graph at hand."""

    def __init__(self, graph: Graph):
        self.known: set[Edge] = set()
        self._below = graph.below
        self._above: dict[Edge, list[int]] = {}
        self.told: dict[Edge, tuple[int, str]] = {}  # edge -> a node that saved its shape, and the name
        shapes = [[Size(m.shape) for m in node._input_metadata] for node in graph.nodes]
        self.outputs = [len(found) for found in shapes]
        self.ruled: dict[int, tuple[Sequence[int], bool]] = {}  # node -> inputs from which outputs follow; and back?
        for i, node in enumerate(graph.nodes):
            below, name = graph.below[i], node.name()
            for edge in below:
                if edge is not None:
                    self._above.setdefault(edge, []).append(i)
            for j, attribute in _TOLD.get(name, {}).items():
                edge = below[j]
                if edge is None or self.outputs[edge[0]] > 1 or not _has_one_output(graph.nodes[edge[0]].name()):
                    continue
                if getattr(node, "_saved_" + attribute) == shapes[edge[0]][edge[1]]:
                    self.told[edge] = i, "_saved_" + attribute
            inputs, back = _OF_TWO.get(name, (0,)), name not in _OF_TWO and name not in _PARTED
            if not all(j < len(below) and below[j] is not None for j in inputs):
                continue
            of = [shapes[c][k] for c, k in (below[j] for j in inputs)]
            if (name in _SAME or name in _NORMS) and shapes[i][0] != of[0]:
                continue
            if name in _TURNED and sorted(shapes[i][0]) != sorted(of[0]):
                continue
            if name in _SAME or name in _TURNED or name in _NORMS or name in _PARTED or name in _OF_TWO:
                self.ruled[i] = inputs, back

    def add(self, edge: Edge) -> None:
        """This is known too, and all that follows."""
        pending = [edge]
        while pending:
            i, k = edge = pending.pop()
            if edge in self.known:
                continue
            self.known.add(edge)
            inputs, back = self.ruled.get(i, ((), False))
            if back and k == 0:
                pending.append(self._below[i][inputs[0]])
            for parent in self._above.get(edge, ()):
                inputs, _ = self.ruled.get(parent, ((), False))
                if inputs and all(self._below[parent][j] in self.known for j in inputs):
                    pending += [(parent, k) for k in range(self.outputs[parent])]


def _has_one_output(name: str) -> bool:
    """If the node at hand has one, has every node of its type? Not those of custom functions, and of lists."""
    return name[-1:].isdigit() and not any(word in name for word in ("Split", "Unbind"))


def _all_of(indices: Sequence[int]) -> Callable[[Sequence[Node]], Sequence[Node]]:
    """Of the nodes, those with these numbers."""
    if len(indices) == 1:
        return lambda nodes: (nodes[indices[0]],)
    return itemgetter(*indices) if indices else lambda nodes: ()
