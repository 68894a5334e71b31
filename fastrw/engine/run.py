"""A graph in, scores and weighted gradient out: what was learned of it is looked up or measured, and held against one
example's own gradient from time to time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fastrw.engine import cut as cutting
from fastrw.engine import plan as planning
from fastrw.engine.check import check
from fastrw.engine.plan import Cache, Plan
from fastrw.engine.step import Asked, Found, Mark, Pass
from fastrw.errors import Refused
from fastrw.graph import nested
from fastrw.graph.saved import is_checkpointed
from fastrw.graph.sending import changed_on_the_way
from fastrw.graph.walk import Graph
from fastrw.nodes.base import Products

_cache = Cache()
_COMPILED = "CompiledFunctionBackward"
_SYNCHRONISED = "SyncBatchNorm"


@dataclass
class Question:
    """What is asked of the graph of `losses` [n]. V: leaf's id -> direction; None: that of `val_loss`.

    selected: ids of the leaves that scores go by; None: all.
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
    gradients: list[tuple[Tensor, Tensor]]  # (leaf, sum_i w_i grad f_i)
    plan: Plan
    uses: tuple
    learned: bool  # was the graph a new one?


def run(question: Question, mark: Mark = lambda phase: None) -> Answer:
    """Raises Refused where the answer would not be exact."""
    losses, val = question.losses, question.val_loss
    graph = Graph([losses.grad_fn])
    joint = question.V is None and val is not None and _shares(graph, val)
    outputs = [losses, val] if joint else [losses]
    if joint:
        graph = Graph([losses.grad_fn, val.grad_fn])
    leaves = graph.leaves()
    chosen = (lambda t: True) if question.selected is None else (lambda t: id(t) in question.selected)
    selected = frozenset(i for i, leaf in leaves.items() if chosen(leaf))
    key, parameters = planning.key_of(graph, chosen, len(losses), joint)
    for leaf in leaves.values():
        if leaf._backward_hooks:
            raise Refused(f"{question.say}parameters must have no gradient hooks, got hooks on one of shape {tuple(leaf.shape)}")
    plan = _cache.get(key, parameters, graph)
    asked = Asked(len(losses), question.normalize, selected, question.products, question.scaling, question.scale,
                  question.update)  # fmt: skip
    learned = plan is None
    if learned:
        _refuse_by_name(graph, question.say)
        with nested.refused():
            V = _validation(question, leaves, selected) if not joint else None
            plan = _learn(graph, outputs, len(losses))
        plan.calls = 0
    else:
        V = _validation(question, leaves, selected) if not joint else None
    asked = replace(asked, checkpointed=plan.checkpointed)
    plan.calls += 1
    due = learned or (question.recheck and plan.calls & (plan.calls - 1) == 0)
    found = Pass(graph, plan, outputs, V, asked).run(question.retain or due, mark)
    if due:
        try:
            trusted = check(graph, question, V, found, asked)
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
    return Answer(found.scores, found.weights, gradients, plan, found.uses, learned)


def free(outputs: Any) -> None:
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


def _shares(graph: Graph, val: Tensor) -> bool:
    """Does the validation loss's graph have an operation in common with this one?"""
    other = Graph([val.grad_fn])
    leaves = other.leaves()
    return any(node in graph.index for i, node in enumerate(other.nodes) if i not in leaves)


def _validation(question: Question, leaves: dict[int, Tensor], selected: frozenset[int]) -> dict[int, Tensor]:
    """Leaf's node -> V, of the selected leaves that the validation loss reaches."""
    if question.V is not None:
        return {i: v for i, leaf in leaves.items() if (v := question.V.get(id(leaf))) is not None}
    wanted = [i for i in leaves if i in selected]
    val = question.val_loss
    seed = torch.ones_like(val) if question.scaling is None else question.scaling.to(val.dtype).expand(val.shape)
    found = torch.autograd.grad(val, [leaves[i] for i in wanted], seed, retain_graph=question.retain, allow_unused=True)
    return {i: v.to_dense() if v.layout != torch.strided else v for i, v in zip(wanted, found, strict=True) if v is not None}


def _learn(graph: Graph, outputs: list[Tensor], n: int) -> Plan:
    order = graph.order()
    inner = cutting.inner_nodes(graph, order)
    with torch.no_grad(), torch.autocast(outputs[0].device.type, enabled=False):
        cut, gradients, _ = cutting.find(graph, outputs, n, inner)
        if (name := changed_on_the_way(graph, gradients, inner)) is not None:
            raise Refused(f"fastrw.engine: gradients must be passed on as they are, got a hook that changes one at {name}")
    plan = Plan(cut, planning.sources_of(graph, cut))
    plan.checkpointed = any(map(is_checkpointed, graph.nodes))
    return plan


def _refuse_by_name(graph: Graph, say: str) -> None:
    for node in graph.nodes:
        name = node.name()
        if _COMPILED in name:
            raise Refused(
                f"{say}the losses must not come from compiled code, whose backward runs once only, got {name} (make them "
                'under torch.compiler.set_stance("force_eager"))'
            )
        if _SYNCHRONISED in name:
            raise Refused(f"{say}statistics must be of one process, got {name}")
