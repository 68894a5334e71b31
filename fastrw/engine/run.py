"""A graph in, scores and weighted gradient out. The steps of a call:

    walk    the graph of the losses, joined with that of the validation loss if they share operations   graph/walk
    look    up what was learned of graphs like it (`cache`), or learn:
            who owns each gradient (`owners`), the cut (`cut`), what follows from it (`plan`)
    pass    one backward: scores, weights, weighted gradient (`step`; tangents by `sweep`)
    check   one score against its example's own gradient, in the 1st, 2nd, 4th, ... call (`per_example`)

Where no cut can be used, scores come from one backward per example (`per_example`)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fastrw.engine import cut as cutting
from fastrw.engine import guards, owners, per_example, rounding
from fastrw.engine.cache import Cache, Family
from fastrw.engine.later import AllFinite, every
from fastrw.engine.ordinary import free, gradient, weighted_gradient
from fastrw.engine.plan import Plan, plan_of
from fastrw.engine.request import Mark, Request, Result
from fastrw.engine.side import Side
from fastrw.engine.step import Pass, ZeroGradientsChanged, account
from fastrw.errors import (
    CoupledExamples,
    Failed,
    ForThisBatch,
    NestedTensors,
    Refused,
    Unlearned,
    UntracedUse,
    ours,
    reason,
)
from fastrw.graph import hooks, nested
from fastrw.graph.hooks import Moment
from fastrw.graph.recomputed import is_checkpointed, reads
from fastrw.graph.sending import changed_on_the_way
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes.generic import NoDerivative


def run(request: Request, mark: Mark = lambda phase: None) -> Result:
    """Scores, and the weighted gradient, by the method of its options; with "auto" at the lowest cut or, where that is
    impossible, by one backward per example.

    Raises Refused where the result would not be exact.
    """
    method = request.options.method
    guards.one_process(request.prefix)
    if request.options.deferred:
        if method in per_example.METHODS:
            raise Refused(f"{request.prefix}numbers must be read where nothing is cut, got method={method!r}")
        return _at_a_cut(request, method, mark)
    if method in per_example.METHODS:
        return _by_autograd(request, method, {})
    try:
        return _at_a_cut(request, method, mark)
    except (NestedTensors, NoDerivative, UntracedUse) as refusal:
        if method != "auto" or (isinstance(refusal, UntracedUse) and request.options.update is not None):
            raise
        return _by_autograd(request, "per_example", {"layerwise": str(refusal), "tangent": str(refusal)})
    except Exception as error:
        if ours(error):
            raise
        _raise_as_an_ordinary_backward(request)
        refusal = f"fastrw.{method}: what an ordinary backward calls once must also be callable in other ways, got "
        refusal += reason(error)
        if method != "auto":
            raise Failed(refusal) from error
        return _by_autograd(request, "per_example", {"layerwise": refusal, "tangent": refusal})


def _raise_as_an_ordinary_backward(request: Request) -> None:
    """Raises what an ordinary backward of the losses raises: a freed graph, an error in the user's own backward."""
    weighted_gradient(request.losses, torch.ones_like(request.losses), request.options.scaling, 1.0, retain=True)


def _at_a_cut(request: Request, method: str, mark: Mark) -> Result:
    losses, val, at_losses = request.losses, request.val_loss, method == "tangent"
    graph, size, joint, shared = _walked(request)
    leaves, outputs = graph.leaves, [losses, val] if joint else [losses]
    selected = _selected(request, leaves)
    guards.leaves(leaves.values(), request.prefix)
    cache = Cache(graph, selected, len(losses), (joint, at_losses), request.model)
    deferred, family = request.options.deferred, cache.family()
    plan, same = cache.plan(deferred, request.plan)
    learned, first = plan is None, not family.calls
    if deferred and (learned or (request.plan is None and (first or not family.knows_all_hooks_of(graph)))):
        raise Unlearned(
            "fastrw.engine: numbers must be read where a graph is new, or where they decide which row belongs to which "
            "example, got one"
        )
    if learned:
        _refuse_early(request, graph, selected)
        graph.check_shapes()
        plan = _learn(request, graph, outputs, selected, family)
    elif not deferred and not family.knows_all_hooks_of(graph):
        _look_for_hooks(graph, outputs, request.options.scaling, family, plan.checkpointed)
    mixed_by = plan.scores_mixed_by if request.options.update is None else plan.mixed_by
    if method == "layerwise" and mixed_by is not None:
        raise CoupledExamples(f"fastrw.layerwise: no operation may mix the batch dimension, got {mixed_by}")
    # what checkpointing recomputes must not be kept until the weights are known: scores, then an ordinary backward
    lean = request.options.update == "auto" and plan.checkpointed
    later = lean or request.options.update == "backward"
    assembles = request.options.update is not None and not later
    calls = family.calls + 1
    due = first or request.options.check or (request.options.recheck and calls & (calls - 1) == 0)
    due = due and not deferred
    needed = request.retain or learned or later  # is the graph needed after the pass?
    V = None
    if not joint or at_losses or lean:
        V = _validation(request, leaves, selected, retain=needed or shared)
    found = None
    while found is None:
        work = Pass(graph, plan, outputs if V is None else outputs[:1], V, request, assembles)
        retained = needed or due or plan.calls_nodes
        try:
            found = work.run(retained, mark)
        except ZeroGradientsChanged:
            if learned or not plan.calls_nodes:
                raise
            plan = _learn(request, graph, outputs, selected, family)
            learned = needed = True
        except Exception as error:
            cache.drop()
            freed = request.model is None and "graph a second time" in str(error)  # by the user, before
            if retained or deferred or ours(error) or freed or not work.begun:
                raise
            raise ForThisBatch(f"fastrw.engine: an operation must be as at first, got {reason(error)}") from error
    trusted = True
    if due:
        try:
            directions = _validation(request, leaves, selected, retain=True) if V is None else V
            trusted = per_example.check(graph, request, directions, found, assembles)
        except Refused:
            cache.drop()
            raise
    family.calls += trusted  # after a batch that cannot show an error, the next one is checked
    if learned:
        plan.calls_nodes = found.called_nodes or bool(plan.cut.zeros)
        if plan.cut.reusable:
            cache.put(plan)
    # leaves that only the validation loss reaches get no gradient: nodes are numbered from the losses
    gradients = [(leaves[i], g) for i, g in found.gradients.items() if i < size]
    sound = same if found.sound is None else [*same, found.sound]
    if later:
        gradients = _weighted_gradient(request, found.scores, found.weights)
        if deferred:  # 0 * nan
            sound.append(found.scores.isfinite().all())
    if request.free and (due or plan.calls_nodes or needed):
        free(losses, val)
    name = "tangent" if at_losses or plan.scores_mixed_by is not None else "layerwise"
    refused = {}
    if name == "tangent" and not at_losses:
        refused = {"layerwise": f"{plan.scores_mixed_by} mixes the batch dimension"}
    assembled = assembles and plan.mixed_by is None and not at_losses
    return Result(found.scores, found.weights, gradients, name, assembled, refused, partial(account, found.account),
                  due, learned, trusted, every(sound), plan)  # fmt: skip


def _walked(request: Request) -> tuple[Graph, int, bool, bool]:
    """The graph; the number of its nodes below the losses; is it the graph of both losses; do they share operations?"""
    graph = Graph(request.losses.grad_fn)
    size = len(graph.nodes)
    if request.V is not None:
        return graph, size, False, False
    shared = graph.add(request.val_loss.grad_fn)
    joint = shared and not graph.nested  # where one loss is computed from the other, its gradient belongs to both
    return (graph if joint else graph.first(size)), size, joint, shared


def _selected(request: Request, leaves: dict[int, Tensor]) -> frozenset[int]:
    """The nodes of the leaves that scores use."""
    if request.selected is not None:
        return frozenset([i for i, leaf in leaves.items() if id(leaf) in request.selected])
    # a leaf that each forward creates (T5's position bias under checkpointing) is not a parameter
    return frozenset([i for i, leaf in leaves.items() if isinstance(leaf, nn.Parameter)] or leaves)


def _refuse_early(request: Request, graph: Graph, selected: frozenset[int]) -> None:
    """Before anything runs."""
    guards.supported(graph, request.prefix)
    if request.must_reach:
        guards.reached(request.val_loss, {id(graph.leaves[i]) for i in selected}, request.prefix)


def _learn(request: Request, graph: Graph, outputs: list[Tensor], selected: frozenset[int], family: Family) -> Plan:
    at_losses, model = request.options.method == "tangent", request.model
    checkpointed = any(map(is_checkpointed, graph.nodes))
    device = outputs[0].device
    with (torch.no_grad(), torch.autocast(device.type, enabled=False), nested.refused(),
          guards.repeatable_backward(device)):  # fmt: skip
        known = family.knows_all_hooks_of(graph)
        cut, gradients = cutting.find(graph, outputs, not known)
        if not known:
            _no_hook_changes(graph, gradients, family, checkpointed)
    if at_losses:
        cut = cutting.at_the_losses(graph, outputs[0])
    plan = plan_of(graph, cut, selected, request.names)
    with reads(checkpointed) as saved:
        side = Side(graph, cut, len(outputs[0]), None if model is None else (*model.parameters(), *model.buffers()))
        saved.forget()
    for site in plan.sites:
        site.why = 'method="tangent" cuts at the losses' if at_losses else side.why(site.use)
    if len(outputs[0]) > 1 and not at_losses:
        plan.mixed_by = side.mixed_by(graph.leaves)
        plan.scores_mixed_by = plan.mixed_by and side.mixed_by(selected)
    plan.checkpointed = checkpointed
    return plan


def _look_for_hooks(graph: Graph, outputs: list[Tensor], scaling: Tensor | None, family: Family,
                    checkpointed: bool) -> None:  # fmt: skip
    """Hooks may have been registered on this graph, and may now do what they did not do before: it is examined."""
    gradients: dict[Edge, Tensor] = {}
    seeds = [torch.ones_like(t) if scaling is None else scaling.to(t.dtype).expand(t.shape) for t in outputs]
    with torch.no_grad(), torch.autocast(outputs[0].device.type, enabled=False):
        owners.backward(graph, outputs, seeds, [*graph.inner, *graph.leaves], gradients.__setitem__)
        _no_hook_changes(graph, gradients, family, checkpointed)


def _no_hook_changes(graph: Graph, gradients: dict[Edge, Tensor], family: Family, checkpointed: bool) -> None:
    """Raises UntracedUse where a hook changes one of these gradients, or might change that of a leaf."""
    rule = "fastrw.engine: gradients must be passed on as they are, got a hook"
    for i, leaf in graph.leaves.items():
        if hooks.on_leaf(graph.nodes[i]):
            raise UntracedUse(f"{rule} where that of a {tuple(leaf.shape)} is accumulated")
    with reads(checkpointed) as saved:
        name = changed_on_the_way(graph, gradients)
        saved.forget()
    if name is not None:
        raise UntracedUse(f"{rule} that changes one at {name}")
    family.examined = Moment.now()


def _by_autograd(request: Request, method: str, refused: dict[str, str]) -> Result:
    losses = request.losses
    graph = Graph(losses.grad_fn)
    leaves = graph.leaves
    selected = _selected(request, leaves)
    guards.not_sharded(leaves.values(), request.prefix)
    _refuse_early(request, graph, selected)
    with nested.refused(), guards.repeatable_backward(losses.device):
        V = _validation(request, leaves, selected, retain=True)
        directions = [(leaves[i], v) for i, v in V.items()]
        scores = per_example.METHODS[method](losses, directions)
        if method == "double_backward":  # not all of torch's own second derivatives are right
            with owners.repeated():
                per_example.check_scores(losses, directions, scores, rounding.of(losses, graph=graph))
    if request.options.scaling is not None:
        scores = scores / request.options.scaling
    scores = scores.masked_fill(~losses.detach().isfinite(), torch.nan)
    w = request.options.normalize(scores)
    gradients = [] if request.options.update is None else _weighted_gradient(request, scores, w)
    if request.free:
        free(request.val_loss)
    return Result(scores, w, gradients, method, refused=refused)


def _weighted_gradient(request: Request, scores: Tensor, w: Tensor) -> list[tuple[Tensor, Tensor]]:
    finite = request.options.deferred or AllFinite(scores)  # under way while gradients are computed
    found = weighted_gradient(request.losses, w, request.options.scaling, request.options.scale, request.retain)
    if not finite:
        if not bool(w.any()):
            return [(leaf, torch.zeros_like(leaf)) for leaf, _ in found]
        if not all(bool((g.to_dense() if g.is_sparse else g).isfinite().all()) for _, g in found):  # 0 * nan
            raise ForThisBatch(
                f"{request.prefix}an example that is not finite must be separable from the others, got one that is not "
                '(use update="assembled", or leave it out of the batch)'
            )
    return found


def _validation(request: Request, leaves: dict[int, Tensor], selected: frozenset[int], retain: bool
                ) -> dict[int, Tensor]:  # fmt: skip
    """Leaf's node -> V, of the selected leaves that the validation loss reaches."""
    if request.V is not None:
        return {i: v for i, leaf in leaves.items() if (v := request.V.get(id(leaf))) is not None}
    wanted = [i for i in leaves if i in selected]
    if not wanted:
        return {}
    found = gradient(request.val_loss, [leaves[i] for i in wanted], request.options.scaling, retain)
    return {i: v for i, v in zip(wanted, found, strict=True) if v is not None}
