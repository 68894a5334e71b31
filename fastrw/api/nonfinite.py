"""The weighted gradient of a batch in which examples are not finite: they have weight 0, but 0 * nan is nan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fastrw.api.problem import Problem
from fastrw.engine import rounding
from fastrw.engine.ordinary import weighted_gradient
from fastrw.engine.per_example import is_weighted
from fastrw.engine.request import Options, Result
from fastrw.errors import ForThisBatch
from fastrw.graph.walk import Graph
from fastrw.state.snapshot import State

Gradients = list[tuple[Tensor, Tensor]]


def finite_gradient(problem: Problem, state: State, options: Options, answer: Result, losses: Tensor,
                    V: dict[int, Tensor]) -> Gradients:  # fmt: skip
    """[(leaf, scale * sum_i w_i grad f_i)] of the finite examples: each way is tried on a forward of its own, and taken
    if its gradient is finite and is that of the weights along V. losses: [n], of the first forward, detached.

    Raises ForThisBatch where no way serves.
    """
    w, good = answer.weights, answer.scores.isfinite()
    for forward, cleans_gradients, is_sure in _ways(problem, ~good):
        state.rewind()
        try:
            again = forward()
            found = _backward(again, w, options, cleans_gradients)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a batch that the model does not accept
            continue
        kind = rounding.of(again)
        same = bool((again.detach() - losses)[good].norm() <= rounding.RELATIVE[kind] * losses[good].norm())
        finite = all(bool((g.to_dense() if g.is_sparse else g).isfinite().all()) for _, g in found)
        pairs = [(g, V[id(leaf)]) for leaf, g in found if id(leaf) in V]
        if same and finite and is_weighted(pairs, answer, options, kind) and (is_sure or len(pairs) == len(found)):
            return found
    raise ForThisBatch(
        "fastrw.Reweighter: an example that is not finite must be separable from the others, got one that is not "
        "(leave it out of the batch)"
    )


def _ways(problem: Problem, bad: Tensor) -> Iterator[tuple[Callable[[], Tensor], bool, bool]]:
    """(a forward, are gradients of nan cleaned, is it right for leaves that V does not reach)."""
    plain = partial(problem.losses, problem.batch)
    yield partial(_cleaned, plain, _without_nan), False, True  # no finite example has a use for nan
    for first in (0, 1):
        yield partial(problem.losses, problem.without(bad, first)), False, True
    yield partial(_cleaned, plain, _without_inf), False, False  # but for -inf: a mask
    yield partial(_cleaned, plain, _without_inf), True, False


def _cleaned(forward: Callable[[], Tensor], clean: Callable[[Tensor], Tensor]) -> Tensor:
    """The losses of a forward of which backwards read what was saved through `clean`."""
    with saved_tensors_hooks(lambda t: t.detach(), lambda t: clean(t) if t.is_floating_point() else t):
        return forward()


def _without_nan(t: Tensor) -> Tensor:
    return torch.where(t.isnan(), 0, t)


def _without_inf(t: Tensor) -> Tensor:
    return torch.where(t.isfinite(), t, 0)


def _backward(losses: Tensor, w: Tensor, options: Options, cleans: bool) -> Gradients:
    """cleans: is nan replaced by 0 in every gradient but those of leaves?"""
    assert losses.grad_fn is not None
    nodes = [node for node in Graph(losses.grad_fn).nodes if not hasattr(node, "variable")] if cleans else []
    handles = [node.register_prehook(lambda gs: tuple(g if g is None else _without_nan(g) for g in gs))
               for node in nodes]  # fmt: skip
    try:
        return weighted_gradient(losses, w, options.scaling, options.scale, retain=False)
    finally:
        for handle in handles:
            handle.remove()
