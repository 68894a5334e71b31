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
from fastrw.api.kinds import device_of
from fastrw.api.options import Options
from fastrw.api.problem import Problem
from fastrw.engine import rounding
from fastrw.engine import run as engine
from fastrw.engine.later import Later
from fastrw.engine.ordinary import averaged_gradient
from fastrw.engine.per_example import METHODS
from fastrw.engine.request import Result
from fastrw.engine.traced import Compiler, Watched, draws_random_numbers, fastest, traced
from fastrw.errors import ForThisBatch, Refused
from fastrw.nodes.base import wide
from fastrw.nodes.precision import told, uncached_autocast
from fastrw.state.copies import copies
from fastrw.state.snapshot import State


class Unlike(ForThisBatch):
    """A step whose numbers do not allow what was compiled."""


class Found(NamedTuple):
    """What a step computes."""

    answer: Result
    losses: Tensor  # [n]
    val_loss: Tensor | None  # 0-d; None in a plain step
    outputs: tuple  # all results of the training forward
    rounds_as: torch.dtype  # the coarsest of its numbers; that of the losses in a pass that reads none


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

    def key(self) -> Hashable:
        """What the graph of the step depends on, besides what Dynamo guards."""
        options, forwards = self.options, tuple([(forward.graph, forward.sizes()) for forward in self.forwards])
        selected = frozenset(map(id, self.problem.params.values()))
        return (forwards, self.n, self.plain, selected, options.method, options.update, options.scaling is None,
                options.scale == 1, told(device_of(self.problem)))  # fmt: skip

    def run(self, plan: Any = None) -> Found:
        """By the engine. plan: that of a run before, for one in which no number is read."""
        with torch.enable_grad(), uncached_autocast(device_of(self.problem).type):
            apart = self._unwritten(self.forwards[0]) if len(self.forwards) == 2 else None
            losses, outputs = self.forwards[-1].losses()  # first: its random draws are those of an ordinary step
            if self.n is not None:
                losses, val = losses[: self.n], losses[self.n :]
            elif apart is not None:
                val, _ = apart.losses()
            if self.plain:
                answer = _averaged(losses, self.options)
                return Found(answer, losses.detach(), None, outputs, losses.dtype)
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
    """Of a plain step."""
    return Result(losses.detach(), losses.detach(), averaged_gradient(losses, options.scaling, options.scale), "plain")


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
            found.append(torch.full((), float(work.options.scale), dtype=torch.float64, device=device_of(work.problem)))
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
        if expected.answer.method in METHODS:
            raise Refused(f"fastrw.compile: scores must come from one pass, got {expected.answer.method}")
        if versions != [t._version for t in tensors if isinstance(t, nn.Parameter)]:
            raise Refused("fastrw.compile: a forward must not write to parameters, got one that does")
        state.rewind()
        self._plan, self.rounds_as = expected.answer.plan, expected.rounds_as
        digest = Digest.of(expected.answer)
        del expected  # its gradients are freed
        graph = traced(self._recorded(work), _distinct(tensors))
        state.rewind()
        self.random = draws_random_numbers(graph)
        if compiler.replays:  # what lasts is read where it lies; all else is copied for a replay
            buffers = _buffers(work.problem)
            for t in tensors:
                if isinstance(t, nn.Parameter) or id(t) in buffers:
                    torch._dynamo.mark_static_address(t, guard=False)
        self._function, self.by, self._replays = compiler(graph), compiler.name, compiler.replays
        on_cpu = compiler.name == "inductor" and device_of(work.problem).type == "cpu"
        right = self._gives(digest, work, state)
        if right and on_cpu:
            with self._values_only(work):  # its convolutions and norms may be slower than torch's own
                self._function = fastest((self._function, graph), tensors)
            state.rewind()
        elif on_cpu:  # or they may round too much: those of a deep ResNet with BatchNorm do in torch 2.14
            self._function = graph
            right = self._gives(digest, work, state)
        if not right:
            raise Refused("fastrw.compile: a compiled step must give the numbers of the step as written, got others")
        self.by = "the recorded graph" if self._function is graph else self.by

    def _gives(self, digest: Digest, work: Work, state: State) -> bool:
        """Does it give this step, up to rounding?"""
        try:
            found = Digest.of(self.run(work).answer)
        except Unlike:  # even here, where it was learned: a formula asked for a number, and was told no
            raise Refused("fastrw.compile: nothing in a step may depend on numbers, got one in which it does") from None
        state.rewind()
        return self.random or found.agrees(digest, self.rounds_as)

    @staticmethod
    @contextmanager
    def _values_only(work: Work) -> Iterator[None]:
        """Casts are in the graph."""
        with torch.no_grad(), torch.autocast(device_of(work.problem).type, enabled=False):
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
            values = self._function(*tensors)
        if self._replays:  # the next replay of a CUDA graph writes where this one did
            values = copies(values)
        losses, scores, weights, *rest = values
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
        return Found(answer, losses, val_loss, outputs, self.rounds_as)


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Where one tensor comes twice (a batch that validates itself), a copy: they are told apart by identity."""
    seen: set[int] = set()
    found = []
    for t in tensors:
        found.append(t.clone() if id(t) in seen else t)
        seen.add(id(t))
    return found


class Digest(NamedTuple):
    """Of a step, so that two can be compared which are not in memory at once."""

    scores: Tensor  # [n]
    gradients: dict[int, Tensor]  # id of a leaf -> [2]: the norm of its gradient, and its product with a wave of norm 1

    @classmethod
    def of(cls, answer: Result) -> Digest:
        return cls(answer.scores, {id(leaf): _numbers(wide(g).reshape(-1)) for leaf, g in answer.gradients})

    def agrees(self, other: Digest, kind: torch.dtype) -> bool:
        """Are these the same scores and the same gradient, up to rounding in `kind`?"""
        a, b = self.scores, other.scores
        if self.gradients.keys() != other.gradients.keys() or not torch.equal(a.isfinite(), b.isfinite()):
            return False
        pairs = [[torch.where(s.isfinite(), s, 0) for s in (a, b)]]
        if self.gradients:
            pairs.append([torch.stack([d.gradients[leaf] for leaf in self.gradients]) for d in (self, other)])
        return all(bool((x - y).norm() <= rounding.RELATIVE[kind] * y.norm()) for x, y in pairs)


def _numbers(g: Tensor) -> Tensor:
    g = torch.view_as_real(g).reshape(-1) if g.is_complex() else g
    wave = torch.arange(1, len(g) + 1, dtype=g.dtype, device=g.device).sin()
    return torch.stack([torch.linalg.vector_norm(g), wave @ g / torch.linalg.vector_norm(wave).clamp(min=1)])
