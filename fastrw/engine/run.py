"""A graph in, scores and weighted gradient out. The table of contents of a call:

    walk    the graph of the losses, joined with that of the validation loss where they meet      graph/walk
    look    up what was learned of graphs like it (`cache`), or learn:
            whose each gradient is (`owners`), the cut (`cut`), what follows from it (`plan`)
    pass    one backward: scores, weights, weighted gradient (`step`; tangents by `sweep`)
    check   one score against its example's own gradient, at the 1st, 2nd, 4th, ... call (`check`)

Where no cut serves, scores are taken at the losses themselves (`whole`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.engine import cut as cutting
from fastrw.engine import guards, whole
from fastrw.engine.cache import Cache, Family
from fastrw.engine.check import check
from fastrw.engine.ordinary import free, gradient, weighted_gradient
from fastrw.engine.plan import Plan, plan_of
from fastrw.engine.report import UseReport
from fastrw.engine.step import Asked, Mark, Pass, Woke, account
from fastrw.errors import CoupledExamples, Refused, UntracedUse
from fastrw.graph import nested
from fastrw.graph.saved import is_checkpointed, once
from fastrw.graph.sending import changed_on_the_way
from fastrw.graph.walk import Graph
from fastrw.nodes.base import Products
from fastrw.nodes.generic import NoDerivative

METHODS = ("layerwise", "tangent", "double_backward", "per_example")


@dataclass
class Question:
    """What is to be computed from the graph of `losses` [n].

    V: leaf's id -> direction; None: the gradient of `val_loss`. selected: ids of the leaves that scores go by; None:
    the parameters among them, or all where there is none.
    scaling, scale: see Asked. retain: leave the graph as it is; free: let go what it saved, for the caller keeps it.
    update: "assembled" (the weighted gradient from the same backward as the scores), "backward" (from one of its own,
    which keeps less), "auto" (assembled, unless the graph is checkpointed), None (no weighted gradient).
    reaches: refuse a validation loss that reaches nothing selected. model: whose graph it is, where that is known.
    """

    losses: Tensor
    val_loss: Tensor | None
    selected: Collection[int] | None
    normalize: Callable[[Tensor], Tensor]
    products: Products = field(default_factory=Products)
    scaling: Tensor | None = None
    scale: float | Tensor = 1.0
    update: str | None = "assembled"
    retain: bool = False
    free: bool = False
    reaches: bool = False
    recheck: bool = True
    V: dict[int, Tensor] | None = None
    names: Mapping[int, str] = field(default_factory=dict)  # id of a leaf -> its name in reports
    model: Any = None
    say: str = "fastrw.backward: "

    def weighted_gradient(self, w: Tensor, retain: bool) -> list[tuple[Tensor, Tensor]]:
        return weighted_gradient(self.losses, w, self.scaling, self.scale, retain)


@dataclass
class Answer:
    scores: Tensor  # [n]
    weights: Tensor  # [n]
    gradients: list[tuple[Tensor, Tensor]]  # (leaf, sum_i w_i grad f_i), where an update was asked for
    method: str
    assembled: bool = False  # does the weighted gradient come from the backward of the scores?
    refused: dict[str, str] = field(default_factory=dict)
    account: Callable[[], tuple[UseReport, ...]] = tuple  # how each use was served
    checked: bool = False  # was it compared with an example's own gradient at this call?
    trusted: bool = True  # was it compared, now or before, on a batch that could tell?


def run(question: Question, method: str = "auto", mark: Mark = lambda phase: None) -> Answer:
    """Scores, and the weighted gradient, by the named method; by "auto" at the lowest cut, else by one backward an
    example.

    Raises Refused where the answer would not be exact.
    """
    guards.one_process(question.say)
    if method in ("layerwise", "tangent"):
        return _at_a_cut(question, method, mark)
    if method in whole.METHODS:
        return _at_the_losses(question, method, {})
    try:
        return _at_a_cut(question, method, mark)
    except (NoDerivative, UntracedUse) as refusal:
        if isinstance(refusal, UntracedUse) and question.update is not None:
            raise
        return _at_the_losses(question, "per_example", {"layerwise": str(refusal), "tangent": str(refusal)})


def _at_a_cut(question: Question, method: str, mark: Mark) -> Answer:
    losses, val, at_losses = question.losses, question.val_loss, method == "tangent"
    graph, size, joint, shared = _walked(question)
    leaves, outputs = graph.leaves, [losses, val] if joint else [losses]
    selected = _selected(question, leaves)
    guards.leaves(leaves.values(), question.say)
    cache = Cache(graph, selected, len(losses), (joint, at_losses), question.model)
    plan, family = cache.plan(), cache.family()
    learned, first = plan is None, not family.calls
    if learned:
        guards.served(graph, question.say)
        if question.reaches:
            guards.reached(val, {id(leaves[i]) for i in selected}, question.say)
        plan = _learn(graph, outputs, selected, question.names, at_losses, family)
    mixed_by = plan.scores_mixed_by if question.update is None else plan.mixed_by
    if method == "layerwise" and mixed_by is not None:
        raise CoupledExamples(f"fastrw.layerwise: no operation may mix the batch dimension, got {mixed_by}")
    # what checkpointing saves must not be kept until the weights are known: scores, then an ordinary backward
    lean = question.update == "auto" and plan.checkpointed
    later = lean or question.update == "backward"
    asked = Asked(len(losses), question.normalize, selected, question.products, question.scaling, question.scale,
                  question.update is not None and not later)  # fmt: skip
    calls = family.calls + 1
    due = first or (question.recheck and calls & (calls - 1) == 0)
    needed = question.retain or learned or later  # is the graph needed after the pass?
    V = None
    if not joint or at_losses or lean:
        V = _validation(question, leaves, selected, retain=needed or shared)
    found = None
    while found is None:
        work = Pass(graph, plan, outputs if V is None else outputs[:1], V, asked)
        try:
            found = work.run(needed or due, mark)
        except Woke:
            if learned or not plan.keeps:
                raise
            plan, learned = _learn(graph, outputs, selected, question.names, at_losses, family), True
    trusted = True
    if due:
        try:
            trusted = check(graph, losses, val, V, found, asked)
        except Refused:
            cache.drop()
            raise
    family.calls += trusted  # after a batch that could not tell, the next is compared
    if learned:
        plan.keeps = found.by_hand or bool(plan.cut.asleep)
        if plan.cut.lasting:
            cache.put(plan)
    # leaves that the validation loss alone reaches are not filled: nodes are numbered from the losses
    gradients = [(leaves[i], g) for i, g in found.gradients.items() if i < size]
    if later:
        gradients = question.weighted_gradient(found.weights, question.retain)
    if question.free and (due or plan.keeps or needed):
        free(losses, val)
    name = "tangent" if at_losses or plan.scores_mixed_by is not None else "layerwise"
    refused = {}
    if name == "tangent" and not at_losses:
        refused = {"layerwise": f"{plan.scores_mixed_by} mixes the batch dimension"}
    assembled = plan.mixed_by is None and not (at_losses or later)
    told = partial(account, found.account)
    return Answer(found.scores, found.weights, gradients, name, assembled, refused, told, due, trusted)


def _walked(question: Question) -> tuple[Graph, int, bool, bool]:
    """The graph; how many nodes that of the losses has; is it both losses' graph; do they share an operation?"""
    graph = Graph(question.losses.grad_fn)
    size = len(graph.nodes)
    if question.V is not None:
        return graph, size, False, False
    shared = graph.add(question.val_loss.grad_fn)
    joint = shared and not graph.nested  # where one loss is made of the other, what reaches it belongs to both
    return (graph if joint else graph.first(size)), size, joint, shared


def _selected(question: Question, leaves: dict[int, Tensor]) -> frozenset[int]:
    """The nodes of the leaves that scores go by."""
    if question.selected is not None:
        return frozenset([i for i, leaf in leaves.items() if id(leaf) in question.selected])
    # a leaf that a forward makes anew (T5's position bias under checkpointing) is no parameter: two forwards have two
    return frozenset([i for i, leaf in leaves.items() if isinstance(leaf, nn.Parameter)] or leaves)


def _learn(graph: Graph, outputs: list[Tensor], selected: Collection[int], names: Mapping[int, str], at_losses: bool,
           family: Family) -> Plan:  # fmt: skip
    n, inner = len(outputs[0]), cutting.inner_nodes(graph, graph.order())
    checkpointed = any(map(is_checkpointed, graph.nodes))
    with torch.no_grad(), torch.autocast(outputs[0].device.type, enabled=False), nested.refused():
        cut, gradients = cutting.find(graph, outputs, n, inner)
        if not family.has_no_hooks:
            with once(checkpointed):
                name = changed_on_the_way(graph, gradients, inner)
            if name is not None:
                raise UntracedUse(
                    f"fastrw.engine: gradients must be passed on as they are, got a hook that changes one at {name}"
                )
            family.has_no_hooks = True
    if at_losses:
        cut = cutting.at_the_losses(graph, outputs[0], inner)
    plan = plan_of(graph, cut, selected, names)
    if n > 1 and not at_losses:
        plan.mixed_by = cutting.where_examples_mix(graph, cut, set(graph.leaves))
        plan.scores_mixed_by = plan.mixed_by and cutting.where_examples_mix(graph, cut, selected)
    plan.checkpointed = checkpointed
    return plan


def _at_the_losses(question: Question, method: str, refused: dict[str, str]) -> Answer:
    losses = question.losses
    graph = Graph(losses.grad_fn)
    guards.served(graph, question.say)
    leaves = graph.leaves
    selected = _selected(question, leaves)
    if question.reaches:
        guards.reached(question.val_loss, {id(leaves[i]) for i in selected}, question.say)
    with nested.refused():
        V = _validation(question, leaves, selected, retain=True)
        directions = [(leaves[i], v) for i, v in V.items()]
        scores = whole.METHODS[method](losses, directions)
        if method == "double_backward":  # torch's own second derivatives are not all right
            whole.check(losses, directions, scores)
    if question.scaling is not None:
        scores = scores / question.scaling
    scores = torch.where(losses.detach().isfinite(), scores, torch.nan)
    w = question.normalize(scores)
    gradients = [] if question.update is None else question.weighted_gradient(w, question.retain)
    if question.free:
        free(question.val_loss)
    return Answer(scores, w, gradients, method, refused=refused)


def _validation(
    question: Question, leaves: dict[int, Tensor], selected: frozenset[int], retain: bool
) -> dict[int, Tensor]:
    """Leaf's node -> V, of the selected leaves that the validation loss reaches."""
    if question.V is not None:
        return {i: v for i, leaf in leaves.items() if (v := question.V.get(id(leaf))) is not None}
    wanted = [i for i in leaves if i in selected]
    if not wanted:
        return {}
    found = gradient(question.val_loss, [leaves[i] for i in wanted], question.scaling, retain)
    return {i: v for i, v in zip(wanted, found, strict=True) if v is not None}
