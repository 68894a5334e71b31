"""What the engine has learned of graphs: plans and families, in the store of their model (see `fastrw.learned`, where
they are also dropped).

A plan is reused for the next graph of the same structure (types of nodes, edges, shapes), leaves and options, provided
that what decides where each row goes (indices, lengths) is the same too: its content, see `nodes.routes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.engine.cut import Cut
from fastrw.engine.later import Later
from fastrw.engine.plan import Plan
from fastrw.graph.hooks import Moment
from fastrw.graph.walk import Graph
from fastrw.nodes import routes
from fastrw.nodes.shapes import Reading

STRUCTURES, CONTENTS = 128, 16  # the most plans kept: structures per model; contents per structure


@dataclass(slots=True, eq=False)
class Family:
    """Graphs of the same operations on the same parameters, whatever their shapes."""

    calls: int = 0  # since the first that passed the check against an example's own gradient
    examined: Moment | None = None  # when no hook was found to change a gradient

    def knows_all_hooks_of(self, graph: Graph) -> bool:
        return self.examined is not None and self.examined.precedes_all_hooks_of(graph)


class _Key:
    """A tuple that is hashed once."""

    __slots__ = ("_hash", "_items")

    def __init__(self, *items):
        self._items, self._hash = items, hash(items)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other) -> bool:
        return isinstance(other, _Key) and self._items == other._items


class Cache:
    """What was learned of graphs like this one. selected: nodes of the leaves that scores use; n: training examples;
    options: what else a plan depends on; model: None where only the graph is known: the store is then that of its first
    parameter."""

    def __init__(self, graph: Graph, selected: frozenset[int], n: int, options: tuple, model: Any = None):
        self._graph = graph
        self._parameters = [leaf for leaf in graph.leaves.values() if isinstance(leaf, nn.Parameter)]
        owner = model if model is not None else next(iter((*self._parameters, *graph.leaves.values())))
        reading, self._shapes = _shapes(graph, learned.table(owner, "forms", STRUCTURES))
        roots = tuple([m.dtype for root in graph.roots for m in root._input_metadata])
        rest = (tuple(map(id, self._parameters)), selected, roots, n, *options)
        self._family_key = _Key(reading, *rest)  # it stands for the form of the graph
        self._key = _Key(self._family_key, self._shapes)
        self._plans = learned.table(owner, "plans", STRUCTURES)
        self._families = learned.table(owner, "families", STRUCTURES)

    def family(self) -> Family:
        found = self._families.get(self._family_key, self._parameters)
        return found or self._families.put(self._family_key, Family(), self._parameters)

    def plan(self, deferred: bool = False, given: Plan | None = None) -> tuple[Plan | None, list[Tensor]]:
        """That of this graph, or None. deferred: where tensors decide which it is, the one that served last; and a flag
        for each of these tensors: is it as it was? given: one of a graph that the same functions made, whose nodes may
        have other types nevertheless: those of custom functions may be made anew."""
        plans = self._plans.get(self._key, self._parameters) or []
        if given is not None and not plans and given.cut.reusable and given.names == self._names():
            plans = [given]
        for plan in plans:
            if not plan.cut.content:
                return plan, []
            pairs: list[tuple[Tensor, Tensor]] = []
            if not _alike(_content(self._graph, plan.cut), plan.content, pairs):
                continue
            if deferred:
                return plan, [(a == b).all() for a, b in pairs]
            if _equal(pairs):
                if plan is not plans[0]:
                    plans.sort(key=lambda one: (-len(one.content), one is not plan))
                return plan, []
        return None, []

    def put(self, plan: Plan) -> None:
        plan.content, plan.names = _cloned(_content(self._graph, plan.cut)), self._names()
        plans = (self._plans.get(self._key, self._parameters) or [])[: CONTENTS - 1]
        # most specific first: a plan that compares less content would match more graphs; of these, latest first
        self._plans.put(self._key, sorted([plan, *plans], key=lambda plan: -len(plan.content)), self._parameters)

    def _names(self) -> tuple:
        return tuple([node.name() for node in self._graph.nodes]), *self._graph.form[1:], self._shapes

    def drop(self) -> None:
        self._plans.drop(self._key)
        self._families.drop(self._family_key)


def _shapes(graph: Graph, forms: learned.Table) -> tuple[Reading, tuple]:
    """How shapes are read of graphs of this form, one object for each form; and what is read."""
    try:
        reading = forms.get(graph.form) or forms.put(graph.form, Reading(graph))
        return reading, reading(graph)
    except RuntimeError:  # of a nested tensor
        graph.check_shapes()
        raise


def _content(graph: Graph, cut: Cut) -> tuple:
    return tuple(routes.content(graph.nodes[i], cut.sends[i]) for i in cut.content)


def _alike(some: tuple[tuple, ...], others: tuple[tuple, ...], pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Are two contents the same, if the tensors of each of the pairs are equal, which are added?"""
    for mine, its in zip(some, others, strict=True):
        if len(mine) != len(its):
            return False
        for a, b in zip(mine, its, strict=True):
            if isinstance(a, Tensor) and isinstance(b, Tensor):
                if a.shape != b.shape:
                    return False
                pairs.append((a, b))
            elif isinstance(a, Tensor) or isinstance(b, Tensor) or a != b:
                return False
    return True


def _equal(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """A GPU is waited for once, for all of them."""
    flags: dict[torch.device, list[Tensor]] = {}
    for a, b in pairs:
        if a.is_cuda and a.device == b.device:
            flags.setdefault(a.device, []).append((a == b).all())
        elif not torch.equal(a, b):
            return False
    return all(Later(torch.stack(some).all()).value() for some in flags.values())


def _cloned(content: tuple[tuple, ...]) -> tuple[tuple, ...]:
    """With copies of the tensors: those of the graph may be written to."""
    return tuple([tuple([one.clone() if isinstance(one, Tensor) else one for one in some]) for some in content])
