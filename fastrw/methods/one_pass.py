"""The reweighted step from one forward and one backward of activations: weights and weighted gradient together.

The validation examples ride behind the training examples in one batch where that is exact. Where the g of a use appears
in the backward, its V, its score and what its update will need are taken at once (`parts`); no gradient of a parameter
is formed in the backward. Then Eq. 8-9, then sum_i w_i G_i, use by use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastrw import anchor
from fastrw.calls import RandomState, function_name, tensors_of
from fastrw.errors import CoupledExamples, ForThisBatch, Refused
from fastrw.isolation import State
from fastrw.methods import layerwise
from fastrw.methods.common import Options, of_finite
from fastrw.methods.spot_check import RELATIVE, coarsest
from fastrw.parts import Owned, Part, Products, gram_scores, part_of
from fastrw.problem import Problem
from fastrw.report import UseReport
from fastrw.rules.generic import derived_direction
from fastrw.tape import PARAMETER, Tape, Use

# model -> (what was asked -> why the two batches are kept apart, signatures that may be joined)
_learned: WeakKeyDictionary = WeakKeyDictionary()


@dataclass
class Assembled:
    """What one pass gives."""

    scores: Tensor  # [n] s_i
    weights: Tensor  # [n] w_i
    losses: Tensor  # [n] f_i
    val_loss: Tensor  # f^v
    gradients: dict[nn.Parameter, Tensor]  # sum_i w_i G_i; a parameter that no loss reaches has none
    joined: bool
    uses: tuple[UseReport, ...]
    signature: object
    trusted: bool = True  # held against gradients of single examples, or by a batch that could tell

    def unscaled_gradients(self, options: Options) -> dict[nn.Parameter, Tensor]:
        if options.scale is None:
            return self.gradients
        return {p: g / options.scale for p, g in self.gradients.items()}


def step(problem: Problem, whole: Problem, state: State, options: Options, normalize: Callable[[Tensor], Tensor],
         mark: Callable[[str], None] = lambda phase: None) -> Assembled:  # fmt: skip
    """Weights and weighted gradient of the training batch; `whole` is what `check` gave. Raises Refused where they
    would not be exact.

    Buffers and random states are left as one training forward leaves them.
    """
    apart, passed = _learned.setdefault(problem.model, ({}, set()))
    try:
        if whole is problem and problem.key not in apart:  # the V of a few parameters costs little
            try:
                return _joined(problem, state, options, normalize, mark, passed)
            except _KeepApart as reason:
                apart[problem.key] = str(reason)
                state.rewind()
        return _separate(problem, whole, state, options, normalize, mark)
    except layerwise.OwnersUnknown:
        layerwise.forget(problem)
        raise


def check(problem: Problem) -> Problem:
    """The question about every parameter that requires grad: all are trained, those of `problem` are scored. Raises
    Refused where the model alone says that gradients have to come from an ordinary backward."""
    whole = problem.whole()
    layerwise.readable(whole, "one_pass")
    for name, module in problem.modules.items():
        if vars(module).get("max_norm") is not None:
            raise Refused(f"fastrw.one_pass: tables must stay in a forward, got {name!r} with max_norm")
        for p in module._parameters.values():
            if p is not None and p._post_accumulate_grad_hooks:
                raise Refused("fastrw.one_pass: parameters must have no hooks, got one on an accumulated gradient")
    return whole


class _KeepApart(Exception):
    """Why the two batches cannot be one."""


def _joined(problem, state, options, normalize, mark, passed) -> Assembled:
    n, m = _examples(problem.batch), _examples(problem.val_batch)
    batch = join(problem.batch, problem.val_batch, n, m) if n and m else None
    if batch is None:
        raise _KeepApart("the batches differ in structure or shape")
    both = copy.copy(problem)
    both.batch = batch
    before = RandomState(next(iter(problem.params.values())).device)
    tape, losses = layerwise.record(both, batch)
    if before.moved():
        raise _KeepApart("the forward draws random numbers")
    if len(losses) != n + m:
        raise _KeepApart("the losses of the joined batch are not those of its examples")
    roots = layerwise.complete(problem, tape, losses)
    key = ("joined", problem.key, tape.signature())
    if key not in passed:
        _check_joined(problem, state, tape, losses)
    try:
        patterns = layerwise.patterns_of(both, state, tape, n + m, key, strict=True)
    except CoupledExamples as reason:
        raise _KeepApart(str(reason)) from None
    passed.add(key)
    mark("forward")
    work = _Pass(problem, tape, losses, n, m, options, normalize, patterns)
    gradients = work.run(roots, None, mark)
    f = losses.detach()
    account = tuple(work.account)
    return Assembled(work.scores, work.weights, f[:n], f[n:].mean(), gradients, True, account, key)


def _check_joined(problem: Problem, state: State, tape: Tape, losses: Tensor) -> None:
    """Once per structure: the joined forward is that of the two batches apart, in what it runs and what comes out."""
    if state.buffers_moved():
        raise _KeepApart("the forward moves buffers")
    after, start = State(problem), 0
    try:
        for batch in (problem.batch, problem.val_batch):
            state.rewind()
            alone, expected = layerwise.record(problem, batch)
            found = losses[start : start + len(expected)].detach()
            start += len(expected)
            if alone.signature() != tape.signature():
                raise _KeepApart("the forward runs otherwise on one batch alone")
            limit = RELATIVE[coarsest(expected)]
            excess = (found - expected.detach()).norm() - limit * expected.detach().norm()
            if bool(excess > 0):  # nan where a loss is not finite: then both are
                raise _KeepApart("the losses of one batch depend on the other")
    finally:
        after.rewind()


def _separate(problem, whole, state, options, normalize, mark) -> Assembled:
    """Validation first, by a backward of its own; then the training batch along its gradient. `whole`: with every
    parameter that requires grad, of which those of the problem are scored."""
    val_losses = problem.losses(problem.val_batch)
    params = list(problem.params.values())
    found = torch.autograd.grad(options.scaled(val_losses.mean()), params, allow_unused=True)
    V = {p: g.to_dense() if g.is_sparse else g for p, g in zip(params, found, strict=True) if g is not None}
    state.rewind()
    mark("validation")
    tape, losses = layerwise.record(whole, problem.batch)
    roots = layerwise.complete(whole, tape, losses)
    key = ("apart", whole.key, tape.signature())
    patterns = layerwise.patterns_of(whole, state, tape, len(losses), key)
    mark("forward")
    work = _Pass(whole, tape, losses, len(losses), 0, options, normalize, patterns)
    gradients = work.run(roots, V, mark)
    val_loss, account = val_losses.detach().mean(), tuple(work.account)
    return Assembled(work.scores, work.weights, losses.detach(), val_loss, gradients, False, account, key)


def _examples(batch: Any) -> int | None:
    """The length of the first dimension of the first tensor."""
    first = next((t for t in tensors_of(batch) if t.ndim), None)
    return None if first is None else len(first)


def join(batch: Any, val_batch: Any, n: int, m: int) -> Any | None:
    """[batch; val_batch] where both have one structure and one shape but for their first dimension; else None."""
    kind = type(batch)
    flat = kind in (tuple, list) and kind is type(val_batch) and all(type(t) is Tensor for t in (*batch, *val_batch))
    (leaves, tree), (val_leaves, val_tree) = (
        (b, len(b)) if flat else tree_flatten(b)
        for b in (batch, val_batch)  # pytree is slow
    )
    if tree != val_tree:
        return None
    joined = []
    for x, y in zip(leaves, val_leaves, strict=True):
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            if type(x) is not type(y) or x != y:
                return None
            joined.append(x)
            continue
        alike = (x.shape[1:], x.dtype, x.device) == (y.shape[1:], y.dtype, y.device)
        if not alike or x.shape[:1] != (n,) or y.shape[:1] != (m,):
            return None
        joined.append(torch.cat([x, y]))
    return kind(joined) if flat else tree_unflatten(joined, tree)


class _Pass:
    """Takes each use's g as the backward brings it, and keeps its part; once all that is scored has been taken, the
    weights are known, and what comes after is weighed at once."""

    def __init__(self, problem: Problem, tape: Tape, losses: Tensor, n: int, m: int, options: Options,
                 normalize: Callable[[Tensor], Tensor], patterns: list | None):  # fmt: skip
        self._problem, self._tape, self._losses, self._n, self._m = problem, tape, losses, n, m
        self._normalize, self._patterns = normalize, patterns
        outputs = (shape.numel() for use in tape.uses for shape in use.shapes)
        self._anchored = not losses.is_cuda and anchor.wanted(outputs)
        self._options, self._products = options, Products(options.backend, options.score_dtype)
        self._parts: list[tuple[Use, Part]] = []
        self._later: list[tuple[Use, Part]] = []  # those whose V waits for other uses
        self._several: dict[int, tuple[Use, dict]] = {}  # uses with several outputs, until all g are there
        self._dots: list[Tensor] = []
        self._found: dict[nn.Parameter, Tensor] = {}  # sum_i w_i G_i
        self._derived: dict[Tensor, Tensor] = {}  # the same of what is derived from parameters
        self.scores: Tensor | None = None
        self.weights: Tensor | None = None
        self.account: list[UseReport] = []

    def run(self, roots: set[Node], V: dict[nn.Parameter, Tensor] | None,
            mark: Callable[[str], None]) -> dict[nn.Parameter, Tensor]:  # fmt: skip
        """sum_i w_i G_i by parameter. V: the validation gradient of what is scored, where the batch has no validation
        examples of its own."""
        self._V = V
        selected = set() if V is None else {id(p) for p in V}
        self._awaited = {id(use) for use in self._tape.uses if V is None or self._scored(use, selected)}
        self._anchor("activations")
        with torch.autocast(self._losses.device.type, enabled=False), torch.no_grad():
            self._backward(roots)
            mark("backward")
            self._weigh()
            while self._parts:
                self._update(*self._parts.pop())
            self._through(self._derived, self._found)
            self._anchor("gradients")
            mark("update")
        return self._found

    def _scored(self, use: Use, selected: set[int]) -> bool:
        params = self._problem.params
        return any(
            (key if entry.kind is PARAMETER else id(params[name])) in selected
            for key, entry in use.directed.items()
            for name in entry.name.split()
        )

    def _backward(self, roots: set[Node]) -> None:
        losses = self._losses
        asked, handles = [], []
        for j, use in enumerate(self._tape.uses):
            for i, (edge, shape) in enumerate(zip(use.edges, use.shapes, strict=True)):
                if edge is None:
                    continue
                take = partial(self._take, use, i, self._owned(j, i, shape))
                if edge.node in roots:
                    asked.append((edge, take))
                else:
                    handles.append(edge.node.register_prehook(partial(_pass_on, take, edge.output_nr)))
        try:
            if asked:
                edges = [edge for edge, _ in asked]
                found = torch.autograd.grad(
                    losses, edges, self._options.scaled(torch.ones_like(losses)), allow_unused=True
                )
                for (_, take), g in zip(asked, found, strict=True):
                    take(g)
        finally:
            for handle in handles:
                handle.remove()
        for use, gs in self._several.values():
            self._keep(use, gs)

    def _anchor(self, place: str) -> None:
        if self._anchored:
            anchor.drop(self._problem.model, place)

    def _weigh(self) -> None:
        """Eq. 8-9 of what was scored on the way, and of the uses that had to wait for the V of others."""
        if self.weights is not None:
            return
        self._dots += gram_scores([part for _, part in self._parts], self._n, self._products.backend)
        if self._later:
            directions = self._directions()
            for use, part in self._later:
                self._add(part.score({key: d for key in use.directed if (d := directions.get(key)) is not None}))
        like = self._losses.new_empty(0, dtype=torch.promote_types(self._losses.dtype, torch.float32))
        dots = [s.to(like) for s in self._dots]
        total = torch.stack(dots).sum(0) if dots else like.new_zeros(self._n)
        self.scores = of_finite(self._options.unscaled(total) / (self._m or 1), self._losses[: self._n])
        self.weights = self._normalize(self.scores)

    def _update(self, use: Use, part: Part) -> None:
        if not part.masks and not bool(self.scores.isfinite().all()):
            raise ForThisBatch(
                "fastrw.one_pass: every operation must be able to leave out an example that is not finite, got one"
            )
        for key, g in part.update(self.weights.to(self._losses.dtype)).items():
            entry = use.directed[key]
            _accumulate(self._found if entry.kind is PARAMETER else self._derived, entry.tensor, g)

    def _owned(self, use: int, output: int, shape: torch.Size) -> Owned | None:
        N = self._n + self._m
        pattern = self._patterns[use][output] if self._patterns is not None else None
        inner = shape.numel() if N == 1 else pattern and pattern.inner(shape, N)
        return None if inner is None else Owned(self._n, self._m, inner, shape.numel() // max(inner * N, 1))

    def _take(self, use: Use, output: int, owned: Owned | None, g: Tensor | None) -> None:
        if g is None:
            return
        if owned is None:
            if bool((g != 0).any()):
                raise layerwise.OwnersUnknown(
                    f"fastrw.one_pass: rows must have a known owner, got {function_name(use.function)} of "
                    f"{use.name!r} whose gradients were all 0 when owners were measured"
                )
            return
        use.check_arguments()
        g = g.detach()
        g = g.to_dense() if g.is_sparse else g
        if len(use.edges) == 1:
            self._keep(use, {output: (g, owned)})
        else:
            self._several.setdefault(id(use), (use, {}))[1][output] = g, owned

    def _keep(self, use: Use, gs: dict) -> None:
        if (taken := len(self.account)) < 4:  # the heap is longest where the backward begins
            self._anchor(f"backward {taken}")
        part = part_of(use, gs, self._products)
        shape = use.shapes[0]
        rows = shape.numel() // shape[-1] if len(shape) and shape[-1] else shape.numel()
        self.account.append(UseReport(function_name(use.function), use.name, rows, part.form, "auto", ""))
        if self.weights is not None:
            return self._update(use, part)
        if id(use) in self._awaited:
            self._score(use, part)
        self._parts.append((use, part))
        self._awaited.discard(id(use))
        if not self._awaited:
            self._weigh()

    def _score(self, use: Use, part: Part) -> None:
        params = [(key, entry.tensor) for key, entry in use.directed.items() if entry.kind is PARAMETER]
        if len(params) < len(use.directed):
            self._later.append((use, part))
        elif self._V is not None:
            self._add(part.score({key: self._V[p] for key, p in params if p in self._V}))
        elif all(self._tape.touched[key] == 1 for key, _ in params):
            self._add(part.alone())
        else:
            self._later.append((use, part))

    def _add(self, s: Tensor | None) -> None:
        if s is not None:
            self._dots.append(s)

    def _directions(self) -> dict[int, Tensor]:
        """V of each argument of the uses that wait: summed over every use of a parameter, through what derives it."""
        waiting = dict(self._V or {})
        if self._V is None:
            derived: dict[Tensor, Tensor] = {}
            for use, part in self._later:
                for key, v in part.validation().items():
                    entry = use.directed[key]
                    _accumulate(waiting if entry.kind is PARAMETER else derived, entry.tensor, v)
            self._through(derived, waiting)
        V = {id(p): v for p, v in waiting.items()}
        directions = dict(V)
        for use, _ in self._later:
            for key, entry in use.directed.items():
                if entry.kind is PARAMETER or key in directions:
                    continue
                sources = {p: V[id(p)] for name in entry.name.split() if id(p := self._problem.params[name]) in V}
                if sources:
                    directions[key] = derived_direction(entry.tensor, sources)
        return directions

    def _through(self, derived: dict[Tensor, Tensor], found: dict[nn.Parameter, Tensor]) -> None:
        """Gradients of derived parameters become gradients of the parameters they are made of."""
        if not derived:
            return
        params = list(self._problem.params.values())
        tensors = list(derived)
        cotangents = [g.to(t.dtype) for t, g in derived.items()]
        with torch.enable_grad():
            grads = torch.autograd.grad(tensors, params, cotangents, retain_graph=True, allow_unused=True)
        for p, g in zip(params, grads, strict=True):
            if g is not None:
                _accumulate(found, p, g)


def _pass_on(take: Callable[[Tensor | None], None], output: int, grads: tuple) -> None:
    take(grads[output])


def _accumulate(into: dict, key: Tensor, g: Tensor) -> None:
    into[key] = into[key] + g if key in into else g
