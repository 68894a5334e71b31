"""A whole step as one CUDA graph: Python runs once, then the GPU repeats the step without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastrw.api.evaluate import Assembled
from fastrw.api.problem import Problem
from fastrw.errors import ForThisBatch, Refused
from fastrw.nodes.precision import told
from fastrw.state.snapshot import RandomState, State

Run = Callable[[Problem, State], Assembled]

WARMUP_STEPS = 2  # of one kind, run eagerly: the first measures and compiles, the second finds the plan cached
KINDS = 8  # the most graphs; each holds the memory of a step


class CudaGraph:
    """Records the kernels that a function launches, and launches them again."""

    def __init__(self, device: torch.device):
        if device.type != "cuda":
            raise ValueError(f"fastrw.Reweighter: capture=True needs the model on a CUDA device, got {device}")
        self._device, self._graph = device, torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], Assembled]) -> Assembled:
        """Computes nothing yet. Raises RuntimeError if the function waits for the GPU."""
        # thread_local: data loaders may pin memory in other threads meanwhile
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            return run()

    def replay(self) -> None:
        self._graph.replay()


class Captured:
    """One kind of step: static copies of both batches, and the graph that reads them."""

    def __init__(self, problem: Problem, run: Run, graph: CudaGraph):
        self._inputs, trees = zip(*map(tree_flatten, (problem.batch, problem.val_batch)), strict=True)
        self._inputs = [[t.clone() if isinstance(t, Tensor) else t for t in leaves] for leaves in self._inputs]
        problem.batch, problem.val_batch = map(tree_unflatten, self._inputs, trees)
        buffers = [id(b) for module in problem.modules.values() for b in module._buffers.values()]
        autocast = torch.autocast(
            "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
        )
        try:
            with autocast:  # a cached cast of a weight would lie in the graph's memory
                self._found = graph.record(lambda: run(problem, problem.state()))
        except RuntimeError as error:
            raise Refused(
                "fastrw.capture: a captured step must not wait for the GPU, got " + str(error).partition("\n")[0]
            ) from error
        if buffers != [id(b) for module in problem.modules.values() for b in module._buffers.values()]:
            raise Refused("fastrw.capture: a captured forward must keep its buffers, got one that was replaced")
        self._graph = graph

    def step(self, problem: Problem) -> Assembled:
        for inputs, batch in zip(self._inputs, (problem.batch, problem.val_batch), strict=True):
            for own, given in zip(inputs, tree_flatten(batch)[0], strict=True):
                if isinstance(own, Tensor):
                    own.copy_(given, non_blocking=True)
        self._graph.replay()
        found, answer = self._found, self._found.answer
        gradients = [(p, g.clone()) for p, g in answer.gradients]
        answer = replace(answer, scores=answer.scores.clone(), weights=answer.weights.clone(), gradients=gradients)
        return Assembled(answer, found.losses.clone(), found.val_loss.clone())


class Graphs:
    """Steps of a model by kind: the first of each run eagerly, the others are replayed."""

    def __init__(self, make: Callable[[torch.device], Any] = CudaGraph):
        self._make = make
        self._runs: dict[tuple, int] = {}
        self._captured: dict[tuple, Captured] = {}

    def step(self, problem: Problem, state: State, run: Run) -> Assembled:
        """The result of `run(problem, state)`. Raises Refused if such a step cannot be repeated without Python."""
        device = next(iter(problem.params.values())).device
        kind = kind_of(problem)
        if kind not in self._captured:
            graph = self._make(device)
            if (runs := self._runs.get(kind, 0)) < WARMUP_STEPS:
                before = RandomState(device)
                found = run(problem, state)
                if before.moved():
                    raise Refused("fastrw.capture: a captured step must draw no random numbers, got a model that does")
                if found.answer.trusted:
                    self._runs[kind] = runs + 1
                return found
            if len(self._captured) >= KINDS:
                raise ForThisBatch(
                    f"fastrw.capture: batches must have few shapes, got a {KINDS + 1}th kind of step (pad them, or "
                    "use capture=False)"
                )
            self._captured[kind] = Captured(problem, run, graph)
        return self._captured[kind].step(problem)


def kind_of(problem: Problem) -> tuple:
    """What a graph depends on: shapes of both batches, modes of the model, addresses of its tensors, and settings of
    precision."""
    batches = []
    for batch in (problem.batch, problem.val_batch):
        leaves, tree = tree_flatten(batch)
        batches.append((str(tree), tuple(_shape(leaf) for leaf in leaves)))
    modules = problem.modules.values()
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    places = tuple((t.data_ptr(), t.dtype, t.requires_grad) for t in tensors)
    cast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), told(torch.device("cuda"))
    losses = fingerprint(problem.loss_fn), fingerprint(problem.losses_fn)
    return losses, tuple(map(id, problem.params.values())), *batches, tuple(m.training for m in modules), places, cast


def _shape(leaf: Any) -> Any:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else repr(leaf)


def fingerprint(value: Any, outer: tuple = ()) -> Any:
    """What a graph depends on in a loss function: its code, and the plain values bound to it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        bound = [value.func, *value.args, *value.keywords.values()]
        return tuple(fingerprint(one, outer) for one in bound)
    if isinstance(value, FunctionType) and value not in outer:  # it may be bound to itself
        held = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        bound = [*held, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return (value.__code__, *(fingerprint(one, (*outer, value)) for one in bound))
    return (type(value), id(value))
