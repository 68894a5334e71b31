"""From a problem to graphs: forwards of the model, with its state restored between them, or one forward of both batches
where that gives the same; then the engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.api.options import Options
from fastrw.api.own_loss import hold
from fastrw.api.problem import Problem
from fastrw.engine import run as engine
from fastrw.engine.ordinary import gradient
from fastrw.engine.per_example import RELATIVE, coarsest
from fastrw.engine.request import Request, Result
from fastrw.errors import CoupledExamples
from fastrw.graph.walk import dtypes
from fastrw.ops import backends
from fastrw.state.batches import examples, join
from fastrw.state.snapshot import RandomState, State

Mark = Callable[[str], None]
DEFAULT = Options()


@dataclass
class Assembled:
    """What one pass gives."""

    answer: Result
    losses: Tensor  # [n] f_i
    val_loss: Tensor  # f^v


class _KeepApart(Exception):
    """Why the two batches cannot be one."""


@torch.enable_grad()
def evaluate(
    problem: Problem, options: Options = DEFAULT, *, keep_graph: bool = False, V: dict[int, Tensor] | None = None
) -> tuple[Result, Tensor]:
    """Scores of the training batch by the named method, or by the first that is exact; and its losses [n], with their
    graph if `keep_graph`. V: id of a parameter -> direction, in place of the validation gradient.

    State is left as one training forward leaves it. Raises Refused where the named method (or every method) cannot
    serve.
    """
    _require(problem, options)
    state = State(problem.modules)
    hold(problem, state)
    V = validation_gradient(problem, state, options.scaling) if V is None else V
    losses = problem.losses(problem.batch)
    request = _request(problem, options, losses, None, V, retain=keep_graph, update=None)
    answer = engine.run(request, options.method)
    if options.method == "auto" and answer.method == "per_example":
        _say_cost(problem.model, len(losses), answer.refused)
    return answer, losses if keep_graph else losses.detach()


def validation_gradient(problem: Problem, state: State, scaling: Tensor | None = None) -> dict[int, Tensor]:
    """Id of a parameter -> V, of those that the validation loss reaches; the state is restored: training starts where
    it would have."""
    val = problem.losses(problem.val_batch).mean()
    V = gradient(val, list(problem.params.values()), scaling)
    state.rewind()
    return {id(p): v for p, v in zip(problem.params.values(), V, strict=True) if v is not None}


@torch.enable_grad()
def assemble(problem: Problem, state: State, options: Options, mark: Mark = lambda phase: None) -> Assembled:
    """Weights and weighted gradient together; raises Refused where they would not be exact."""
    _require(problem, options)
    hold(problem, state)
    apart = learned.table(problem.model, "batches to keep apart")
    key = (problem.key, tuple(module.training for module in problem.modules.values()))
    if options.method in ("auto", "layerwise") and apart.get(key) is None:
        try:
            return _joined(problem, state, options, mark)
        except _KeepApart as reason:
            apart.put(key, str(reason))
            state.rewind()
    return _separate(problem, state, options, mark)


def _joined(problem: Problem, state: State, options: Options, mark: Mark) -> Assembled:
    n, m = examples(problem.batch) or 0, examples(problem.val_batch) or 0
    batch = join(problem.batch, problem.val_batch, n, m) if n and m else None
    if batch is None:
        raise _KeepApart("the batches differ in structure or shape")
    before = RandomState(next(iter(problem.params.values())).device)
    try:
        losses = problem.losses(batch)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # lengths that must be sorted, a table of one row an example: whatever a model needs
        raise _KeepApart(f"the model does not take both at once: {error}") from error
    if before.moved():
        raise _KeepApart("the forward draws random numbers")
    if state.moved():
        raise _KeepApart("the forward moves buffers or attributes")
    if len(losses) != n + m:
        raise _KeepApart("the losses of the joined batch are not those of its examples")
    mark("forward")
    f = losses.detach()
    try:
        answer = engine.run(_request(problem, options, losses[:n], losses[n:].mean()), "layerwise", mark)
    except CoupledExamples as reason:
        raise _KeepApart(str(reason)) from None
    if answer.checked:
        _check_joined(problem, state, f, losses)
    return Assembled(answer, f[:n], f[n:].mean())


def _check_joined(problem: Problem, state: State, found: Tensor, losses: Tensor) -> None:
    """With the standing check: the losses of the joined forward are those of the two batches apart."""
    if state.buffers_moved():
        raise _KeepApart("the forward moves buffers")
    limit, start, after = RELATIVE[coarsest(dtypes(losses))], 0, State(problem.modules)
    try:
        for batch in (problem.batch, problem.val_batch):
            state.rewind()
            with torch.no_grad():
                alone = problem.losses(batch, graph=False)
            part = found[start : start + len(alone)]
            start += len(alone)
            if bool((part - alone).norm() > limit * alone.norm()):  # nan where a loss is not finite: then both are
                raise _KeepApart("the losses of one batch depend on the other")
    finally:
        after.rewind()


def _separate(problem: Problem, state: State, options: Options, mark: Mark) -> Assembled:
    """Validation first, by a backward of its own; then the training batch along its gradient."""
    V = validation_gradient(problem, state, options.scaling)
    mark("validation")
    losses = problem.losses(problem.batch)
    mark("forward")
    f, val_loss = losses.detach(), problem.val_loss
    return Assembled(engine.run(_request(problem, options, losses, None, V), options.method, mark), f, val_loss)


def _request(problem: Problem, options: Options, losses: Tensor, val_loss: Tensor | None,
              V: dict[int, Tensor] | None = None, **more: Any) -> Request:  # fmt: skip
    selected = {id(p) for p in problem.params.values()}
    how = {"scaling": options.scaling, "scale": options.scale, "update": options.update, "recheck": options.recheck}
    return Request(losses, val_loss, selected, options.normalize, options.products, V=V, names=problem.names,
                    model=problem.model, prefix=problem.prefix, **(how | more))  # fmt: skip


def _require(problem: Problem, options: Options) -> None:
    """Raises Refused where a backend that was asked for by name serves nothing here."""
    backend, score_dtype = options.products.backend, options.products.score_dtype
    if backend != "auto":
        p = next(iter(problem.params.values()))
        backends.require(backend, p.device, score_dtype or torch.promote_types(p.dtype, torch.float32))


def _say_cost(model: nn.Module, n: int, refused: dict[str, str]) -> None:
    """Once per model: the last resort is exact, but expensive."""
    told = learned.table(model, "told")
    if not told.get("cost"):
        told.put("cost", True)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        warnings.warn(
            f"fastrw: this model is scored by one backward pass per example ({n} a batch), because {reasons}",
            stacklevel=5,
        )
