"""What follows from a cut for every graph like the one it was made on: where the gradients of its uses go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fastrw.engine.cut import Cut
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import views
from fastrw.nodes.base import Use


@dataclass(frozen=True, slots=True)
class Source:
    """Where the gradient of an input of a use goes: to the leaf of node `leaf`, whose transpose it may be, or through
    the edge `edge` of the parameter side."""

    leaf: int | None
    transposed: bool
    edge: Edge


@dataclass(slots=True, eq=False)
class Site:
    """A use, and what follows from the whole cut for it."""

    use: Use
    name: str  # of the node's type
    parameters: str  # the names of the leaves below
    sources: dict[int, Source]  # input -> where its gradient goes
    scored: dict[int, Source]  # those that scores go by
    lowest: bool
    alone: bool  # no other use has a part in the V of what is scored


@dataclass(slots=True, eq=False)
class Plan:
    cut: Cut
    sites: tuple[Site, ...]
    under: dict[int, set[Edge]]  # leaf -> the edges of sources that it lies below
    wanted: frozenset[Edge]  # the edges whose tangents scores go by
    content: tuple = ()
    keeps: bool = True  # nodes are called by hand: the backward must not free what they saved
    checkpointed: bool = False  # see graph.saved.once
    mixed_by: str | None = None  # the operation below the cut that mixes the batch dimension
    scores_mixed_by: str | None = None  # the same, on the way to what scores go by


def plan_of(graph: Graph, cut: Cut, selected: Collection[int], names: Mapping[int, str]) -> Plan:
    """selected: nodes of the leaves that scores go by; names: id of a leaf -> its name."""
    leaves = graph.leaves
    sources = []
    for use in cut.uses:
        below = graph.next[use.node]
        sources.append({j: _source(graph, leaves, graph.index[below[j][0]], below[j][1]) for j in use.below})
    every = [source for found in sources for source in found.values()]
    under = _under(graph, {source.edge for source in every if source.leaf is None})
    counts = Counter(source.leaf for source in every if source.leaf is not None)

    def scored(source: Source) -> bool:
        if source.leaf is not None:
            return source.leaf in selected
        return any(leaf in selected and source.edge in edges for leaf, edges in under.items())

    sites = []
    for use, found in zip(cut.uses, sources, strict=True):
        mine = {j: source for j, source in found.items() if scored(source)}
        alone = all(counts[source.leaf] == 1 and source.leaf not in under for source in mine.values())
        told: dict[int, None] = {}
        for source in found.values():
            through = [leaf for leaf, edges in under.items() if source.edge in edges]
            told |= dict.fromkeys(through if source.leaf is None else [source.leaf])
        words = " ".join(names.get(id(leaves[i])) or str(list(leaves[i].shape)) for i in told)
        sites.append(Site(use, graph.nodes[use.node].name(), words, found, mine, use.node in cut.lowest, alone))
    wanted = frozenset(source.edge for site in sites for source in site.scored.values() if source.leaf is None)
    return Plan(cut, tuple(sites), under, wanted)


def _under(graph: Graph, edges: set[Edge]) -> dict[int, set[Edge]]:
    """Leaf's node -> those of the edges that it lies below."""
    found: dict[int, set[Edge]] = {}
    for edge in edges:
        stack, seen = [edge[0]], {edge[0]}
        while stack:
            i = stack.pop()
            if i in graph.leaves:
                found.setdefault(i, set()).add(edge)
            for child, _ in graph.next[i]:
                if child is not None and (c := graph.index[child]) not in seen:
                    seen.add(c)
                    stack.append(c)
    return found


def _source(graph: Graph, leaves: dict, i: int, k: int) -> Source:
    """Through transposes and casts, which V and gradients follow without a sweep."""
    edge, transposed = (i, k), False
    while i not in leaves:
        transposes = views.of_parameter(graph.nodes[i])
        if transposes is None:
            return Source(None, False, edge)
        transposed ^= transposes
        (child, k), *others = graph.next[i]
        if child is None or any(node is not None for node, _ in others):
            return Source(None, False, edge)
        i = graph.index[child]
    return Source(i, transposed, edge)
