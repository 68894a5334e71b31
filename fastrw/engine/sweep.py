"""Tangents swept up the graph, from the leaves to wherever they are needed, computed from what the nodes saved: nothing
is run again. Each tangent is freed after its last reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from fastrw.graph.recomputed import reads
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.lazy import Tangent, formed


class Step(NamedTuple):
    """A node on the way up."""

    node: int
    inputs: tuple[tuple[int, int, int], ...]  # its inputs, and the node and output that each comes from
    last: tuple[int, ...]  # nodes whose tangents nothing reads after this
    reader: int | None  # the only node that sends to it
    first: bool  # is its first output the only one that is read?


def route(graph: Graph, nodes: Sequence[int], leaves: Collection[int], wanted: Collection[Edge]) -> tuple[Step, ...]:
    """The nodes between these leaves and the edges of `wanted`, from the leaves up: the same for each graph of one
    structure. nodes: without leaves, each after all that send to it."""
    below = {i: [(j, *edge) for j, edge in enumerate(graph.below[i]) if edge is not None] for i in nodes}
    needed: set[int] = {i for i, _ in wanted}
    parents: dict[int, set[int]] = {}
    for i in nodes:
        for _, child, _ in below[i]:
            parents.setdefault(child, set()).add(i)
            if i in needed:
                needed.add(child)
    reached, path = set(leaves), []
    for i in reversed(nodes):
        if i in needed and any(child in reached for _, child, _ in below[i]):
            reached.add(i)
            path.append(i)
    readers = Counter([*(child for i in path for _, child, _ in below[i]), *{i for i, _ in wanted}])
    beyond_first = {child for i in path for _, child, k in below[i] if k} | {i for i, k in wanted if k}
    steps = []
    for i in path:
        readers.subtract(child for _, child, _ in below[i])
        last = tuple({child for _, child, _ in below[i] if not readers[child]})
        above = parents.get(i, ())
        reader = next(iter(above)) if len(above) == 1 else None
        inputs = tuple([one for one in below[i] if one[1] in reached])
        steps.append(Step(i, inputs, last, reader, i not in beyond_first))
    return tuple(steps)


def sweep(graph: Graph, steps: Sequence[Step], V: Mapping[int, Tensor], wanted: Collection[Edge], backend: str,
          checkpointed: bool = False) -> dict[Edge, Tensor]:  # fmt: skip
    """edge -> its tangent, for the edges of `wanted` that V reaches. V: leaf's node -> direction."""
    tangents: dict[int, dict[int, Tangent]] = {i: {0: v} for i, v in V.items()}
    nodes, saved = graph.nodes, reads(checkpointed)
    for i, inputs, last, reader, first in steps:
        ts = {j: tangents[child][k] for j, child, k in inputs if k in tangents.get(child, ())}
        for child in last:
            tangents.pop(child, None)
        if ts:
            with saved:
                above = None if reader is None else nodes[reader]
                tangents[i] = registry.tangent(nodes[i], ts, backend, above, first)
    with saved:
        found = {(i, k): formed(tangents[i][k]) for i, k in wanted if k in tangents.get(i, ())}
    saved.forget()
    return found
