"""Scores, weights and weighted gradient from one backward of activations: where the gradient of a use appears, its V, its
score and what its update will need are taken at once; no gradient of a parameter is formed in the backward. Then Eq. 8-9,
then sum_i w_i G_i, use by use; what is kept of a use is let go with its update.

When a use is scored: at once, where V is known, or where its own rows of the validation make all of V; else (a parameter
used twice, or something derived from parameters) when the last validation row has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.engine.plan import Plan, Source
from fastrw.engine.sweep import sweep
from fastrw.errors import ForThisBatch, Refused
from fastrw.graph.saved import reading
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.base import Part, Products
from fastrw.nodes.generic import Generic
from fastrw.nodes.linear import gram_scores
from fastrw.nodes.waiting import formed
from fastrw.report import UseReport

Mark = Callable[[str], None]


@dataclass
class Found:
    """What a pass gives. gradients: node of a leaf -> sum_i w_i grad f_i, times `Asked.scale`."""

    scores: Tensor
    weights: Tensor
    gradients: dict[int, Tensor] = field(default_factory=dict)
    uses: tuple[UseReport, ...] = ()
    generic: bool = False  # was a node that the backward passed called by hand?


@dataclass(frozen=True)
class Asked:
    """What is wanted of a pass."""

    n: int
    normalize: Callable[[Tensor], Tensor]
    selected: frozenset[int]  # nodes of the leaves that scores go by
    products: Products = Products()
    scaling: Tensor | None = None  # what losses are multiplied with in a backward, so that float16 gradients stay above 0
    scale: float | Tensor = 1.0  # what the weighted gradient is multiplied with
    update: bool = True  # is the weighted gradient wanted?
    checkpointed: bool = False

    def unscaled(self, scores: Tensor) -> Tensor:
        """Both gradients of a score were scaled."""
        return scores if self.scaling is None else scores / self.scaling / self.scaling


class Pass:
    """One graph, cut as `plan` says. V: leaf's node -> validation gradient; None where the graph's own validation rows
    make it."""

    def __init__(self, graph: Graph, plan: Plan, outputs: Sequence[Tensor], V: Mapping[int, Tensor] | None, asked: Asked,
                 names: Mapping[int, str] | None = None):  # fmt: skip
        self._names = names or {}
        self._graph, self._plan, self._outputs, self._asked = graph, plan, outputs, asked
        self._dtype = torch.promote_types(outputs[0].dtype, torch.float32)
        self._V = None if V is None else dict(V)
        self._directions: dict[Edge, Tensor] | None = None if V is None else {}
        self._parts: list[tuple[int, Part]] = []
        self._later: list[tuple[int, Part]] = []
        self._by_hand: list[tuple[int, Part]] = []  # whose nodes are called, once the backward has ended
        self._dots: list[Tensor] = []
        self._gradients: dict[int, Tensor] = {}
        self._derived: dict[Edge, Tensor] = {}
        self._account: list[tuple[int, Part]] = []
        self._generic = False
        self.scores: Tensor | None = None
        self.weights: Tensor | None = None
        uses = plan.sources
        counts: dict[int, int] = {}
        for sources in uses.values():
            for source in sources.values():
                if source.leaf is not None:
                    counts[source.leaf] = counts.get(source.leaf, 0) + 1
        self._side = self._side_leaves(sources for sources in uses.values())
        self._alone = {leaf for leaf, count in counts.items() if count == 1 and leaf not in self._side}
        self._awaited = {i for i, sources in uses.items() if any(map(self._scored, sources.values()))}

    def run(self, retain: bool, mark: Mark = lambda phase: None) -> Found:
        """retain: is the graph needed afterwards?"""
        with torch.no_grad(), torch.autocast(self._outputs[0].device.type, enabled=False):
            if self._V is not None:
                self._sweep()
            self._backward(retain or self._plan.keeps)
            mark("backward")
            self._weigh()
            if self._asked.update:
                while self._parts:
                    self._update(*self._parts.pop())
                self._push(self._derived, self._gradients, retain)
                mark("update")
        found = Found(self.scores, self.weights, self._gradients, generic=self._generic)
        by_node = {use.node: use for use in self._plan.cut.uses}
        found.uses = tuple(self._report(by_node[i], part) for i, part in self._account)
        return found

    # who is scored when

    def _side_leaves(self, uses) -> dict[int, set[Edge]]:
        """Leaf's node -> the derived edges that it lies below."""
        edges = {source.edge for sources in uses for source in sources.values() if source.leaf is None}
        if not edges:
            return {}
        leaves, found = self._graph.leaves(), {}
        for edge in edges:
            stack, seen = [edge[0]], set()
            while stack:
                i = stack.pop()
                if i in leaves:
                    found.setdefault(i, set()).add(edge)
                for child, _ in self._graph.next[i]:
                    if child is not None and (c := self._graph.index[child]) not in seen:
                        seen.add(c)
                        stack.append(c)
        return found

    def _scored(self, source: Source) -> bool:
        selected = self._asked.selected
        if source.leaf is not None:
            return source.leaf in selected
        return any(leaf in selected and source.edge in edges for leaf, edges in self._side.items())

    # the backward

    def _backward(self, retain: bool) -> None:
        plan, nodes = self._plan, self._graph.nodes
        asked, handles = [], []
        seeds = [torch.ones_like(t) for t in self._outputs]
        if self._asked.scaling is not None:
            seeds = [s * self._asked.scaling.to(s.dtype) for s in seeds]
        for use in plan.cut.uses:
            if use.node in plan.cut.lowest:
                asked.append(use)
            else:
                handles.append(nodes[use.node].register_prehook(partial(self._hook, use)))
        try:
            edges = [GradientEdge(nodes[use.node], k) for use in asked for k in use.owned]
            found = iter(torch.autograd.grad(self._outputs, edges, seeds, retain_graph=retain, allow_unused=True))
        finally:
            for handle in handles:
                handle.remove()
        for use in asked:
            self._take(use, {k: next(found) for k in use.owned})
        for i, part in self._by_hand:
            self._keep(i, part)

    def _hook(self, use, grads: tuple) -> None:
        self._take(use, dict(enumerate(grads)))

    def _take(self, use, grads: dict[int, Tensor | None]) -> None:
        gs = {}
        for k, g in grads.items():
            if g is None:
                continue
            if k not in use.owned:
                raise Refused(
                    "fastrw.engine: gradients must reach the operations that they reached when owners were measured, got "
                    f"one more at {self._graph.nodes[use.node].name()}"
                )
            g = g.detach()
            gs[k] = g.to_dense() if g.layout != torch.strided else g
        if gs:
            with reading(self._asked.checkpointed):
                part = registry.part(self._graph.nodes[use.node], use.below, gs, use.owned, self._asked.products)
                if isinstance(part, Generic):  # within a backward, a node sends only what that backward asks for
                    self._by_hand.append((use.node, part))
                else:
                    self._keep(use.node, part)
        else:
            self._done(use.node)

    def _keep(self, i: int, part: Part) -> None:
        self._account.append((i, part))
        if isinstance(part, Generic) and i not in self._plan.cut.lowest:
            self._generic = True
        if self.weights is not None:
            return self._update(i, part)
        if i in self._awaited:
            self._score(i, part)
        self._parts.append((i, part))
        self._done(i)

    def _done(self, i: int) -> None:
        self._awaited.discard(i)
        if not self._awaited and not self._later:
            self._weigh()

    # scores

    def _score(self, i: int, part: Part) -> None:
        sources = self._plan.sources[i]
        wanted = {j: source for j, source in sources.items() if self._scored(source)}
        if self._V is not None:
            self._dots_of(part, wanted)
        elif any(source.leaf not in self._alone for source in wanted.values()):
            self._later.append((i, part))
        elif len(wanted) == len(sources):
            self._add(part.alone())
        else:
            V = part.validation()
            self._add(part.score({j: V[j] for j in wanted if j in V}))

    def _dots_of(self, part: Part, wanted: dict[int, Source]) -> None:
        directions = {j: d for j, source in wanted.items() if (d := self._direction(source)) is not None}
        self._add(part.score(directions) if directions else None)

    def _direction(self, source: Source) -> Tensor | None:
        if source.leaf is None:
            return self._directions.get(source.edge)
        d = self._V.get(source.leaf)
        if d is None:
            return None
        node, k = source.edge
        dtype = self._graph.nodes[node]._input_metadata[k].dtype
        d = d if d.dtype == dtype else d.to(dtype)
        return d.t() if source.turned else d

    def _add(self, s: Tensor | None) -> None:
        if s is not None:
            self._dots.append(s.to(self._dtype))

    def _weigh(self) -> None:
        """Eq. 8-9 of what was scored on the way, and of the uses that had to wait for the V of others."""
        if self.weights is not None:
            return
        if self._later:
            self._gather()
            for i, part in self._later:
                sources = self._plan.sources[i]
                self._dots_of(part, {j: source for j, source in sources.items() if self._scored(source)})
            self._later = []
        for s in gram_scores([part for _, part in self._parts], self._asked.n, self._asked.products.backend):
            self._add(s)
        like = self._outputs[0].detach()
        total = torch.stack(self._dots).sum(0) if self._dots else like.new_zeros(self._asked.n, dtype=self._dtype)
        total = self._asked.unscaled(total)
        self.scores = torch.where(like.isfinite(), total, torch.nan)
        self.weights = self._asked.normalize(self.scores)

    def _gather(self) -> None:
        """V of all that waits: summed over every use of a parameter, through what is derived from it."""
        V: dict[int, Tensor] = {}
        derived: dict[Edge, Tensor] = {}
        waiting = {id(part) for _, part in self._later}
        for i, part in self._parts:
            if id(part) in waiting:
                self._sort(i, part.validation(), V, derived)
        self._push(derived, V, retain=True)
        self._V = {leaf: v for leaf, v in V.items() if leaf in self._asked.selected}
        self._sweep()

    def _sweep(self) -> None:
        wanted = {
            source.edge for sources in self._plan.sources.values() for source in sources.values()
            if source.leaf is None and self._scored(source)
        }  # fmt: skip
        self._directions = {}
        if wanted and self._V:
            with reading(self._asked.checkpointed):
                V = {leaf: v for leaf, v in self._V.items() if leaf in self._side}
                found = sweep(self._graph, self._plan.cut.side, V, wanted, self._asked.products.backend)
                self._directions = {edge: formed(t) for edge, t in found.items()}

    # the weighted gradient

    def _update(self, i: int, part: Part) -> None:
        if not self._asked.update:
            return
        w = self.weights.to(self._outputs[0].dtype)
        w = w if isinstance(self._asked.scale, float) and self._asked.scale == 1.0 else w * self._asked.scale
        found = part.update(w)
        if not part.masks and not bool(self.scores.isfinite().all()):
            if not all(bool(g.isfinite().all()) for g in found.values()):
                raise ForThisBatch(
                    "fastrw.engine: every operation must be able to leave out an example that is not finite, got "
                    f"{self._graph.nodes[i].name()}"
                )
        self._sort(i, found, self._gradients, self._derived)

    def _sort(self, i: int, found: Mapping[int, Tensor], leaves: dict[int, Tensor], derived: dict[Edge, Tensor]) -> None:
        sources = self._plan.sources[i]
        for j, g in found.items():
            source = sources[j]
            if source.leaf is None:
                _accumulate(derived, source.edge, g)
            else:
                _accumulate(leaves, source.leaf, g.t() if source.turned else g)

    def _push(self, derived: dict[Edge, Tensor], into: dict[int, Tensor], retain: bool) -> None:
        """Gradients of what is derived become gradients of the leaves that it is derived from."""
        if not derived:
            return
        nodes = self._graph.nodes
        leaves = list(self._side)
        edges = [GradientEdge(nodes[i], k) for i, k in derived]
        kinds = [nodes[i]._input_metadata[k].dtype for i, k in derived]
        grads = torch.autograd.grad(
            edges, [GradientEdge(nodes[leaf], 0) for leaf in leaves],
            [g.to(dtype) for g, dtype in zip(derived.values(), kinds, strict=True)], retain_graph=retain, allow_unused=True,
        )  # fmt: skip
        for leaf, g in zip(leaves, grads, strict=True):
            if g is not None:
                _accumulate(into, leaf, g)

    def _report(self, use, part: Part) -> UseReport:
        node = self._graph.nodes[use.node]
        shape = next(iter(use.owned.values())).shape
        rows = shape.numel() // shape[-1] if len(shape) and shape[-1] else shape.numel()
        leaves = dict.fromkeys(leaf for source in self._plan.sources[use.node].values() for leaf in self._leaves_of(source))
        nodes = self._graph.nodes
        names = [self._names.get(id(p)) or str(list(p.shape)) for p in (nodes[leaf].variable for leaf in leaves)]
        return UseReport(node.name(), " ".join(names), rows, part.form, part.backend, part.why())

    def _leaves_of(self, source: Source) -> list[int]:
        if source.leaf is not None:
            return [source.leaf]
        return [leaf for leaf, edges in self._side.items() if source.edge in edges]


def _accumulate(into: dict, key, g: Tensor) -> None:
    into[key] = into[key] + g if key in into else g
