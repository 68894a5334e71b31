"""From a problem to graphs: forwards of the model, with its state restored between them, or one forward of the joined
batch if the result is the same; then the engine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.api.options import Options
from fastrw.api.problem import Problem, place
from fastrw.api.rows import AcrossRows
from fastrw.engine import rounding
from fastrw.engine import run as engine
from fastrw.engine.later import Later
from fastrw.engine.ordinary import gradient
from fastrw.engine.request import Mark, Request, Result
from fastrw.errors import ForThisBatch, Refused, Unlearned, UntracedUse
from fastrw.ops import backends
from fastrw.state.batches import examples, join, sizes
from fastrw.state.snapshot import RandomState, State

DEFAULT = Options()
SIZES = 16  # of batches, that are checked anew


@dataclass
class Assembled:
    """The result of one pass."""

    answer: Result
    losses: Tensor  # [n] f_i
    val_loss: Tensor  # f^v


class _NotJoinable(Exception):
    """Why the two batches cannot go through one forward."""


@torch.enable_grad()
def evaluate(
    problem: Problem, state: State, options: Options = DEFAULT, *, keep_graph: bool = False,
    V: dict[int, Tensor] | None = None,
) -> tuple[Result, Tensor]:  # fmt: skip
    """Scores of the training batch by the named method, or by the first that is exact; and its losses [n], with their
    graph if `keep_graph`. V: id of a parameter -> direction, in place of the validation gradient.

    state: the snapshot that forwards start from. All is left as one training forward leaves it. Raises Refused if the
    named method (or every method) is impossible.
    """
    _require(problem, options)
    V = validation_gradient(problem, state, options.scaling) if V is None else V
    losses = problem.losses(problem.batch)
    request = request_of(problem, replace(options, update=None), losses, None, V, keep_graph)
    answer = engine.run(request)
    if options.method == "auto" and answer.method == "per_example":
        _warn_of_cost(problem.model, len(losses), answer.refused)
    return answer, losses if keep_graph else losses.detach()


def validation_gradient(problem: Problem, state: State, scaling: Tensor | None = None) -> dict[int, Tensor]:
    """Id of a parameter -> V, for those that the validation loss reaches. The state is restored, so that the training
    forward starts from it."""
    losses = problem.losses(problem.val_batch)
    V = gradient(losses.mean(), list(problem.params.values()), scaling)
    state.rewind()
    if state.whole:
        _check_state(problem, state, losses.detach(), rounding.of(losses))
    return {id(p): v for p, v in zip(problem.params.values(), V, strict=True) if v is not None}


def _check_state(problem: Problem, state: State, losses: Tensor, kind: torch.dtype) -> None:
    """A second validation forward must give the losses of the first: what no snapshot can see (a counter of the module
    that defines the model, a file, a generator in C++) must not change them."""
    val_loss = problem.val_losses
    again = problem.losses(problem.val_batch).detach()
    problem.val_losses = val_loss
    state.rewind()
    if Later(rounding.differ(again, losses, kind)).value():
        raise Refused(
            f"{problem.prefix}two forwards must start from one state, got other losses of the same validation batch in "
            "a second forward (compute both losses in one forward, for fastrw.backward)"
        )


@torch.enable_grad()
def assemble(problem: Problem, state: State, options: Options, mark: Mark = lambda phase: None) -> Assembled:
    """Weights and weighted gradient together; raises Refused where they would not be exact."""
    _require(problem, options)
    if options.method in ("auto", "layerwise"):
        n, m = examples(problem.batch) or 0, examples(problem.val_batch) or 0
        pause = _pause(problem)
        joins = not pause.length if options.deferred else pause.is_over()
        if n and m and joins and (batch := join(problem.batch, problem.val_batch, n, m)) is not None:
            try:
                found = _joined(problem, state, options, mark, batch, n, m)
                pause.length = 0
                return found
            except _NotJoinable:
                pause.begin()
                state.rewind()
    return _separate(problem, state, options, mark)


@dataclass
class Pause:
    """The calls in which something is not tried, because it failed: 3, then 7, 15, ..., so that a single batch that is
    unlike the others costs little, and a model that never can as little. Here: joining the batches."""

    length: int = 0
    left: int = 0

    def begin(self) -> None:
        self.length = self.left = min(2 * self.length + 1, 255) if self.length else 3

    def is_over(self) -> bool:
        self.left -= 1
        return self.left < 0


def _pause(problem: Problem) -> Pause:
    """That of calls like this one."""
    key, pauses = _pause_key(problem), learned.table(problem.model, "pauses")
    return pauses.get(key) or pauses.put(key, Pause())


def _pause_key(problem: Problem) -> tuple:
    return _functions(problem), tuple([module.training for module in problem.modules.values()])


def known_batch(problem: Problem, options: Options) -> tuple[bool, Any]:
    """How `assemble` makes a step like this one: is that known from calls before? The joined batch; None: apart."""
    if options.update == "backward" or options.method not in ("auto", "layerwise"):
        return True, None
    n, m = examples(problem.batch) or 0, examples(problem.val_batch) or 0
    pause = learned.table(problem.model, "pauses").get(_pause_key(problem))
    if pause is None:
        return False, None
    alike = learned.table(problem.model, "batches that are alike").get(_kind(problem, n, m)) or set()
    if pause.length:  # a single batch may not have been like the others
        return not alike or pause.length > 3, None
    joined = join(problem.batch, problem.val_batch, n, m) if n and m else None
    return joined is None or (n, m) in alike or len(alike) >= SIZES, joined


def _kind(problem: Problem, n: int, m: int) -> tuple:
    return _functions(problem), n == m, sizes(problem.batch, n), sizes(problem.val_batch, m)


def _functions(problem: Problem) -> tuple:
    return place(problem.loss_fn), place(problem.losses_fn)


def _joined(problem: Problem, state: State, options: Options, mark: Mark, batch: Any, n: int, m: int) -> Assembled:
    before = RandomState(next(iter(problem.params.values())).device)
    try:
        losses = problem.losses(batch)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model requires: sorted lengths, a table with one row per example
        raise _NotJoinable(f"the model does not accept the joined batch: {error}") from error
    if before.moved():
        raise _NotJoinable("the forward draws random numbers")
    if state.moved():
        raise _NotJoinable("the forward changes buffers or attributes")
    if len(losses) != n + m:
        raise _NotJoinable("the losses of the joined batch are not those of its examples")
    mark("forward")
    f = losses.detach()
    try:
        layerwise = replace(options, method="layerwise")
        request = request_of(problem, layerwise, losses[:n], losses[n:].mean())
        answer = engine.run(replace(request, free=True), mark)
    except (ForThisBatch, Unlearned, UntracedUse):
        raise
    except Refused as reason:
        raise _NotJoinable(str(reason)) from None
    alike = learned.table(problem.model, "batches that are alike")
    kind = _kind(problem, n, m)
    known = alike.get(kind) or set()  # (n, m) of such batches; what a place in the batch decides shows in a few of them
    if answer.checked or answer.learned or ((n, m) not in known and len(known) < SIZES):
        if options.deferred:
            raise Unlearned(f"{problem.prefix}numbers must be read where batches have a new size, got {n} and {m}")
        _check_joined(problem, state, f, losses)
        alike.put(kind, known | {(n, m)})
    return Assembled(answer, f[:n], f[n:].mean())


def _check_joined(problem: Problem, state: State, found: Tensor, losses: Tensor) -> None:
    """Whenever scores are checked: the losses of the joined forward must be those of the separate batches."""
    if state.moved(bits=True):
        raise _NotJoinable("the forward changes buffers")
    start, after, kind = 0, problem.state(state), rounding.of(losses)
    across = []  # by batch: sizes that are a batch's by chance are not the other's
    differ = []
    try:
        for batch in (problem.batch, problem.val_batch):
            state.rewind()
            n = examples(batch) or 0
            with AcrossRows(n) as rows:
                alone = problem.losses(batch, graph=False)
            across += [rows.found] if n > 1 else []
            part = found[start : start + len(alone)]
            start += len(alone)
            differ.append(rounding.differ(part, alone, rounding.coarsest({kind} | rows.rounded)))
        if Later(torch.stack(differ).any()).value():  # of both at once: a GPU is waited for once
            raise _NotJoinable("the losses of one batch depend on the other")
        if across and None not in across:
            raise _NotJoinable(f"the forward computes {across[0]} across examples, without a gradient")
    finally:
        after.rewind()


def _separate(problem: Problem, state: State, options: Options, mark: Mark) -> Assembled:
    """First the validation gradient; then the training batch along it."""
    V = validation_gradient(problem, state, options.scaling)
    mark("validation")
    losses = problem.losses(problem.batch)
    mark("forward")
    f, val_loss = losses.detach(), problem.val_loss
    return Assembled(engine.run(request_of(problem, options, losses, None, V), mark), f, val_loss)


def request_of(problem: Problem, options: Options, losses: Tensor, val_loss: Tensor | None,
              V: dict[int, Tensor] | None = None, retain: bool = False) -> Request:  # fmt: skip
    selected = {id(p) for p in problem.params.values()}
    return Request(losses, val_loss, selected, options, V, retain, names=problem.structure.names, model=problem.model,
                   prefix=problem.prefix)  # fmt: skip


def _require(problem: Problem, options: Options) -> None:
    """Raises Refused if a backend chosen by name supports nothing here."""
    backend, score_dtype = options.products.backend, options.products.score_dtype
    if backend != "auto":
        p = next(iter(problem.params.values()))
        backends.require(backend, p.device, score_dtype or torch.promote_types(p.dtype.to_real(), torch.float32))


def _warn_of_cost(model: nn.Module, n: int, refused: dict[str, str]) -> None:
    """Once per model: the last resort is exact, but expensive."""
    warned = learned.table(model, "warned")
    if not warned.get("cost"):
        warned.put("cost", True)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        warnings.warn(
            f"fastrw: this model is scored by one backward pass per example ({n} per batch), because {reasons}",
            stacklevel=5,
        )
