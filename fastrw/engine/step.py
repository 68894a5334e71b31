"""Scores, weights and weighted gradient from one backward of activations, in which no gradient of a parameter is
formed. What happens to a use of parameters, and when:

1.  Its gradient G arrives: by a hook on its node, or, at the lowest uses, as a result of the backward. Its node type
    makes a part of it (`nodes.registry.part`): G, and what the node had saved, is now held by the part alone.
    A part that has no formula calls its node, which is possible outside a backward only: it waits for the end of it.
2.  It is scored (`_score`):
    - at once, where V is known before the backward (a validation graph of its own, another cut, FSR's directions);
    - at once, where its own validation rows make all of V: no other use has the same parameter;
    - when the last validation row has come, where V is a sum over several uses, or where the parameter is derived from
      others (`weight_norm`, a mask): then V is summed, pushed down to the leaves, and its tangents are swept up;
    - with all others, at the weights (`gram_scores`), where its layer is small enough for one call for all of them.
    Without an update to follow, the part is freed here.
3.  All are scored: the weights (Eq. 8-9).
4.  It is updated (`_update`): sum_i w_i G_i, added to its leaf, or to what is derived and pushed down at the end; and
    its part is freed, in the reverse order of arrival. A use that arrives after the weights are known skips to here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.engine.plan import Plan, Site, Source
from fastrw.engine.report import UseReport
from fastrw.engine.sweep import sweep
from fastrw.errors import ForThisBatch, Refused
from fastrw.graph.saved import once
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.base import Part, Products

Mark = Callable[[str], None]


@dataclass
class Found:
    """What a pass gives. gradients: node of a leaf -> sum_i w_i grad f_i, times `Asked.scale`."""

    scores: Tensor
    weights: Tensor
    gradients: dict[int, Tensor]
    account: tuple[tuple, ...]  # (site, form, backend, why) of each use
    by_hand: bool  # was a node that the backward passed called by hand?


@dataclass(frozen=True)
class Asked:
    """What is wanted of a pass."""

    n: int
    normalize: Callable[[Tensor], Tensor]
    selected: frozenset[int]  # nodes of the leaves that scores go by
    products: Products = field(default_factory=Products)
    # what losses are multiplied with in a backward, so that float16 gradients stay above 0
    scaling: Tensor | None = None
    scale: float | Tensor = 1.0  # what the weighted gradient is multiplied with
    update: bool = True  # is the weighted gradient wanted?

    def unscaled(self, scores: Tensor) -> Tensor:
        """Both gradients of a score were scaled."""
        return scores if self.scaling is None else scores / self.scaling / self.scaling


class Woke(Refused):
    """Gradients that were 0 everywhere are not: whose they are has to be measured."""


class Pass:
    """One graph, cut as `plan` says. V: leaf's node -> validation gradient; None where the graph's own validation rows
    make it."""

    def __init__(
        self, graph: Graph, plan: Plan, outputs: Sequence[Tensor], V: Mapping[int, Tensor] | None, asked: Asked
    ):
        self._graph, self._plan, self._outputs, self._asked = graph, plan, outputs, asked
        self._dtype = torch.promote_types(outputs[0].dtype, torch.float32)
        self._V = None if V is None else dict(V)
        self._directions: dict[Edge, Tensor] = {}
        self._parts: list[tuple[Site, Part]] = []  # to be updated
        self._later: list[tuple[Site, Part]] = []  # to be scored when all of V is there
        self._by_hand: list[tuple[Site, Part]] = []  # whose nodes are called, once the backward has ended
        self._dots: list[Tensor] = []
        self._gradients: dict[int, Tensor] = {}
        self._derived: dict[Edge, Tensor] = {}
        self._account: list[tuple] = []
        self._awaited = sum(bool(site.scored) for site in plan.sites)
        self._once = once(plan.checkpointed)
        self.scores: Tensor | None = None
        self.weights: Tensor | None = None

    def run(self, retain: bool, mark: Mark = lambda phase: None) -> Found:
        """retain: is the graph needed afterwards?"""
        with torch.no_grad(), torch.autocast(self._outputs[0].device.type, enabled=False):
            if self._V is not None:
                self._sweep()
            self._backward(retain or self._plan.keeps)
            mark("backward")
            self._weigh()
            while self._parts:
                self._update(*self._parts.pop())
            self._push(self._derived, self._gradients, retain)
            mark("update")
        by_hand = any(not site.lowest for site, _ in self._by_hand)
        return Found(self.scores, self.weights, self._gradients, tuple(self._account), by_hand)

    # the backward

    def _backward(self, retain: bool) -> None:
        nodes = self._graph.nodes
        seeds = [torch.ones_like(t) for t in self._outputs]
        if self._asked.scaling is not None:
            seeds = [s * self._asked.scaling.to(s.dtype) for s in seeds]
        lowest = [site for site in self._plan.sites if site.lowest]
        handles = [nodes[site.use.node].register_prehook(partial(self._take, site))
                   for site in self._plan.sites if not site.lowest]  # fmt: skip
        try:
            edges = [(site.use.node, k) for site in lowest for k in site.use.owned]
            asked = [GradientEdge(nodes[i], k) for i, k in (*edges, *self._plan.cut.asleep)]
            found = iter(
                torch.autograd.grad(self._outputs, asked, seeds, retain_graph=retain, allow_unused=True)
                if asked
                else ()
            )
        finally:
            for handle in handles:
                handle.remove()
        grads = dict(zip(edges, found, strict=False))
        for g in found:
            if g is not None and bool(g.any()):
                raise Woke("fastrw.engine: gradients must stay 0 where they were 0, got others")
        for site in lowest:
            self._take(site, [grads.get((site.use.node, k)) for k in range(max(site.use.owned, default=-1) + 1)])
        for site, part in self._by_hand:
            self._keep(site, part)

    def _take(self, site: Site, grads: Sequence[Tensor | None]) -> None:
        """The gradients of a use's outputs have come. (Returns None: a hook that changes nothing.)"""
        use, gs = site.use, {}
        for k, g in enumerate(grads):
            if g is not None:
                if k not in use.owned:
                    if bool(g.any()):
                        raise Woke(f"fastrw.engine: gradients must stay 0 where they were 0, got others at {site.name}")
                    continue
                g = g.detach()
                gs[k] = g if g.layout is torch.strided else g.to_dense()
        if not gs:
            return self._done(site)
        node = self._graph.nodes[use.node]
        if self._plan.checkpointed:
            with self._once:
                part = registry.part(node, use, gs, self._asked.products)
        else:
            part = registry.part(node, use, gs, self._asked.products)
        if part.by_hand:  # within a backward, a node sends only what that backward asks for
            self._by_hand.append((site, part))
        else:
            self._keep(site, part)

    def _keep(self, site: Site, part: Part) -> None:
        if self.weights is not None:
            return self._update(site, part)
        waits = bool(site.scored) and self._score(site, part)
        if self._asked.update or waits:
            self._parts.append((site, part))
        else:  # nothing more is asked of it: its operands are let go
            self._tell(site, part)
        self._done(site)

    def _done(self, site: Site) -> None:
        if site.scored:
            self._awaited -= 1
            if not self._awaited and not self._later:
                self._weigh()

    # scores

    def _score(self, site: Site, part: Part) -> bool:
        """Returns whether the part is needed until the weights are known."""
        if self._V is not None:
            self._along(site, part)
        elif not site.alone:
            self._later.append((site, part))
            return True
        elif len(site.scored) == len(site.sources):
            self._add(part.alone())
        else:
            V = part.validation()
            self._add(part.score({j: V[j] for j in site.scored if j in V}))
        return part.waiting is not None

    def _along(self, site: Site, part: Part) -> None:
        directions = {j: d for j, source in site.scored.items() if (d := self._direction(source)) is not None}
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
        return d.t() if source.transposed else d

    def _add(self, s: Tensor | None) -> None:
        if s is not None:
            self._dots.append(s if s.dtype == self._dtype else s.to(self._dtype))

    def _weigh(self) -> None:
        """Eq. 8-9 of what was scored on the way, and of the uses that had to wait for the V of others."""
        if self.weights is not None:
            return
        if self._later:
            self._gather()
            for site, part in self._later:
                self._along(site, part)
            self._later = []
        for s in registry.gram_scores([part for _, part in self._parts], self._asked.n, self._asked.products.backend):
            self._add(s)
        like = self._outputs[0].detach()
        total = torch.stack(self._dots).sum(0) if self._dots else like.new_zeros(self._asked.n, dtype=self._dtype)
        self.scores = torch.where(like.isfinite(), self._asked.unscaled(total), torch.nan)
        self.weights = self._asked.normalize(self.scores)
        w = self.weights.to(like.dtype)
        self._w = w if self._asked.scale == 1.0 else w * self._asked.scale

    def _gather(self) -> None:
        """V of all that waits: summed over every use of a parameter, through what is derived from it."""
        V: dict[int, Tensor] = {}
        derived: dict[Edge, Tensor] = {}
        for site, part in self._later:
            self._sort(site, part.validation(), V, derived)
        self._push(derived, V, retain=True)
        self._V = V
        self._sweep()

    def _sweep(self) -> None:
        V = {leaf: v for leaf, v in self._V.items() if leaf in self._plan.under and leaf in self._asked.selected}
        if self._plan.wanted and V:
            backend = self._asked.products.backend
            self._directions = sweep(
                self._graph, self._plan.cut.side, V, self._plan.wanted, backend, self._plan.checkpointed
            )

    def _tell(self, site: Site, part: Part) -> None:
        self._account.append((site, part.form, part.backend, part.why()))

    # the weighted gradient

    def _update(self, site: Site, part: Part) -> None:
        self._tell(site, part)
        if not self._asked.update:
            return
        found = part.update(self._w)
        spoilt = not part.masks and not bool(self.scores.isfinite().all())
        if spoilt and not all(bool(g.isfinite().all()) for g in found.values()):
            raise ForThisBatch(
                "fastrw.engine: every operation must be able to leave out an example that is not finite, got "
                f"{site.name}"
            )
        self._sort(site, found, self._gradients, self._derived)

    def _sort(
        self, site: Site, found: Mapping[int, Tensor], leaves: dict[int, Tensor], derived: dict[Edge, Tensor]
    ) -> None:
        for j, g in found.items():
            source = site.sources[j]
            if source.leaf is None:
                _accumulate(derived, source.edge, g)
            else:
                _accumulate(leaves, source.leaf, g.t() if source.transposed else g)

    def _push(self, derived: dict[Edge, Tensor], into: dict[int, Tensor], retain: bool) -> None:
        """Gradients of what is derived become gradients of the leaves that it is derived from."""
        if not derived:
            return
        nodes, leaves = self._graph.nodes, list(self._plan.under)
        edges = [GradientEdge(nodes[i], k) for i, k in derived]
        kinds = [nodes[i]._input_metadata[k].dtype for i, k in derived]
        cotangents = [g.to(dtype) for g, dtype in zip(derived.values(), kinds, strict=True)]
        targets = [GradientEdge(nodes[leaf], 0) for leaf in leaves]
        grads = torch.autograd.grad(edges, targets, cotangents, retain_graph=retain, allow_unused=True)
        capturing = self.scores is not None and self.scores.is_cuda and torch.cuda.is_current_stream_capturing()
        whole = capturing or bool(self.scores is None or self.scores.isfinite().all())
        for leaf, g in zip(leaves, grads, strict=True):
            if g is not None:
                if not whole and not bool((g.to_dense() if g.is_sparse else g).isfinite().all()):
                    raise ForThisBatch("fastrw.engine: an example that is not finite must not meet the others, got one")
                _accumulate(into, leaf, g)


def _accumulate(into: dict, key, g: Tensor) -> None:
    into[key] = into[key] + g if key in into else g


def account(entries: tuple[tuple, ...]) -> tuple[UseReport, ...]:
    """How each use of a pass was served, of `Found.account`."""
    reports = []
    for site, form, backend, why in entries:
        shape = next(iter(site.use.owned.values())).shape
        rows = shape.numel() // shape[-1] if len(shape) and shape[-1] else shape.numel()
        why = why if isinstance(why, str) else why[0].format(*why[1:])
        reports.append(UseReport(site.name, site.parameters, rows, form, backend, why))
    return tuple(reports)
