"""Tangents swept up the graph, from the leaves to wherever they are asked for, out of what the nodes saved: nothing is
run again. Each is let go after its last reader."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from fastrw.graph.saved import once
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.lazy import Tangent, formed


def sweep(graph: Graph, nodes: Sequence[int], V: Mapping[int, Tensor], wanted: Collection[Edge], backend: str,
          checkpointed: bool = False) -> dict[Edge, Tensor]:  # fmt: skip
    """edge -> its tangent, for those of `wanted` that one reaches.

    nodes: without leaves, each after all that send to it; V: leaf's node -> direction.
    """
    below = {i: [None if c is None else (graph.index[c], k) for c, k in graph.next[i]] for i in nodes}
    need = _above(nodes, below, V, wanted)
    readers: dict[int, int] = dict.fromkeys((i for i, _ in wanted), 1)
    for i in need:
        for edge in below[i]:
            if edge is not None:
                readers[edge[0]] = readers.get(edge[0], 0) + 1
    held: dict[int, dict[int, Tangent]] = {i: {0: v} for i, v in V.items()}
    alone = _read_by_one(nodes, below)
    others = {edge[0] for i in need for edge in below[i] if edge is not None and edge[1]} | {i for i, k in wanted if k}
    for i in need:
        ts = {j: held[c][k] for j, edge in enumerate(below[i]) if edge is not None
              for c, k in [edge] if k in held.get(c, ())}  # fmt: skip
        for edge in below[i]:
            if edge is not None:
                readers[edge[0]] -= 1
                if not readers[edge[0]]:
                    held.pop(edge[0], None)
        if ts:
            reader = alone.get(i)
            reader = None if reader is None else graph.nodes[reader]
            with once(checkpointed):
                held[i] = registry.tangent(graph.nodes[i], ts, backend, reader, i not in others)
    return {edge: formed(held[edge[0]][edge[1]]) for edge in wanted if edge[1] in held.get(edge[0], ())}


def _above(nodes: Sequence[int], below: Mapping, V: Mapping[int, Tensor], wanted: Collection[Edge]) -> list[int]:
    """The nodes between V and what is wanted, from the leaves up."""
    asked = {i for i, _ in wanted}
    for i in nodes:
        if i in asked:
            asked.update(edge[0] for edge in below[i] if edge is not None)
    moved, found = set(V), []
    for i in reversed(nodes):
        if i in asked and any(edge is not None and edge[0] in moved for edge in below[i]):
            moved.add(i)
            found.append(i)
    return found


def _read_by_one(nodes: Sequence[int], below: Mapping) -> dict[int, int]:
    """Node -> the only one that sends to it."""
    parents: dict[int, set[int]] = {}
    for i in nodes:
        for edge in below[i]:
            if edge is not None:
                parents.setdefault(edge[0], set()).add(i)
    return {i: next(iter(ps)) for i, ps in parents.items() if len(ps) == 1}
