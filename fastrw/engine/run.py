"""A graph in, scores and weighted gradient out: what was learned of it is looked up or measured, and held against one
example's own gradient from time to time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastrw.engine import cut as cutting
from fastrw.engine import plan as planning
from fastrw.engine import whole
from fastrw.engine.check import check
from fastrw.engine.plan import Cache, Plan
from fastrw.engine.step import Asked, Mark, Pass
from fastrw.errors import CoupledExamples, Refused
from fastrw.graph import nested
from fastrw.graph.saved import is_checkpointed
from fastrw.graph.sending import changed_on_the_way
from fastrw.graph.walk import Graph
from fastrw.nodes.base import Products
from fastrw.nodes.generic import NoDerivative

METHODS = ("layerwise", "tangent", "double_backward", "per_example")

_cache = Cache()


@dataclass
class Question:
    """What is asked of the graph of `losses` [n].

    V: leaf's id -> direction; None: the gradient of `val_loss`. selected: ids of the leaves that scores go by; None: all.
    scaling: see Asked. retain: leave the graph as it is.
    """

    losses: Tensor
    val_loss: Tensor | None
    selected: Collection[int] | None
    normalize: Callable[[Tensor], Tensor]
    products: Products = field(default_factory=Products)
    scaling: Tensor | None = None
    scale: float | Tensor = 1.0
    update: bool = True
    retain: bool = False
    recheck: bool = True
    V: dict[int, Tensor] | None = None
    say: str = "fastrw.backward: "


@dataclass
class Answer:
    scores: Tensor  # [n]
    weights: Tensor  # [n]
    gradients: list[tuple[Tensor, Tensor]]  # (leaf, sum_i w_i grad f_i), where an update was asked for
    method: str
    refused: dict[str, str] = field(default_factory=dict)
    uses: tuple = ()
    learned: bool = False  # was the graph a new one?
    trusted: bool = True  # was it held against an example's own gradient, or by a batch that could tell?


def run(question: Question, method: str = "auto", mark: Mark = lambda phase: None) -> Answer:
    """Scores, and the weighted gradient, by the named method; by "auto" at the lowest cut, else by one backward an example.

    Raises Refused where the answer would not be exact.
    """
    if method in ("layerwise", "tangent"):
        return _cut(question, method, mark)
    if method in whole.METHODS:
        return _whole(question, method, {})
    try:
        return _cut(question, method, mark)
    except (NoDerivative, HookFound) as refusal:
        if isinstance(refusal, HookFound) and question.update:
            raise
        return _whole(question, "per_example", {"layerwise": str(refusal), "tangent": str(refusal)})


class HookFound(Refused):
    """A hook changes a gradient on its way."""


def _cut(question: Question, method: str, mark: Mark) -> Answer:
    losses, val = question.losses, question.val_loss
    graph = Graph([losses.grad_fn])
    joint = question.V is None and _shares(graph, val)
    if joint:
        graph = Graph([losses.grad_fn, val.grad_fn])
    outputs = [losses, val] if joint else [losses]
    leaves = graph.leaves()
    chosen = (lambda t: True) if question.selected is None else (lambda t: id(t) in question.selected)
    selected = frozenset(i for i, leaf in leaves.items() if chosen(leaf))
    for leaf in leaves.values():
        if leaf._backward_hooks:
            raise HookFound(f"{question.say}parameters must have no gradient hooks, got one on a {tuple(leaf.shape)}")
    n, at_losses = len(losses), method == "tangent"
    key, parameters = planning.key_of(graph, chosen, n, joint, at_losses)
    plan = _cache.get(key, parameters, graph)
    learned = plan is None
    asked = Asked(n, question.normalize, selected, question.products, question.scaling, question.scale, question.update)
    if learned:
        refuse_by_name(graph, question.say)
        with nested.refused():
            plan = _learn(graph, outputs, n, at_losses)
    if method == "layerwise" and plan.meet is not None:
        raise CoupledExamples(f"fastrw.layerwise: examples must stay apart, got {plan.meet}")
    V = None
    if not joint or at_losses:
        with nested.refused() if learned else nullcontext():
            V = _validation(question, leaves, selected, retain=question.retain or joint or learned)
    asked = replace(asked, checkpointed=plan.checkpointed)
    plan.calls += 1
    due = learned or (question.recheck and plan.calls & (plan.calls - 1) == 0)
    found = Pass(graph, plan, outputs[:1] if V is not None and joint else outputs, V, asked).run(question.retain or due, mark)
    trusted = True
    if due:
        try:
            trusted = check(graph, losses, val, V, found, asked)
        except Refused:
            _cache.drop(key)
            raise
        if learned:
            plan.keeps = found.generic
            if trusted and plan.cut.lasting:
                _cache.put(key, parameters, graph, plan)
    if not question.retain and (due or plan.keeps):
        free(outputs)
    gradients = [(leaves[i], g) for i, g in found.gradients.items()]
    name = "tangent" if at_losses or plan.meet is not None else "layerwise"
    refused = {"layerwise": f"examples meet: {plan.meet}"} if plan.meet is not None else {}
    return Answer(found.scores, found.weights, gradients, name, refused, found.uses, learned, trusted)


def _learn(graph: Graph, outputs: list[Tensor], n: int, at_losses: bool) -> Plan:
    order = graph.order()
    inner = cutting.inner_nodes(graph, order)
    with torch.no_grad(), torch.autocast(outputs[0].device.type, enabled=False):
        cut, gradients = cutting.find(graph, outputs, n, inner)
        name = changed_on_the_way(graph, gradients, inner)
    if name is not None:
        raise HookFound(f"fastrw.engine: gradients must be passed on as they are, got a hook that changes one at {name}")
    if at_losses:
        cut = cutting.at_the_losses(graph, outputs[0], inner)
    plan = Plan(cut, planning.sources_of(graph, cut))
    plan.meet = None if n == 1 or at_losses else cutting.where_examples_meet(graph, cut, n)
    plan.checkpointed = any(map(is_checkpointed, graph.nodes))
    return plan


def _whole(question: Question, method: str, refused: dict[str, str]) -> Answer:
    losses = question.losses
    graph = Graph([losses.grad_fn])
    refuse_by_name(graph, question.say)
    leaves = graph.leaves()
    selected = frozenset(i for i, leaf in leaves.items() if question.selected is None or id(leaf) in question.selected)
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
    gradients = []
    if question.update:
        seed = w.to(losses.dtype) * question.scale
        seed = seed if question.scaling is None else seed * question.scaling.to(seed.dtype)
        targets = list(leaves.values())
        found = torch.autograd.grad(losses, targets, seed, retain_graph=question.retain, allow_unused=True)
        gradients = [(leaf, g) for leaf, g in zip(targets, found, strict=True) if g is not None]
    return Answer(scores, w, gradients, method, refused)


def free(outputs: list[Tensor]) -> None:
    """What the nodes below saved, as a backward would: one of no gradient at all, which computes nothing."""
    graph = Graph(t.grad_fn for t in outputs)
    handles = [node.register_prehook(lambda grads: (None,) * len(grads)) for node in graph.roots]
    try:
        leaves = list(graph.leaves().values())
        torch.autograd.grad(outputs, leaves, [torch.ones_like(t) for t in outputs], allow_unused=True)
    except RuntimeError as error:
        if "second time" not in str(error):  # a part of it is freed already
            raise
    finally:
        for handle in handles:
            handle.remove()


def refuse_by_name(graph: Graph, say: str) -> None:
    """What no method can serve, before anything runs."""
    for node in graph.nodes:
        name = node.name()
        if "CompiledFunction" in name:
            raise Refused(
                f"{say}losses must not come from compiled code, whose backward runs once only, got {name} (make them under "
                'torch.compiler.set_stance("force_eager"))'
            )
        if "SyncBatchNorm" in name:
            raise Refused(f"{say}the statistics of a norm must be this process's own, got {name}")


def _shares(graph: Graph, val: Tensor) -> bool:
    """Does the validation loss's graph have an operation in common with this one?"""
    other = Graph([val.grad_fn])
    leaves = other.leaves()
    return any(node in graph.index for i, node in enumerate(other.nodes) if i not in leaves)


def _validation(question: Question, leaves: dict[int, Tensor], selected: frozenset[int], retain: bool) -> dict[int, Tensor]:
    """Leaf's node -> V, of the selected leaves that the validation loss reaches."""
    if question.V is not None:
        return {i: v for i, leaf in leaves.items() if (v := question.V.get(id(leaf))) is not None}
    wanted = [i for i in leaves if i in selected]
    val = question.val_loss
    seed = torch.ones_like(val) if question.scaling is None else question.scaling.to(val.dtype).expand(val.shape)
    found = torch.autograd.grad(val, [leaves[i] for i in wanted], seed, retain_graph=retain, allow_unused=True)
    return {i: v.to_dense() if v.layout != torch.strided else v for i, v in zip(wanted, found, strict=True) if v is not None}
