"""What follows from a cut for every graph like the one it was made on: where the gradients of its uses go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from fastrw.engine.cut import Cut
from fastrw.engine.sweep import Step
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import views
from fastrw.nodes.base import Joint, Products, Use


@dataclass(frozen=True, slots=True)
class Source:
    """Where the gradient of an input of a use goes: to the leaf of node `leaf` (transposed or not), or, where `leaf` is
    None, through the edge `edge` to parameters from which the input is derived."""

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
    scored: dict[int, Source]  # the sources that contribute to scores
    lowest: bool  # does no other use lie below?
    shared: bool  # do other uses contribute to the V of its scored sources?
    why: str = ""  # is the cut not lower?
    joined: tuple[tuple[Site, str | tuple], ...] = ()  # those that it stands for, and why each has its form


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Uses that have one part, of which `site` says where the gradients go."""

    joint: Joint
    products: Products  # by which this was chosen
    site: Site


@dataclass(slots=True, eq=False)
class Plan:
    cut: Cut
    sites: tuple[Site, ...]
    selected: frozenset[int]  # nodes of the leaves that scores use
    under: dict[int, set[Edge]]  # leaf -> the edges of sources that it lies below
    wanted: frozenset[Edge]  # the edges whose tangents scores need
    content: tuple = ()
    names: tuple = ()  # of the nodes of the graph, its edges and shapes
    calls_nodes: bool = True  # nodes are called directly: the backward must not free what they saved
    checkpointed: bool = False  # see graph.recomputed
    together: tuple[Together, ...] = ()
    single: tuple[Site, ...] = ()  # those of no use of these
    asked: bool = False  # has a pass told which uses can have one part?
    mixed_by: str | None = None  # the operation below the cut that mixes the batch dimension
    scores_mixed_by: str | None = None  # the same, of operations that the scores depend on
    routes: dict[frozenset[int], tuple[Step, ...]] = field(default_factory=dict)  # from these leaves to `wanted`


def plan_of(graph: Graph, cut: Cut, selected: frozenset[int], names: Mapping[int, str]) -> Plan:
    """selected: nodes of the leaves that scores use; names: id of a leaf -> its name."""
    leaves = graph.leaves
    sources = [{j: _source(graph, *graph.below[use.node][j]) for j in use.below} for use in cut.uses]
    every = [source for found in sources for source in found.values()]
    under = _under(graph, {source.edge for source in every if source.leaf is None})
    counts = Counter(source.leaf for source in every)

    def leaves_of(source: Source) -> list[int]:
        if source.leaf is not None:
            return [source.leaf]
        return [leaf for leaf, edges in under.items() if source.edge in edges]

    sites = []
    for use, found in zip(cut.uses, sources, strict=True):
        scored = {j: source for j, source in found.items() if not selected.isdisjoint(leaves_of(source))}
        shared = any(counts[source.leaf] > 1 or source.leaf in under or source.leaf is None
                     for source in scored.values())  # fmt: skip
        below = dict.fromkeys(leaf for source in found.values() for leaf in leaves_of(source))
        parameters = " ".join(names.get(id(leaves[i])) or str(list(leaves[i].shape)) for i in below)
        name = graph.nodes[use.node].name()
        sites.append(Site(use, name, parameters, found, scored, use.node in cut.lowest, shared))
    wanted = frozenset(source.edge for site in sites for source in site.scored.values() if source.leaf is None)
    return Plan(cut, tuple(sites), selected, under, wanted)


def join(plan: Plan, found: Sequence[tuple[Site, tuple[type[Joint], Hashable], str | tuple]], products: Products
         ) -> None:  # fmt: skip
    """found: sites that may have one part with others, what they have in common, and why each has its form."""
    by_use = {site.use: (site, why) for site, _, why in found}
    alike: dict[tuple, list[Use]] = {}
    for site, common, _ in found:
        alike.setdefault(common, []).append(site.use)
    made = [one for (kind, common), uses in alike.items() for one in kind.of(uses, common, products.backend)]
    plan.together = tuple([Together(one, products, _site(one, by_use)) for one in made])
    taken = {use for one in made for use in one.uses}
    plan.single = tuple([site for site in plan.sites if site.use not in taken])


def _site(joint: Joint, by_use: Mapping[Use, tuple[Site, str | tuple]]) -> Site:
    """Where the gradients of its part go."""
    joined, sources = tuple([by_use[use] for use in joint.uses]), {}
    for key, i, j, transposed in joint.sent():
        source = joined[i][0].sources[j]
        sources[key] = Source(source.leaf, source.transposed ^ transposed, source.edge)
    first = joined[0][0]
    parameters = " ".join([site.parameters for site, _ in joined])
    return Site(first.use, first.name, parameters, sources, sources, False, False, joined=joined)


def _under(graph: Graph, edges: set[Edge]) -> dict[int, set[Edge]]:
    """Leaf's node -> those of the edges that it lies below."""
    found: dict[int, set[Edge]] = {}
    for edge in edges:
        stack, seen = [edge[0]], {edge[0]}
        while stack:
            i = stack.pop()
            if i in graph.leaves:
                found.setdefault(i, set()).add(edge)
            for child in graph.below[i]:
                if child is not None and child[0] not in seen:
                    seen.add(child[0])
                    stack.append(child[0])
    return found


def _source(graph: Graph, i: int, k: int) -> Source:
    """Through transposes and casts, which V and gradients follow without a sweep."""
    edge, transposed = (i, k), False
    while i not in graph.leaves:
        transposes = views.of_parameter(graph.nodes[i])
        below = graph.below[i]
        if transposes is None or below[0] is None or any(below[1:]):
            return Source(None, False, edge)
        transposed ^= transposes
        i = below[0][0]
    return Source(i, transposed, edge)
