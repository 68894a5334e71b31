"""What was learned of graphs, by graph: the cut, where the gradients of its uses go, and how often it was checked."""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastrw.engine.cut import Cut
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import routes
from fastrw.nodes.base import Use

STRUCTURES, CONTENTS = 128, 16  # kept, of all graphs; of one structure


@dataclass(frozen=True, slots=True)
class Source:
    """Where the gradient of an input of a use goes: to the leaf of node `leaf`, whose transpose it may be, or through
    the edge `edge` of the parameter side."""

    leaf: int | None
    turned: bool
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
    content: tuple = ()
    keeps: bool = True  # nodes are called by hand: the backward must not free what they saved
    checkpointed: bool = False  # see graph.saved.once
    meet: str | None = None  # where examples meet below the cut
    scores_meet: str | None = None  # the same, on the way to what scores go by

    @property
    def wanted(self) -> set[Edge]:
        """The edges whose tangents scores go by."""
        return {source.edge for site in self.sites for source in site.scored.values() if source.leaf is None}


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
    return Plan(cut, tuple(sites), under)


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
    edge, turned = (i, k), False
    while i not in leaves:
        name = graph.nodes[i].name()
        if name == "TBackward0":
            turned = not turned
        elif name != "ToCopyBackward0" or _is_complex(graph.nodes[i]):
            return Source(None, False, edge)
        (child, k), *others = graph.next[i]
        if child is None or any(node is not None for node, _ in others):
            return Source(None, False, edge)
        i = graph.index[child]
    return Source(i, turned, edge)


def _is_complex(node) -> bool:
    child, k = node.next_functions[0]
    return child is None or any(m.dtype.is_complex for m in (node._input_metadata[0], child._input_metadata[k]))


def content_of(graph: Graph, cut: Cut) -> tuple:
    """See routes.content; of the graph at hand, for a cut that another of its structure has."""
    return tuple(routes.content(graph.nodes[i], cut.sends[i]) for i in cut.content)


def _equal(a, b) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, tuple | list):
        return isinstance(b, tuple | list) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b


@dataclass(slots=True, eq=False)
class Family:
    """Graphs of the same operations on the same parameters, whatever their shapes."""

    calls: int = 0  # that were held to be right
    has_no_hooks: bool = False  # that change a gradient


class Cache:
    """Structure and leaves -> plans, one for each content; the least recently used go."""

    def __init__(self):
        self._plans: OrderedDict[tuple, tuple[list, list[Plan]]] = OrderedDict()
        self._families: OrderedDict[tuple, tuple[list, Family]] = OrderedDict()

    def family(self, key: tuple, parameters: Sequence[Tensor]) -> Family:
        """Of the graphs that differ from this one in shapes at most."""
        (types, edges, _), *rest = key
        key = (types, edges, *rest)
        found = self._families.get(key)
        if found is None or any(ref() is not p for ref, p in zip(found[0], parameters, strict=True)):
            if len(self._families) >= STRUCTURES:
                self._families.popitem(last=False)
            found = self._families[key] = [weakref.ref(p) for p in parameters], Family()
        return found[1]

    def get(self, key: tuple, parameters: Sequence[Tensor], graph: Graph) -> Plan | None:
        found = self._plans.get(key)
        if found is None:
            return None
        refs, plans = found
        if any(ref() is not p for ref, p in zip(refs, parameters, strict=True)):  # an id that was used again
            del self._plans[key]
            return None
        self._plans.move_to_end(key)
        for plan in plans:
            if not plan.cut.content or _equal(content_of(graph, plan.cut), plan.content):
                return plan
        return None

    def put(self, key: tuple, parameters: Sequence[Tensor], graph: Graph, plan: Plan) -> None:
        plan.content = _kept(content_of(graph, plan.cut))
        if key not in self._plans and len(self._plans) >= STRUCTURES:
            self._plans.popitem(last=False)
        _, plans = self._plans.setdefault(key, ([weakref.ref(p) for p in parameters], []))
        del plans[CONTENTS - 1 :]
        plans.append(plan)
        plans.sort(key=lambda plan: -len(plan.content))  # one that asks for less would be found for all

    def drop(self, key: tuple) -> None:
        """Forget what was learned of such graphs."""
        self._plans.pop(key, None)
        (types, edges, _), *rest = key
        self._families.pop((types, edges, *rest), None)


def _kept(content):
    """With tensors of its own: the graph's may be written to."""
    if isinstance(content, Tensor):
        return content.clone()
    return tuple(map(_kept, content)) if isinstance(content, tuple | list) else content


def key_of(graph: Graph, selected: frozenset[int], n: int, *more) -> tuple[tuple, list[Tensor]]:
    """(what a plan is kept under, the parameters among the leaves)."""
    leaves = graph.leaves
    parameters = [leaf for leaf in leaves.values() if isinstance(leaf, nn.Parameter)]
    roots = tuple([m.dtype for root in graph.roots for m in root._input_metadata])
    return (graph.skeleton(), tuple(map(id, parameters)), selected, roots, n, *more), parameters
