"""What lies below the cut, in words: which operation mixes the batch dimension, and why a use is not lower. (For
reports and the choice of a method: scores are exact whatever is said here.)"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from fastrw.engine.cut import Cut
from fastrw.graph.saved import address
from fastrw.graph.walk import Graph
from fastrw.nodes import routes, views
from fastrw.nodes.base import Use


class Side:
    """The parameter side of a cut. n: examples. fixed: tensors that belong to the model, not to a batch; None where no
    model is known: then no batches are joined by what is said here, and what has another size is taken for such.

    Its operations are made of parameters alone; or they have a batch dimension, recognised by the sizes that uses have
    along theirs, and lie below an operation that mixes it."""

    def __init__(self, graph: Graph, cut: Cut, n: int, fixed: Collection[Tensor] | None):
        self._graph, self._cut, self._fixed = graph, cut, fixed
        self._places = {address(t) for t in fixed or ()}
        self._sizes = self._sizes_above(n)
        made = self._made_of_parameters()
        self._batch = [
            i for i in cut.side if i not in made and not routes.spreads(graph.nodes[i]) and self._has_size(i)
        ]

    def mixed_by(self, leaves: Collection[int]) -> str | None:
        """The operation that mixes the batch dimension above one of `leaves`; None if there is none."""
        graph, leads = self._graph, set(leaves)
        if name := next((node.name() for node in graph.nodes if routes.batchwise(node)), None):
            return name
        for i in reversed(self._cut.side):
            if any(edge is not None and edge[0] in leads for edge in graph.below[i]):
                leads.add(i)
        mixer = self._mixer(leads)
        return None if mixer is None else graph.nodes[mixer].name()

    def why(self, use: Use) -> str:
        """Why the graph is cut at this use, and not below it."""
        graph, node = self._graph, self._graph.nodes[use.node]
        below = {graph.below[use.node][j][0] for j in use.below}
        mixer = self._mixer(self._reach(below))
        if mixer == use.node:
            return "it mixes the batch dimension"
        if mixer is not None:
            return f"below it, {graph.nodes[mixer].name()} mixes the batch dimension"
        if routes.is_custom(node):
            return "a custom function takes the parameter, and hides its operands"
        names = [name for i in sorted(below) if (name := self._derived_by(i)) is not None]
        return f"it takes what {names[0]} makes of the parameter" if names else "it takes the parameter"

    def _derived_by(self, i: int) -> str | None:
        """What makes this of a parameter; None if nothing but transposes and casts."""
        nodes, below = self._graph.nodes, self._graph.below
        while views.of_parameter(nodes[i]) is not None and below[i][0] is not None:
            i = below[i][0][0]
        return None if i in self._graph.leaves else nodes[i].name()

    def _sizes_above(self, n: int) -> dict[int, set[tuple[int, int]]]:
        """Node of the side -> (dimension, size) of a batch dimension in the uses that it lies below. n: examples."""
        above: dict[int, set[tuple[int, int]]] = {}
        for use in self._cut.uses:
            owned = [o for o in use.owned.values() if o.dim is not None and len(o.of) > 1]
            above[use.node] = {(dim, len(o.of)) for o in owned for dim in (0, o.dim)} | {(0, n)}
        for i in self._cut.side:
            senders = (
                q for k in range(len(self._graph.nodes[i]._input_metadata)) for q in self._graph.senders.get((i, k), ())
            )
            above[i] = set().union(*(above.get(q, ()) for q in senders))
        return above

    def _made_of_parameters(self) -> set[int]:
        graph, made = self._graph, set(self._graph.leaves)
        spread: set[int] = set()  # repeated for each example
        for i in reversed(self._cut.side):
            node, below = graph.nodes[i], [edge for edge in graph.below[i] if edge is not None]
            if any(c not in made for c, _ in below):
                continue
            shapes = [torch.Size(graph.nodes[c]._input_metadata[k].shape) for c, k in below if c not in spread]
            assumed = self._fixed is None and not self._has_size(i, multiples=True)
            if (
                assumed
                or not routes.brings_data(node, shapes)
                or routes.reads_only(node, self._fixed or (), self._places)
            ):
                made.add(i)
                if any(c in spread for c, _ in below) or (routes.spreads(node) and self._has_size(i)):
                    spread.add(i)
        return made

    def _mixer(self, nodes: Collection[int]) -> int | None:
        """The operation above the first of these nodes that has a batch dimension; None if none has."""
        found = next((i for i in self._batch if i in nodes), None)
        return None if found is None else self._sender(found)

    def _reach(self, below: Collection[int]) -> set[int]:
        """These nodes and, where that matters, all below them."""
        reach, stack = set(below), [*below]
        while stack and self._batch:
            new = {edge[0] for edge in self._graph.below[stack.pop()] if edge is not None} - reach
            reach |= new
            stack += new
        return reach

    def _sender(self, i: int) -> int:
        """The operation above this one that mixes, as far as can be told: the next one up that is no view, and has no
        batch dimension below the cut itself."""
        graph, side = self._graph, self._cut.side
        while True:
            senders = {q for k in range(len(graph.nodes[i]._input_metadata)) for q in graph.senders[i, k]}
            i = min(senders, key=lambda q: (q not in side, not routes.may_mix(graph.nodes[q]), q))
            if i not in side or not (i in self._batch or views.is_view(graph.nodes[i])):
                return i

    def _has_size(self, i: int, multiples: bool = False) -> bool:
        """Has an output a dimension like the batch dimension of a use? multiples: or its rows, so many for each?"""
        shapes = [m.shape for m in self._graph.nodes[i]._input_metadata]
        if multiples and any(s and s[0] and s[0] % size == 0 for s in shapes for _, size in self._sizes[i]):
            return True
        return any(d < len(s) - (d > 0) and s[d] == size for s in shapes for d, size in self._sizes[i])
