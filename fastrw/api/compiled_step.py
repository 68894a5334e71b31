"""The whole step as one compiled graph: forward, scores, weights, weighted gradient.

Dynamo captures the forward (`api/dynamo.py`) and guards what it depends on. The engine makes a pass over the autograd
graph of that very forward: once to learn and check it, once while it is recorded (`engine/traced.py`). torch.compile
compiles the record, and what it gives is compared with the pass that was not compiled. What cannot be captured,
recorded or compiled runs eagerly (`api/compile.py`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastrw.api.dynamo import Forward
from fastrw.api.evaluate import request_of
from fastrw.api.options import Options
from fastrw.api.problem import Problem
from fastrw.engine import rounding
from fastrw.engine import run as engine
from fastrw.engine.later import Later
from fastrw.engine.ordinary import weighted_gradient
from fastrw.engine.request import Result
from fastrw.engine.traced import Compiler, Watched, draws_random_numbers, fastest, same_autocast, traced
from fastrw.errors import ForThisBatch, Refused
from fastrw.nodes.precision import told
from fastrw.state.snapshot import State


class Unlike(ForThisBatch):
    """A step whose numbers do not allow what was compiled."""


class Found(NamedTuple):
    """What a step computes."""

    answer: Result
    losses: Tensor  # [n]
    val_loss: Tensor | None  # 0-d; None in a plain step
    outputs: tuple  # all results of the training forward
    rounds_as: torch.dtype = torch.float32  # the coarsest of its numbers, where that is known

    def copied(self) -> Found:
        """With memory of its own: the next replay of a CUDA graph writes to the old."""
        answer = self.answer
        gradients = [(leaf, g.clone()) for leaf, g in answer.gradients]
        answer = replace(answer, scores=answer.scores.clone(), weights=answer.weights.clone(), gradients=gradients)
        outputs = tuple([t.clone() if isinstance(t, Tensor) else t for t in self.outputs])
        return Found(answer, self.losses.clone(), None if self.val_loss is None else self.val_loss.clone(), outputs)


@dataclass(frozen=True)
class Work:
    """A step to be computed from captured forwards: of the joined batch, whose first n examples are the training
    examples; else of the validation batch and of the training batch; or of the training batch alone, in a plain
    step."""

    problem: Problem
    options: Options
    forwards: tuple[Forward, ...]
    n: int | None = None  # of a joined batch
    plain: bool = False

    @property
    def device(self) -> torch.device:
        return next(iter(self.problem.params.values())).device

    def key(self) -> Hashable:
        """What the graph of the step depends on, besides what Dynamo guards."""
        options, forwards = self.options, tuple([(forward.graph, forward.sizes()) for forward in self.forwards])
        selected = frozenset(map(id, self.problem.params.values()))
        return (forwards, self.n, self.plain, selected, options.method, options.update, options.scaling is None,
                options.scale == 1, told(self.device))  # fmt: skip

    def run(self, plan: Any = None) -> Found:
        """By the engine. plan: that of a run before, for one in which no number is read."""
        with torch.enable_grad(), same_autocast(self.device.type):
            apart = self._unwritten(self.forwards[0]) if len(self.forwards) == 2 else None
            losses, outputs = self.forwards[-1].losses()  # first: its random draws are those of an ordinary step
            if self.n is not None:
                losses, val = losses[: self.n], losses[self.n :]
            elif apart is not None:
                val, _ = apart.losses()
            if self.plain:
                return Found(_averaged(losses, self.options), losses.detach(), None, outputs)
            val_loss = val.mean()
            options = replace(self.options, deferred=plan is not None, check=plan is None)
            kind = losses.dtype if plan is not None else rounding.of(losses, val_loss)
            answer = engine.run(replace(request_of(self.problem, options, losses, val_loss), plan=plan))
            return Found(answer, losses.detach(), val_loss.detach(), outputs, kind)

    def _unwritten(self, forward: Forward) -> Forward:
        """The forward with copies of the buffers, as they are now, for it to write to."""
        buffers = _buffers(self.problem)
        copies = (t.clone() if id(t) in buffers else t for t in forward.inputs)
        return forward._replace(inputs=tuple(copies))


def _averaged(losses: Tensor, options: Options) -> Result:
    """Of a plain step: w_i = 1 / n."""
    w = torch.full_like(losses, 1 / len(losses), dtype=torch.promote_types(losses.dtype, torch.float32))
    gradients = weighted_gradient(losses, w.detach(), options.scaling, options.scale, retain=False)
    return Result(losses.detach(), w.detach(), gradients, "plain")


def _buffers(problem: Problem) -> set[int]:
    return {id(b) for module in problem.modules.values() for b in module._buffers.values()}


class _Inputs:
    """The tensors that a step reads, in order. Each parameter and buffer is one of them, though both forwards read
    it."""

    def __init__(self, work: Work):
        buffers = _buffers(work.problem)
        known: dict[int, int] = {}
        self._take: list[tuple[int, int]] = []  # forward, input
        self._places: list[list[int | None]] = []  # of each input of each forward; None: of a size
        for k, forward in enumerate(work.forwards):
            places: list[int | None] = []
            for j, t in enumerate(forward.inputs):
                lasting = isinstance(t, Tensor) and (t.requires_grad or id(t) in buffers)
                if lasting and id(t) in known:
                    places.append(known[id(t)])
                elif isinstance(t, Tensor):
                    places.append(len(self._take))
                    known[id(t)] = len(self._take)
                    self._take.append((k, j))
                else:
                    places.append(None)
            self._places.append(places)

    def of(self, work: Work) -> list[Tensor]:
        found = [work.forwards[k].inputs[j] for k, j in self._take]
        if work.options.scaling is not None:
            found.append(work.options.scaling)
        if work.options.scale != 1:
            found.append(torch.full((), float(work.options.scale), dtype=torch.float64, device=work.device))
        return found

    def put(self, work: Work, tensors: Sequence[Tensor]) -> Work:
        """The work with these for its own."""
        forwards = tuple([
            forward._replace(inputs=tuple([x if at is None else tensors[at] for x, at in zip(
                forward.inputs, places, strict=True)]))
            for forward, places in zip(work.forwards, self._places, strict=True)
        ])  # fmt: skip
        rest, options = iter(tensors[len(self._take) :]), work.options
        if options.scaling is not None:
            options = replace(options, scaling=next(rest))
        return replace(work, forwards=forwards, options=replace(options, scale=next(rest, 1.0)))


class CompiledStep:
    """A kind of step, compiled: `run` gives what `Work.run` gives.

    state: the snapshot that the work starts from, and is left at. Raises Refused, or any error of torch, where the step
    cannot be recorded, or where what was compiled gives other numbers."""

    def __init__(self, work: Work, state: State, compiler: Compiler):
        self.calls = 0
        self._inputs = _Inputs(work)
        tensors = self._inputs.of(work)
        versions = [t._version for t in tensors if isinstance(t, nn.Parameter)]
        with Watched():
            expected = work.run()
        self.rounds_as = rounding.coarsest({expected.rounds_as})
        if expected.answer.method in ("per_example", "double_backward"):
            raise Refused(f"fastrw.compile: scores must come from one pass, got {expected.answer.method}")
        if versions != [t._version for t in tensors if isinstance(t, nn.Parameter)]:
            raise Refused("fastrw.compile: a forward must not write to parameters, got one that does")
        state.rewind()
        self._plan = expected.answer.plan
        graph = traced(self._recorded(work), _distinct(tensors))
        state.rewind()
        self.random = draws_random_numbers(graph)
        if compiler.replays:  # what lasts is read where it lies; all else is copied for a replay
            buffers = _buffers(work.problem)
            for t in tensors:
                if isinstance(t, nn.Parameter) or id(t) in buffers:
                    torch._dynamo.mark_static_address(t, guard=False)
        self._function, self.by = compiler(graph), compiler.name
        try:
            found = self.run(work)
        except Unlike:  # even here, where it was learned: a formula asked for a number, and was told no
            raise Refused("fastrw.compile: nothing in a step may depend on numbers, got one in which it does") from None
        state.rewind()
        if not self.random and not agree(found, expected, self.rounds_as):
            raise Refused("fastrw.compile: a compiled step must give the numbers of the step as written, got others")
        if compiler.name == "inductor" and work.device.type == "cpu":
            with self._values_only(work):  # its convolutions and norms may be slower than torch's own
                self._function = fastest((self._function, graph), tensors)
            state.rewind()
            self.by = "the recorded graph" if self._function is graph else self.by

    @staticmethod
    @contextmanager
    def _values_only(work: Work) -> Iterator[None]:
        """Casts are in the graph."""
        with torch.no_grad(), torch.autocast(work.device.type, enabled=False):
            yield

    def _recorded(self, work: Work) -> Callable[..., list]:
        def function(*tensors: Tensor) -> list:
            found = self._inputs.put(work, tensors).run(self._plan)
            at, answer = {id(t): i for i, t in enumerate(tensors)}, found.answer
            self._leaves = [at[id(leaf)] for leaf, _ in answer.gradients]
            self._outputs = [None if isinstance(t, Tensor) else t for t in found.outputs]
            self._answer = replace(answer, gradients=[], sound=None)
            self._has = found.val_loss is not None, answer.sound is not None
            scalars = [t for t in (found.val_loss, answer.sound) if t is not None]
            outputs = [t for t in found.outputs if isinstance(t, Tensor)]
            return [found.losses, answer.scores, answer.weights, *scalars, *(g for _, g in answer.gradients), *outputs]

        return function

    def run(self, work: Work) -> Found:
        """Raises Unlike where numbers decide otherwise than in the compiled step: state is then as after a forward."""
        tensors = self._inputs.of(work)
        with self._values_only(work):
            losses, scores, weights, *rest = self._function(*tensors)
        rest, (has_val, has_verdict) = iter(rest), self._has
        val_loss = next(rest) if has_val else None
        if has_verdict and not Later(next(rest)).value():
            raise Unlike(
                "fastrw.compile: a batch must be like those before it, got one that is not finite, or whose rows lie "
                "in another order"
            )
        gradients = [(tensors[i], next(rest)) for i in self._leaves]
        outputs = tuple([next(rest, x) if x is None else x for x in self._outputs])
        answer = replace(self._answer, scores=scores, weights=weights, gradients=gradients)
        return Found(answer, losses, val_loss, outputs)


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Where one tensor comes twice (a batch that validates itself), a copy: they are told apart by identity."""
    seen: set[int] = set()
    found = []
    for t in tensors:
        found.append(t.clone() if id(t) in seen else t)
        seen.add(id(t))
    return found


def agree(found: Found, expected: Found, kind: torch.dtype) -> bool:
    """Are these the same scores and the same gradient, up to rounding in `kind`?"""
    a, b = found.answer, expected.answer
    gradients = dict(b.gradients)
    if [leaf for leaf, _ in a.gradients if leaf not in gradients] or len(a.gradients) != len(gradients):
        return False
    if not torch.equal(a.scores.isfinite(), b.scores.isfinite()):
        return False
    scores = [torch.where(s.isfinite(), s, 0) for s in (a.scores, b.scores)]
    pairs = [[(g.to_dense(), gradients[leaf].to_dense()) for leaf, g in a.gradients], [(scores[0], scores[1])]]
    return all(
        _norm([x - y for x, y in some]) <= rounding.RELATIVE[kind] * _norm([y for _, y in some]) for some in pairs
    )


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([torch.linalg.vector_norm(t.double()) for t in tensors]).norm()) if tensors else 0.0
