"""Tangents swept up the graph, from the leaves to wherever they are needed, computed from what the nodes saved: nothing
is run again. Each tangent is freed after its last reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from fastrw.graph.recomputed import reads
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.lazy import Tangent, formed


def sweep(graph: Graph, nodes: Sequence[int], V: Mapping[int, Tensor], wanted: Collection[Edge], backend: str,
          checkpointed: bool = False) -> dict[Edge, Tensor]:  # fmt: skip
    """edge -> its tangent, for the edges of `wanted` that V reaches.

    nodes: without leaves, each after all that send to it; V: leaf's node -> direction.
    """
    below = {i: [edge for edge in graph.below[i] if edge is not None] for i in nodes}
    needed, parents = {i for i, _ in wanted}, {}
    for i in nodes:
        for child, _ in below[i]:
            parents.setdefault(child, set()).add(i)
            if i in needed:
                needed.add(child)
    reached, path = set(V), []  # path: the nodes between V and what is wanted, from the leaves up
    for i in reversed(nodes):
        if i in needed and any(child in reached for child, _ in below[i]):
            reached.add(i)
            path.append(i)
    readers = Counter([*(child for i in path for child, _ in below[i]), *{i for i, _ in wanted}])
    beyond_first = {child for i in path for child, k in below[i] if k} | {i for i, k in wanted if k}
    tangents: dict[int, dict[int, Tangent]] = {i: {0: v} for i, v in V.items()}
    saved = reads(checkpointed)
    for i in path:
        ts = {j: tangents[edge[0]][edge[1]] for j, edge in enumerate(graph.below[i])
              if edge is not None and edge[1] in tangents.get(edge[0], ())}  # fmt: skip
        for child, _ in below[i]:
            readers[child] -= 1
            if not readers[child]:
                tangents.pop(child, None)
        if ts:
            above = parents.get(i, ())
            reader = graph.nodes[next(iter(above))] if len(above) == 1 else None
            with saved:
                tangents[i] = registry.tangent(graph.nodes[i], ts, backend, reader, i not in beyond_first)
    with saved:
        found = {(i, k): formed(tangents[i][k]) for i, k in wanted if k in tangents.get(i, ())}
    saved.forget()
    return found
