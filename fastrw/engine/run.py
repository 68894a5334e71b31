"""A graph in, scores and weighted gradient out: what was learned of it is looked up or measured, and held against one
example's own gradient from time to time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from fastrw.engine import cut as cutting
from fastrw.engine import guards, whole
from fastrw.engine import plan as planning
from fastrw.engine.check import check
from fastrw.engine.plan import Cache, Family, Plan
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

_cache = Cache()


@dataclass
class Question:
    """What is asked of the graph of `losses` [n].

    V: leaf's id -> direction; None: the gradient of `val_loss`. selected: ids of the leaves that scores go by; None:
    the parameters among them, or all where there is none.
    scaling: see Asked. retain: leave the graph as it is; free: let go what it saved, for the caller will keep it. lean:
    the weighted gradient may come from a backward of its own, where that keeps less. reaches: refuse a validation loss
    that reaches nothing selected.
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
    free: bool = False
    lean: bool = False
    reaches: bool = False
    recheck: bool = True
    V: dict[int, Tensor] | None = None
    names: Mapping[int, str] = field(default_factory=dict)  # id of a leaf -> what reports call it
    say: str = "fastrw.backward: "


@dataclass
class Answer:
    scores: Tensor  # [n]
    weights: Tensor  # [n]
    gradients: list[tuple[Tensor, Tensor]]  # (leaf, sum_i w_i grad f_i), where an update was asked for
    method: str
    assembled: bool = False  # the weighted gradient too, use by use
    refused: dict[str, str] = field(default_factory=dict)
    account: Callable[[], tuple[UseReport, ...]] = tuple  # how each use was served, told when it is asked for
    checked: bool = False  # was it held against an example's own gradient at this call?
    trusted: bool = True  # was it held against an example's own gradient, or by a batch that could tell?


def run(question: Question, method: str = "auto", mark: Mark = lambda phase: None) -> Answer:
    """Scores, and the weighted gradient, by the named method; by "auto" at the lowest cut, else by one backward an
    example.

    Raises Refused where the answer would not be exact.
    """
    if method in ("layerwise", "tangent"):
        return _cut(question, method, mark)
    if method in whole.METHODS:
        return _whole(question, method, {})
    try:
        return _cut(question, method, mark)
    except (NoDerivative, UntracedUse) as refusal:
        if isinstance(refusal, UntracedUse) and question.update:
            raise
        return _whole(question, "per_example", {"layerwise": str(refusal), "tangent": str(refusal)})


def _cut(question: Question, method: str, mark: Mark) -> Answer:
    losses, val = question.losses, question.val_loss
    graph = Graph(losses.grad_fn)
    joint, shared, size = False, False, len(graph.nodes)
    if question.V is None:
        joint = shared = graph.add(val.grad_fn)
        if graph.nested:  # the one loss is made of the other: what reaches it is of both
            joint = False
        graph = graph if joint else graph.first(size)
    outputs = [losses, val] if joint else [losses]
    leaves = graph.leaves
    selected = _selected(question, leaves)
    for leaf in leaves.values():
        if leaf._backward_hooks:
            raise UntracedUse(f"{question.say}parameters must have no gradient hooks, got one on a {tuple(leaf.shape)}")
    n, at_losses = len(losses), method == "tangent"
    guards.whole_tensors(leaves.values(), question.say)
    key, parameters = planning.key_of(graph, selected, n, joint, at_losses)
    plan = _cache.get(key, parameters, graph)
    family = _cache.family(key, parameters)
    asked = Asked(n, question.normalize, selected, question.products, question.scaling, question.scale, question.update)
    learned, first = plan is None, not family.calls
    if learned:
        refuse_by_name(graph, question.say)
        if question.reaches:
            guards.reached(val, {id(leaves[i]) for i in selected}, question.say)
        plan = _learn(graph, outputs, selected, question.names, at_losses, family)
    meet = plan.meet if question.update else plan.scores_meet
    if method == "layerwise" and meet is not None:
        raise CoupledExamples(f"fastrw.layerwise: examples must stay apart, got {meet}")
    # what checkpointing saves is not to be kept until the weights are known: scores, then an ordinary backward
    lean = plan.checkpointed and question.update and question.lean
    if lean:
        asked = replace(asked, update=False)
    V = None
    if not joint or at_losses or lean:
        V = _validation(question, leaves, selected, retain=question.retain or shared or learned or lean)
    calls = family.calls + 1
    due = first or (question.recheck and calls & (calls - 1) == 0)
    found = None
    while found is None:
        work = Pass(graph, plan, outputs[:1] if V is not None else outputs, V, asked)
        try:
            found = work.run(question.retain or due or learned or lean, mark)
        except Woke:
            if learned or not plan.keeps:
                raise
            plan, learned = _learn(graph, outputs, selected, question.names, at_losses, family), True
    trusted = True
    if due:
        try:
            trusted = check(graph, losses, val, V, found, asked)
        except Refused:
            _cache.drop(key)
            raise
    family.calls += trusted  # a batch that could not tell is followed by another that is asked
    if learned:
        plan.keeps = found.by_hand or bool(plan.cut.asleep)
        if plan.cut.lasting:
            _cache.put(key, parameters, graph, plan)
    # what the validation loss alone reaches is not filled: nodes are numbered from the losses
    gradients = [(leaves[i], g) for i, g in found.gradients.items() if i < size]
    if lean:
        gradients = weighted_gradient(losses, found.weights, question.scaling, question.scale, question.retain)
    if question.free and (due or learned or plan.keeps or lean):
        free(losses)
        if val is not None:
            free(val)
    name = "tangent" if at_losses or plan.scores_meet is not None else "layerwise"
    refused = {"layerwise": f"examples meet at {plan.scores_meet}"} if name == "tangent" and not at_losses else {}
    return Answer(found.scores, found.weights, gradients, name, plan.meet is None and not (at_losses or lean), refused,
                  partial(account, found.account), due, trusted)  # fmt: skip


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
    plan = planning.plan_of(graph, cut, selected, names)
    if n > 1 and not at_losses:
        plan.meet = cutting.where_examples_meet(graph, cut, set(graph.leaves))
        plan.scores_meet = plan.meet and cutting.where_examples_meet(graph, cut, selected)
    plan.checkpointed = checkpointed
    return plan


def _whole(question: Question, method: str, refused: dict[str, str]) -> Answer:
    losses = question.losses
    graph = Graph(losses.grad_fn)
    refuse_by_name(graph, question.say)
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
    gradients = []
    if question.update:
        gradients = weighted_gradient(losses, w, question.scaling, question.scale, question.retain)
    return Answer(scores, w, gradients, method, refused=refused)


def weighted_gradient(losses: Tensor, w: Tensor, scaling: Tensor | None, scale: float | Tensor, retain: bool):
    """[(leaf, scale * sum_i w_i grad f_i)] by an ordinary backward, of every leaf that one fills."""
    seed = w.to(losses.dtype) * scale
    seed = seed if scaling is None else seed * scaling.to(seed.dtype)
    leaves = list(Graph(losses.grad_fn).leaves.values())
    found = torch.autograd.grad(losses, leaves, seed, retain_graph=retain, allow_unused=True)
    return [(leaf, g) for leaf, g in zip(leaves, found, strict=True) if g is not None]


def free(loss: Tensor) -> None:
    """Lets go what the nodes below saved, as a backward does: by one of no gradient at all, which computes nothing."""
    graph = Graph(loss.grad_fn)
    handle = loss.grad_fn.register_prehook(lambda grads: (None,) * len(grads))
    try:
        torch.autograd.grad(loss, list(graph.leaves.values()), torch.ones_like(loss), allow_unused=True)
    except Exception:  # a part of it is freed already, or a hook that watches does not expect None
        pass
    finally:
        handle.remove()


def refuse_by_name(graph: Graph, say: str) -> None:
    """What no method can serve, before anything runs."""
    for node in graph.nodes:
        name = node.name()
        if "CompiledFunction" in name:
            raise Refused(
                f"{say}losses must not come from compiled code, whose backward runs once only, got {name} (make them "
                'under torch.compiler.set_stance("force_eager"))'
            )
        if "SyncBatchNorm" in name:
            raise Refused(f"{say}the statistics of a norm must be this process's own, got {name}")


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


def gradient(
    loss: Tensor, leaves: Sequence[Tensor], scaling: Tensor | None = None, retain: bool = True
) -> list[Tensor | None]:
    """The dense gradient of a 0-d loss, times `scaling`, by each leaf. Nodes that run a backward of their own and
    compiled ones are refused."""
    refuse_by_name(Graph(loss.grad_fn), "fastrw.backward: ")
    seed = torch.ones_like(loss) if scaling is None else scaling.to(loss.dtype).expand(loss.shape)
    with nested.refused():
        found = torch.autograd.grad(loss, leaves, seed, retain_graph=retain, allow_unused=True)
    return [v.to_dense() if v is not None and v.layout != torch.strided else v for v in found]
