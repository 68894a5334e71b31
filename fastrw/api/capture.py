"""A whole step as one CUDA graph: Python runs once, then the GPU repeats the step without it.

What numbers decide, a graph cannot ask for: it says whether they are such that its result is right (`Result.sound`).
Where they are not, the step is undone, and run eagerly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastrw.api.evaluate import Pause, assemble, evaluate, validation_gradient
from fastrw.api.kinds import device_of, given_to, kind_of
from fastrw.api.problem import Problem
from fastrw.api.repeated import Reads, beyond_kernels
from fastrw.engine.later import Later, every
from fastrw.engine.ordinary import accumulate, averaged_gradient, weighted_gradient
from fastrw.engine.per_example import METHODS
from fastrw.engine.report import Step
from fastrw.engine.request import Options
from fastrw.errors import ForThisBatch, Refused, Unlearned
from fastrw.graph.saved import address
from fastrw.nodes.precision import uncached_autocast
from fastrw.state.copies import copies, put_back
from fastrw.state.held import PLAIN
from fastrw.state.snapshot import State

WARMUP_STEPS = 2  # of one kind, run eagerly: the first measures and compiles, the second finds the plan cached
KINDS = 8  # the most graphs; each holds the memory of a step
SEEN = 64  # the most kinds of which anything is known
Gradients = list[tuple[Tensor, Tensor]]


@dataclass
class Recorded:
    """What a step gives, in the memory of its graph."""

    out: Step
    gradients: Gradients
    sound: Tensor | None = None  # 0-d: is it right? None: whatever the numbers are
    before: Gradients = field(default_factory=list)  # (tensor that it may write, its value before)
    reads: Any = None  # holds tensors that the graph reads


Run = Callable[[Problem, State, Options], Recorded]


def plain(problem: Problem, state: State, options: Options) -> Recorded:
    """An ordinary step."""
    losses = problem.losses(problem.batch)
    return Recorded(Step.plain(losses.detach()), averaged_gradient(losses, options.scaling, options.scale))


def reweighted(problem: Problem, state: State, options: Options) -> Recorded:
    """A step of Algorithm 1, without reading numbers if `options.deferred`."""
    if options.update == "backward":
        V = validation_gradient(problem, state, options.scaling)
        answer, losses = evaluate(problem, state, options, keep_graph=True, V=V)
        gradients = weighted_gradient(losses, answer.weights, options.scaling, options.scale, retain=False)
        flags = [answer.scores.isfinite().all(), *([] if answer.sound is None else [answer.sound])]  # 0 * nan
        return Recorded(answer.step(losses.detach(), problem.val_loss), gradients, every(flags), reads=answer.plan)
    found = assemble(problem, state, options)
    answer = found.answer
    return Recorded(answer.step(found.losses, found.val_loss), answer.gradients, answer.sound, reads=answer.plan)


def repeatable(state: State, problem: Problem, method: str, read: Collection[int | None] | None = ()) -> None:
    """Raises Refused where a step that began with this state cannot be repeated without Python. read: the memory that
    it read, as far as that is known; None: what it changed is not compared (by the first, much is made to last)."""
    rule = "fastrw.capture: a captured step must"
    if state.drawn():
        raise Refused(f"{rule} draw no random numbers, got a model that does")
    if method in METHODS:
        raise Refused(f"{rule} be one backward, got a model that is scored by method={method!r}")
    name = None if read is None else beyond_kernels(state, device_of(problem), read)
    if name is not None:
        raise Refused(
            f"{rule} change nothing but tensors, in place and on the GPU, got a forward that changes {name!r}"
        )


class CudaGraph:
    """Records the kernels that a function launches, and launches them again."""

    def __init__(self, device: torch.device):
        if device.type != "cuda":
            raise ValueError(f"fastrw.Reweighter: capture=True needs the model on a CUDA device, got {device}")
        self._device, self._graph = device, torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], Recorded]) -> Recorded:
        """Computes nothing yet. Raises RuntimeError if the function waits for the GPU."""
        # thread_local: data loaders may pin memory in other threads meanwhile
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            return run()

    def replay(self) -> None:
        self._graph.replay()

    def wait(self) -> None:
        """Until the last replay has read what is on the host."""
        torch.cuda.current_stream(self._device).synchronize()


class Captured:
    """One kind of step: static copies of what it is given (both batches, a scaler's factor), and the graph that reads
    them."""

    def __init__(self, problem: Problem, options: Options, run: Run, graph: CudaGraph):
        leaves, tree = tree_flatten(given_to(problem, options))
        self._inputs = [_own(t) if isinstance(t, Tensor) else t for t in leaves]
        device = device_of(problem)
        host = {address(t) for t in self._inputs if isinstance(t, Tensor) and t.device.type != device.type}
        self._on_host = bool(host)
        # what it holds keeps the ids and addresses that its kind is known by
        self._problem = problem = copy.copy(problem)
        problem.batch, problem.val_batch, scaling = tree_unflatten(self._inputs, tree)
        options = replace(options, scaling=scaling, scale=1.0, deferred=True)

        def once() -> Recorded:
            state = problem.state(whole=False)
            with Reads(host) as reads:
                found = run(problem, state, options)
            if reads.from_host:
                raise Refused(
                    "fastrw.capture: a captured step must read its batch on the GPU, got a tensor on the host"
                )
            repeatable(state, problem, found.out.method, reads.places)
            found.before = state.copied()
            return found

        buffers = _buffers(problem)
        try:
            with uncached_autocast("cuda"):  # a cached cast of a weight would lie in the graph's memory
                self._found = graph.record(once)
        except RuntimeError as error:
            raise Refused(
                "fastrw.capture: a captured step must not wait for the GPU, got " + str(error).partition("\n")[0]
            ) from error
        if [*map(id, buffers)] != [*map(id, _buffers(problem))]:
            raise Refused("fastrw.capture: a captured forward must keep its buffers, got one that was replaced")
        self._graph = graph
        self._attributes = [(vars(module), [*vars(module).values()]) for module in problem.modules.values()]

    def as_recorded(self) -> bool:
        """Are the attributes of all modules what they were? A graph does not read them again."""
        return all(
            len(now) == len(before) and (all(map(is_, now.values(), before)) or all(map(_equal, now.values(), before)))
            for now, before in self._attributes
        )

    def step(self, problem: Problem, options: Options) -> Step | None:
        """None if it is not right for this batch: it is undone."""
        if self._on_host:
            self._graph.wait()
        with torch.no_grad():
            for own, given in zip(self._inputs, tree_flatten(given_to(problem, options))[0], strict=True):
                if isinstance(own, Tensor):
                    own.copy_(given, non_blocking=True)
        self._graph.replay()
        found, out = self._found, self._found.out
        try:
            sound = None if found.sound is None else Later(found.sound)
            names = [name for name in ("weights", "losses", "scores", "val_loss") if getattr(out, name) is not None]
            values = copies([*(getattr(out, name) for name in names), *(g for _, g in found.gradients)])
            gradients = values[len(names) :]
            if options.scale != 1:
                gradients = [g * options.scale for g in gradients]
            if sound is not None and not sound.value():
                put_back(found.before)
                return None
            accumulate([(leaf, g) for (leaf, _), g in zip(found.gradients, gradients, strict=True)])
        except BaseException:
            put_back(found.before)
            raise
        kept: dict[str, Any] = dict(zip(names, values, strict=False))
        return replace(out, **kept)


@dataclass
class _Kind:
    """Steps that one graph repeats."""

    steps: int = 0
    captured: Captured | None = None
    pause: Pause = field(default_factory=Pause)  # eager steps after one that could not be repeated


class Graphs:
    """Steps of a model by kind: the first of each run eagerly, the others are replayed."""

    def __init__(self, make: Callable[[torch.device], Any] = CudaGraph):
        self._make = make
        self._kinds: dict[tuple, _Kind] = {}

    def step(self, problem: Problem, options: Options, run: Run) -> Step | None:
        """Does what `run` does, and adds its gradients to `.grad`. None: this step has to run eagerly. Raises Refused
        if such a step cannot be repeated without Python."""
        if len(self._kinds) > SEEN:
            self._kinds = {key: kind for key, kind in self._kinds.items() if kind.captured is not None}
        kind = self._kinds.setdefault((run, *kind_of(problem, options)), _Kind())
        kind.steps += 1
        graph: Any = self._make(device_of(problem)) if kind.captured is None else None
        if kind.steps <= WARMUP_STEPS or not kind.pause.is_over():
            return None
        if kind.captured is None:
            try:
                kind.captured = self._record(problem, options, run, graph)
            except Unlearned:
                kind.pause.begin()
                return None
            return kind.captured.step(problem, options)
        changed = not kind.captured.as_recorded()
        out = None if changed else kind.captured.step(problem, options)
        if out is not None:
            kind.pause.length = 0
            return out
        if changed or kind.pause.length:  # or not the first in a row: things are no longer as they were
            kind.captured = None
        kind.pause.begin()
        return None

    def _record(self, problem: Problem, options: Options, run: Run, graph: CudaGraph) -> Captured:
        if sum(kind.captured is not None for kind in self._kinds.values()) >= KINDS:
            raise ForThisBatch(
                f"fastrw.capture: batches must have few shapes, got a {KINDS + 1}th kind of step (pad them, or "
                "use capture=False)"
            )
        state = problem.state()
        try:
            return Captured(problem, options, run, graph)
        except BaseException:
            state.undo()
            raise


def _buffers(problem: Problem) -> list[Tensor | None]:
    return [b for module in problem.modules.values() for b in module._buffers.values()]


def _own(t: Tensor) -> Tensor:
    """A copy, in pinned memory too."""
    return t.detach().clone().pin_memory() if t.device.type == "cpu" and t.is_pinned() else t.detach().clone()


def _equal(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and type(a) in PLAIN and a == b)
