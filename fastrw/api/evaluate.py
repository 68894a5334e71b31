"""A question becomes graphs: forwards of the model, with its state put back between them, or one forward of both
batches where that is the same; then the engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.api.own_loss import hold
from fastrw.api.problem import Problem
from fastrw.engine import run as engine
from fastrw.engine.ordinary import gradient
from fastrw.engine.report import UseReport
from fastrw.engine.run import Answer, Question
from fastrw.engine.whole import RELATIVE, coarsest
from fastrw.errors import CoupledExamples
from fastrw.graph.walk import dtypes
from fastrw.nodes.base import Products
from fastrw.ops import backends
from fastrw.state.batches import examples, join
from fastrw.state.snapshot import RandomState, State

METHODS = engine.METHODS


@dataclass
class Scored:
    """Scores of a training batch; `losses` with their graph where that was asked for."""

    scores: Tensor  # [n]
    losses: Tensor  # [n]
    method: str
    refused: dict[str, str] = field(default_factory=dict)
    account: Callable[[], tuple[UseReport, ...]] = tuple


@dataclass
class Assembled:
    """What one pass gives."""

    scores: Tensor  # [n] s_i
    weights: Tensor  # [n] w_i
    losses: Tensor  # [n] f_i
    val_loss: Tensor  # f^v
    gradients: dict[Tensor, Tensor]  # leaf -> sum_i w_i grad f_i; what no loss reaches has none
    joined: bool
    method: str
    assembled: bool
    refused: dict[str, str]
    account: Callable[[], tuple[UseReport, ...]]
    trusted: bool = True  # held against gradients of single examples, or by a batch that could tell


class _KeepApart(Exception):
    """Why the two batches cannot be one."""


@torch.enable_grad()
def evaluate(problem: Problem, *, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
             keep_graph: bool = False, scale: Tensor | None = None, V: dict[int, Tensor] | None = None,
             ) -> Scored:  # fmt: skip
    """Scores and losses of the training batch by the named method, or by the first that is exact. V: id of a parameter
    -> direction, in place of the validation gradient.

    State is left as one training forward leaves it. With `keep_graph` the losses keep their graph.
    Raises Refused where the named method (or every method) cannot serve.
    """
    _require(problem, backend, score_dtype)
    state = State(problem.modules)
    hold(problem, state)
    V = validation_gradient(problem, state, scale) if V is None else V
    losses = problem.losses(problem.batch)
    question = _question(problem, losses, None, backend, score_dtype, scale, update=None, V=V, retain=keep_graph)
    answer = engine.run(question, method)
    if method == "auto" and answer.method == "per_example":
        _say_cost(problem.model, len(losses), answer.refused)
    return Scored(
        answer.scores, losses if keep_graph else losses.detach(), answer.method, answer.refused, answer.account
    )


def validation_gradient(problem: Problem, state: State, scale: Tensor | None = None) -> dict[int, Tensor]:
    """Id of a parameter -> V, of those that the validation loss reaches; the state is rewound: training starts where it
    would have."""
    val = problem.losses(problem.val_batch).mean()
    V = gradient(val, list(problem.params.values()), scale)
    state.rewind()
    return {id(p): v for p, v in zip(problem.params.values(), V, strict=True) if v is not None}


@torch.enable_grad()
def assemble(problem: Problem, state: State, normalize: Callable[[Tensor], Tensor], *, method: str = "auto",
             backend: str = "auto", score_dtype: torch.dtype | None = None, scale: Tensor | None = None,
             scaled_by: float = 1.0, update: str = "assembled", recheck: bool = True,
             mark: Callable[[str], None] = lambda phase: None) -> Assembled:  # fmt: skip
    """Weights and weighted gradient together; raises Refused where they would not be exact. scale: a GradScaler's
    factor; scaled_by: what the weighted gradient is multiplied with beside; update: see engine.run.Question."""
    _require(problem, backend, score_dtype)
    hold(problem, state)
    how = {"normalize": normalize, "backend": backend, "score_dtype": score_dtype, "scale": scale, "recheck": recheck,
           "scaled_by": scaled_by, "update": update}  # fmt: skip
    apart = learned.table(problem.model, "batches to keep apart")
    key = (problem.key, tuple(module.training for module in problem.modules.values()))
    if method in ("auto", "layerwise") and apart.get(key) is None:
        try:
            return _joined(problem, state, how, mark)
        except _KeepApart as reason:
            apart.put(key, str(reason))
            state.rewind()
    return _separate(problem, state, method, how, mark)


def _joined(problem: Problem, state: State, how: dict, mark) -> Assembled:
    n, m = examples(problem.batch), examples(problem.val_batch)
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
        answer = engine.run(_question(problem, losses[:n], losses[n:].mean(), **how), "layerwise", mark)
    except CoupledExamples as reason:
        raise _KeepApart(str(reason)) from None
    if answer.checked:
        _check_joined(problem, state, f, losses)
    return _assembled(problem, answer, f[:n], f[n:].mean(), joined=True)


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


def _separate(problem: Problem, state: State, method: str, how: dict, mark) -> Assembled:
    """Validation first, by a backward of its own; then the training batch along its gradient."""
    V = validation_gradient(problem, state, how["scale"])
    mark("validation")
    losses = problem.losses(problem.batch)
    mark("forward")
    f, val_loss = losses.detach(), problem.val_losses.mean()
    answer = engine.run(_question(problem, losses, None, V=V, **how), method, mark)
    return _assembled(problem, answer, f, val_loss, joined=False)


def _question(problem: Problem, losses: Tensor, val_loss: Tensor | None, backend: str, score_dtype, scale,
              normalize=lambda s: s, scaled_by: float = 1.0, **more) -> Question:  # fmt: skip
    selected = {id(p) for p in problem.params.values()}
    return Question(losses, val_loss, selected, normalize, Products(backend, score_dtype), scale, scaled_by,
                    names=problem.names, model=problem.model, say=problem.say, **more)  # fmt: skip


def _assembled(problem: Problem, answer: Answer, losses: Tensor, val_loss: Tensor, joined: bool) -> Assembled:
    return Assembled(answer.scores, answer.weights, losses, val_loss, dict(answer.gradients), joined, answer.method,
                     answer.assembled, answer.refused, answer.account, answer.trusted)  # fmt: skip


def _require(problem: Problem, backend: str, score_dtype: torch.dtype | None) -> None:
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
