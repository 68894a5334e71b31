"""Scores, weights and weighted gradient from one backward of activations, in which no gradient of a parameter is
formed. What happens to a use of parameters, and when:

1.  Its gradient G arrives: by a hook on its node, or, at the lowest uses, as a result of the backward. Its node type
    makes a part of it (`nodes.registry.part`). From now on, the part alone holds G and what the node had saved.
    A part without a formula calls its node, which is impossible during a backward: it waits for the end of it.
2.  It is scored (`_score`):
    - at once, where V is known before the backward (the validation loss has a separate graph; FSR's directions);
    - at once, where its own validation rows make all of V: no other use has the same parameter;
    - after the last validation row has arrived, where V is a sum over several uses, or where the parameter is derived
      from others (`weight_norm`, a mask): then V is summed, pushed down to the leaves, and its tangents are swept up;
    - with others of its kind, before the weights are computed (`registry.Groups`), where they are small enough for one
      call for all of them.
    Without an update to follow, the part is freed here.
3.  All are scored: the weights (Eq. 8-9).
4.  It is updated (`_update`): sum_i w_i G_i is added to its leaf, or to the derived parameter and pushed down at the
    end; and its part is freed, in the reverse order of arrival. A use that arrives after the weights starts here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.engine.later import AllFinite, Later, every
from fastrw.engine.plan import Plan, Site, Source, Together, join
from fastrw.engine.report import UseReport
from fastrw.engine.request import Mark, Request
from fastrw.engine.sweep import route, sweep
from fastrw.errors import ForThisBatch, Refused
from fastrw.graph import hooks
from fastrw.graph.recomputed import reads
from fastrw.graph.sending import copied
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import registry
from fastrw.nodes.base import Part
from fastrw.nodes.numbers import noted


@dataclass
class PassResult:
    """gradients: node of a leaf -> sum_i w_i grad f_i, times `Request.scale`; empty without an update."""

    scores: Tensor  # [n]
    weights: Tensor  # [n]
    gradients: dict[int, Tensor]
    account: tuple[tuple, ...]  # (site, form, backend, why) of each use
    called_nodes: bool  # was a node called directly that the backward had passed?
    sound: Tensor | None = None  # see `Result.sound`


class ZeroGradientsChanged(Refused):
    """Gradients that were zero everywhere no longer are: their owners have to be measured."""


class Pass:
    """One backward of a graph, cut as `plan` says. V: leaf's node -> validation gradient; None where the validation
    rows of this graph make it. update: is the weighted gradient assembled from this backward?"""

    def __init__(self, graph: Graph, plan: Plan, outputs: Sequence[Tensor], V: Mapping[int, Tensor] | None,
                 request: Request, update: bool):  # fmt: skip
        self._graph, self._plan, self._outputs, self._request, self._updates = graph, plan, outputs, request, update
        self._dtype = torch.promote_types(outputs[0].dtype, torch.float32)
        self._backend = request.options.products.backend
        self._V = None if V is None else dict(V)
        self._asks = V is None and not (plan.asked or plan.checkpointed)  # which uses can have one part?
        self._directions: dict[Edge, Tensor] = {}
        self._parts: list[tuple[Site, Part]] = []  # to be updated
        self._late: list[tuple[Site, Part]] = []  # to be updated together, at the end
        self._waiting: list[tuple[Site, Part]] = []  # to be scored when all of V is known
        self._callers: list[tuple[Site, Part]] = []  # parts that call their nodes, once the backward has ended
        self._dots: list[Tensor] = []
        self._gradients: dict[int, Tensor] = {}
        self._derived: dict[Edge, Tensor] = {}
        self._account: list[tuple] = []
        self._sites = plan.sites  # without those that have one part
        self._unscored = sum(bool(site.scored) for site in plan.sites)
        self._alike: list[tuple] = []  # (site, what it has in common with others, why it has its form)
        self._zeros: list[tuple[str, Tensor]] = []  # is any element of these gradients not 0, as all have to be?
        self._doubtful: list[tuple[str, Tensor]] = []  # may hold what an example that is not finite adds
        self._asked: list[Tensor] = []  # what formulas asked of numbers, where these are not read
        self._finite: AllFinite | None = None  # the scores; asked for where something is doubtful
        self._reads = reads(plan.checkpointed)
        self._groups = registry.Groups((), 0, self._backend)
        self.begun = False  # is a part of the graph freed, unless it is retained?
        self.scores: Tensor | None = None
        self.weights: Tensor | None = None

    def run(self, retain: bool, mark: Mark = lambda phase: None) -> PassResult:
        """retain: is the graph needed afterwards?"""
        with torch.no_grad(), torch.autocast(self._outputs[0].device.type, enabled=False), self._asking():
            if self._V is not None:
                self._sweep()
            self._backward(retain or self._plan.calls_nodes)
            mark("backward")
            self._weigh()
            while self._parts:
                self._update(*self._parts.pop())
            self._parts = self._late
            self._join()
            while self._parts:
                self._update(*self._parts.pop())
            self._push(self._derived, self._gradients, retain)
            if self._asks:
                join(self._plan, self._alike, self._request.options.products)
                self._plan.asked = True
            sound = self._sound() if self._request.options.deferred else self._judge()
            mark("update")
        called = any(not site.lowest for site, _ in self._callers)
        return PassResult(self.scores, self.weights, self._gradients, tuple(self._account), called, sound)

    # the backward

    def _backward(self, retain: bool) -> None:
        nodes, scaling = self._graph.nodes, self._request.options.scaling
        joined = self._read_together()
        seeds = [torch.ones_like(t) for t in self._outputs]
        if scaling is not None:
            seeds = [s * scaling.to(s.dtype) for s in seeds]
        lowest = [site for site in self._sites if site.lowest]
        take = self._asking()(self._take) if self._request.options.deferred else self._take
        taken = [(nodes[site.use.node], partial(take, site)) for site in self._sites if not site.lowest]
        taken += [(nodes[i], copied) for i in self._plan.cut.overwriting]
        edges = [(site.use.node, k) for site in lowest for k in site.use.owned]
        targets = [GradientEdge(nodes[i], k) for i, k in (*edges, *self._plan.cut.zeros)]
        first = len(targets)
        targets += [GradientEdge(nodes[use.node], 0) for one, _ in joined for use in one.joint.uses]
        self.begun = True
        with hooks.before(taken):
            found = (
                torch.autograd.grad(self._outputs, targets, seeds, retain_graph=retain, allow_unused=True)
                if targets
                else ()
            )
        at = first
        for one, operands in joined:
            self._take_together(one, operands, found[at : at + len(one.joint.uses)])
            at += len(one.joint.uses)
        for (i, _), g in zip(self._plan.cut.zeros, found[len(edges) : first], strict=True):
            if g is not None:
                self._zeros.append((nodes[i].name(), g.any()))
        grads = dict(zip(edges, found, strict=False))
        for site in lowest:
            self._take(site, [grads.get((site.use.node, k)) for k in range(max(site.use.owned, default=-1) + 1)])
        with self._reads:
            for site, part in self._callers:
                self._keep(site, part)
        self._reads.forget()

    def _read_together(self) -> list[tuple[Together, Sequence]]:
        """The uses that have one part in this pass, and their operands: a backward frees these."""
        found: list[tuple[Together, Sequence]] = []
        options, every = self._request.options, self._plan.together
        if not every or self._V is not None or self._plan.checkpointed or every[0].products != options.products:
            return found
        for one in every:
            if one.joint.recorded or not options.deferred:
                operands = one.joint.read(self._graph.nodes)
                if operands is not None:
                    found.append((one, operands))
        self._sites = self._plan.single
        if len(found) < len(every):
            taken = {use for one, _ in found for use in one.joint.uses}
            self._sites = tuple([site for site in self._plan.sites if site.use not in taken])
        self._unscored -= sum(len(one.joint.uses) - 1 for one, _ in found)
        return found

    def _take_together(self, one: Together, operands: Sequence, grads: Sequence[Tensor | None]) -> None:
        part = one.joint.part(operands, grads, self._request.options.products)
        if part is not None:
            return self._keep(one.site, part)
        self._unscored += len(one.joint.uses) - 1
        parts = one.joint.parts(operands, grads, self._request.options.products)
        for (site, _), mine in zip(one.site.joined, parts, strict=True):
            if mine is None:
                self._scored(site)
            else:
                self._keep(site, mine)

    def _take(self, site: Site, grads: Sequence[Tensor | None]) -> None:
        """The gradients of a use's outputs have arrived. (Returns None: a hook that changes nothing.)"""
        use, gs = site.use, {}
        for k, g in enumerate(grads):
            if g is not None and k in use.owned:
                g = g.detach() if g.requires_grad else g
                gs[k] = g if g.layout is torch.strided else g.to_dense()
            elif g is not None:
                self._zeros.append((site.name, g.any()))
        if not gs:
            return self._scored(site)
        with self._reads:
            part = registry.part(self._graph.nodes[use.node], use, gs, self._request.options.products)
        if part.calls_node:  # during a backward, a node sends only what that backward needs
            self._callers.append((site, part))
        else:
            self._keep(site, part)

    def _keep(self, site: Site, part: Part) -> None:
        if self.weights is not None:
            if self._updates and any(one.joins() is not None for one in part.members):
                self._late.append((site, part))
            else:
                self._update(site, part)
            return None
        waits = bool(site.scored) and self._score(site, part)
        if self._updates or waits:
            self._parts.append((site, part))
        else:  # it is not needed any more: its operands are freed
            self._note(site, part)
        self._scored(site)

    def _scored(self, site: Site) -> None:
        if site.scored:
            self._unscored -= 1
            if not self._unscored and not self._waiting:
                self._weigh()

    # scores

    def _score(self, site: Site, part: Part) -> bool:
        """Returns whether the part is needed until the weights are known."""
        if self._V is not None:
            self._along(site, part)
        elif site.shared:
            self._waiting.append((site, part))
            return True
        elif len(site.scored) == len(site.sources):
            self._add(part.alone(self._updates))
            if self._asks:
                self._ask_alike(site, part)
        else:
            V = part.validation()
            self._add(part.score({j: V[j] for j in site.scored if j in V}))
        return part.waiting

    def _ask_alike(self, site: Site, part: Part) -> None:
        common = registry.alike(self._graph.nodes[site.use.node], site.use, part)
        if common is not None:
            self._alike.append((site, common, part.why()))

    def _along(self, site: Site, part: Part) -> None:
        directions = {j: d for j, source in site.scored.items() if (d := self._direction(source)) is not None}
        self._add(part.along(directions, self._updates) if directions else None)

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
        """Eq. 8-9: of the scores so far, and of the uses that had to wait for the V of others."""
        if self.weights is not None:
            return
        if self._waiting:
            self._gather()
            for site, part in self._waiting:
                self._along(site, part)
            self._waiting = []
        losses = self._outputs[0].detach()
        self._join()
        for s in self._groups.scores():
            self._add(s)
        if len(self._dots) == 1:
            total = self._dots[0]
        else:
            total = torch.stack(self._dots).sum(0) if self._dots else torch.zeros_like(losses, dtype=self._dtype)
        self.scores = self._request.options.unscaled(total) + (losses - losses)  # nan where a loss is not finite
        self.weights = self._request.options.normalize(self.scores)
        w, scale = self.weights.to(losses.dtype), self._request.options.scale
        self._w = w if isinstance(scale, float) and scale == 1 else w * scale
        if self._updates and (self._plan.under or not all(part.masks for _, part in self._parts)):
            self._ask()  # under way while gradients are computed

    def _join(self) -> None:
        self._groups = registry.Groups((part for _, part in self._parts), len(self._outputs[0]), self._backend)

    def _gather(self) -> None:
        """V for all parts that wait: summed over every use of a parameter, also through parameters derived from it."""
        V: dict[int, Tensor] = {}
        derived: dict[Edge, Tensor] = {}
        for site, part in self._waiting:
            self._sort(site, part.validation(), V, derived)
        self._push(derived, V, retain=True)
        self._V = V
        self._sweep()

    def _sweep(self) -> None:
        plan = self._plan
        V = {leaf: v for leaf, v in self._V.items() if leaf in plan.under and leaf in plan.selected}
        if plan.wanted and V:
            steps = plan.routes.get(key := frozenset(V))
            if steps is None:
                steps = plan.routes[key] = route(self._graph, plan.cut.side, key, plan.wanted)
            self._directions = sweep(self._graph, steps, V, plan.wanted, self._backend, plan.checkpointed)

    def _note(self, site: Site, part: Part) -> None:
        self._account.append((site, part.form, part.backend, part.why()))

    # the weighted gradient

    def _update(self, site: Site, part: Part) -> None:
        self._note(site, part)
        if not self._updates:
            return
        found = self._groups.update(part, self._w)
        if not part.masks:
            self._doubt([(site.name, g) for g in found.values()])
        self._sort(site, found, self._gradients, self._derived)

    def _sort(
        self, site: Site, found: Mapping[int, Tensor], leaves: dict[int, Tensor], derived: dict[Edge, Tensor]
    ) -> None:
        for j, g in found.items():
            source = site.sources[j]
            into, key = (derived, source.edge) if source.leaf is None else (leaves, source.leaf)
            g = g.t() if source.transposed else g
            into[key] = into[key] + g if key in into else g

    def _push(self, derived: dict[Edge, Tensor], into: dict[int, Tensor], retain: bool) -> None:
        """Turns gradients of derived parameters into gradients of the leaves that they are derived from."""
        if not derived:
            return
        nodes, leaves = self._graph.nodes, list(self._plan.under)
        edges = [GradientEdge(nodes[i], k) for i, k in derived]
        kinds = [nodes[i]._input_metadata[k].dtype for i, k in derived]
        cotangents = [g.to(dtype) for g, dtype in zip(derived.values(), kinds, strict=True)]
        targets = [GradientEdge(nodes[leaf], 0) for leaf in leaves]
        grads = torch.autograd.grad(edges, targets, cotangents, retain_graph=retain, allow_unused=True)
        found = {leaf: g for leaf, g in zip(leaves, grads, strict=True) if g is not None}
        if self.scores is not None:
            self._doubt([("what parameters are derived by", g) for g in found.values()])
        for leaf, g in found.items():
            _accumulate(into, leaf, g)

    # what is decided by numbers: read when all has been launched

    def _asking(self) -> AbstractContextManager:
        """(For each thread: hooks run in one of the device.)"""
        return noted(self._asked) if self._request.options.deferred else nullcontext()

    def _ask(self) -> None:
        if self._finite is None and not self._request.options.deferred:
            self._finite = AllFinite(self.scores)

    def _doubt(self, found: list[tuple[str, Tensor]]) -> None:
        self._ask()
        self._doubtful += found

    def _sound(self) -> Tensor | None:
        """In the place of `_judge`: does nothing stand in the way of this result, nor has to be looked at closer?"""
        finite = [self.scores.isfinite().all()] if self._doubtful else []
        return every([*(~changed for _, changed in self._zeros), *self._asked, *finite])

    def _judge(self) -> None:
        if self._zeros and Later(torch.stack([changed for _, changed in self._zeros]).any()).value():
            name = next(name for name, changed in self._zeros if bool(changed))
            raise ZeroGradientsChanged(f"fastrw.engine: gradients must stay 0 where they were 0, got others at {name}")
        if not self._doubtful or self._finite:
            return
        for name, g in self._doubtful:
            if not bool((g.to_dense() if g.is_sparse else g).isfinite().all()):
                raise ForThisBatch(
                    f"fastrw.engine: an example that is not finite must be separable from the others, got {name} "
                    "(leave it out of the batch)"
                )


def _accumulate(into: dict, key, g: Tensor) -> None:
    into[key] = into[key] + g if key in into else g


def account(entries: tuple[tuple, ...]) -> tuple[UseReport, ...]:
    """The form and backend of each use of a pass, from `PassResult.account`."""
    reports = []
    for site, form, backend, why in _apart(entries):
        shape = next(iter(site.use.owned.values())).shape
        rows = shape.numel() // shape[-1] if len(shape) and shape[-1] else shape.numel()
        why = why if isinstance(why, str) else why[0].format(*why[1:])
        why = "; ".join(filter(None, (site.why, why)))
        reports.append(UseReport(site.name, site.parameters, rows, form, backend, why))
    return tuple(reports)


def _apart(entries: tuple[tuple, ...]) -> Iterator[tuple]:
    for site, form, backend, why in entries:
        if site.joined:
            yield from ((one, form, backend, reason) for one, reason in site.joined)
        else:
            yield site, form, backend, why
