"""Which steps are compiled, and what happens to the others: they run eagerly, and say why.

The first step of a kind runs eagerly: it tells whether the batches can be joined. From the second on it is compiled
(`api/compiled_step.py`). In the 2nd, 4th, 8th ... compiled step of a kind, the step is made eagerly too, checked
against an example's own gradient, and compared; its numbers are then the eager ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit

from fastrw.api.compiled_step import CompiledStep, Digest, Found, Unlike, Work
from fastrw.api.dynamo import Capture, Forward
from fastrw.api.evaluate import Pause, assemble, known_batch
from fastrw.api.options import Options
from fastrw.api.problem import Problem
from fastrw.engine.ordinary import accumulate
from fastrw.engine.report import Compilation, Step
from fastrw.engine.traced import Compiler
from fastrw.errors import ForThisBatch, Refused, reason
from fastrw.state.batches import examples
from fastrw.state.snapshot import State

UNKNOWN = "fastrw.compile: a first step of its kind tells if the batches can be joined, got one"
PAUSED = "fastrw.compile: batches must be like one another, got one lately that was not"
OTHERS = "fastrw.compile: a compiled step must give the numbers of an eager one, got others"
KINDS = 8  # the most compiled steps: as many as torch.compile compiles of one function
MANY = f"fastrw.compile: steps must be of few kinds and shapes, got more than {KINDS} (pad the batches)"


def compiled_steps(compile: Any, mode: Any, dynamic: Any, options: Any) -> CompiledSteps:
    """Raises TypeError or ValueError where an argument is not one of torch.compile."""
    rule = 'fastrw.Reweighter: compile must be True, False, "auto" or a backend of torch.compile'
    backend = "inductor" if compile is True else compile
    if not (isinstance(backend, str) or callable(backend)):
        raise TypeError(f"{rule}, got {backend!r}")
    if isinstance(backend, str) and backend not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise ValueError(f"{rule} ({', '.join(known)}), got {backend!r}")
    if mode is not None and mode not in (modes := torch._inductor.list_mode_options()):
        raise ValueError(f"fastrw.Reweighter: mode must be one of {', '.join(modes)}, got {mode!r}")
    if not isinstance(dynamic, bool | None):
        raise TypeError(f"fastrw.Reweighter: dynamic must be None, True or False, got {dynamic!r}")
    if not isinstance(options, dict | None):
        raise TypeError(f"fastrw.Reweighter: options must be None or a dict, got {type(options).__name__}")
    if mode is not None and options is not None:
        raise ValueError(f"fastrw.Reweighter: give mode or options, not both, got {mode!r} and {options!r}")
    return CompiledSteps(Compiler(backend, mode, options), bool(dynamic))


class CompiledSteps:
    """The compiled steps of a `Reweighter`."""

    def __init__(self, compiler: Compiler, dynamic: bool):
        self._compiler, self._capture = compiler, Capture(dynamic)
        self._steps: dict[Hashable, CompiledStep] = {}
        self._not: dict[Hashable, str] = {}  # kind of call -> why it is not compiled
        self._functions: dict[Hashable, Callable] = {}
        self._pauses: dict[Hashable, Pause] = {}
        self._seconds = 0.0

    def step(self, problem: Problem, state: State, options: Options, eager: Callable[[], Step]) -> Step:
        """Adds to `.grad`. eager: makes the step in another way."""
        return self._made(problem, state, options, eager, *known_batch(problem, options))

    def plain(self, problem: Problem, state: State, options: Options, eager: Callable[[], Step]) -> Step:
        """The same, with w_i = 1/n."""
        return self._made(problem, state, options, eager, True, None, plain=True)

    def _made(self, problem: Problem, state: State, options: Options, eager: Callable[[], Step], known: bool,
              joined: Any, plain: bool = False) -> Step:  # fmt: skip
        kind = plain, joined is None, options.update, tuple([m.training for m in problem.modules.values()])
        why = self._not.get(kind) or _hooked(problem) or ("" if known else UNKNOWN)
        pause = self._pauses.setdefault(kind, Pause())
        if not why and not pause.is_over():
            why = PAUSED
        lasting, found = False, None
        if not why:
            try:
                found, step = self._computed(problem, state, options, joined, plain)
                if options.recheck and not plain and step.calls > 1 and step.calls & (step.calls - 1) == 0:
                    digest, found = Digest.of(found.answer), None  # its gradients are freed
                    state.rewind()
                    eager_one = assemble(problem, state, replace(options, check=True))
                    found = Found(eager_one.answer, eager_one.losses, eager_one.val_loss, (), step.rounds_as)
                    if not (step.random or digest.agrees(Digest.of(found.answer), step.rounds_as)):
                        why, lasting = OTHERS, True
                pause.length = 0
            except torch.OutOfMemoryError:
                raise
            except Unlike as error:
                state.rewind()
                pause.begin()
                why = str(error)
            except (ForThisBatch, FailOnRecompileLimitHit) as error:
                state.rewind()
                found, why = None, str(error) if isinstance(error, ForThisBatch) else MANY
            except Exception as error:  # of Dynamo, of the compiler, of the model where it is traced
                state.rewind()
                found, why, lasting = None, reason(error), True
        if found is None:
            out = eager()
        else:
            accumulate(found.answer.gradients)
            out = _step(found)
        if lasting:  # by now it is known that an eager step does not raise, too
            self._not[kind] = why
        out.compilation = Compilation(not why, len(self._steps), self._seconds, why, "" if why else step.by)
        return out

    def _computed(self, problem: Problem, state: State, options: Options, joined: Any, plain: bool
                  ) -> tuple[Found, CompiledStep]:  # fmt: skip
        if joined is not None or options.update == "assembled":
            options = replace(options, method="layerwise")
        n = None if joined is None else examples(problem.batch)
        forwards: list[Forward] = []
        done: list[tuple[Found, CompiledStep]] = []

        def only_captured(forward: Forward) -> tuple:
            forwards.append(forward)
            return forward.blanks()

        def computed(forward: Forward) -> tuple:
            done.append(self._by_a_graph(Work(problem, options, (*forwards, forward), n, plain), state))
            return done[0][0].outputs

        if joined is None and not plain:
            self._captured(only_captured, problem, problem.val_batch)
        self._captured(computed, problem, problem.batch if joined is None else joined)
        if not done:
            raise ForThisBatch("fastrw.compile: torch.compile must compile, got one that is switched off")
        if joined is not None and done[0][1].calls == 1 and state.moved():
            raise Refused("fastrw.compile: a joined batch must change nothing, got a forward that changes attributes")
        return done[0]

    def _captured(self, run: Callable[[Forward], tuple], problem: Problem, batch: Any) -> None:
        function = problem.function(batch)
        if isinstance(function, partial):  # made anew in each call: Dynamo would take it for another
            function = self._functions.setdefault(function.args[1:], function)
            batch = dict(batch) if isinstance(batch, Mapping) else batch
        self._capture(run, function, problem.model, batch)

    def _by_a_graph(self, work: Work, state: State) -> tuple[Found, CompiledStep]:
        key = work.key()
        step = self._steps.get(key)
        if step is None:
            if len(self._steps) >= KINDS:
                raise ForThisBatch(MANY)
            if state.moved():
                raise Refused("fastrw.compile: a forward must leave attributes as they are, got one that changes some")
            started = time.perf_counter()
            step = self._steps[key] = CompiledStep(work, state, self._compiler)
            self._seconds += time.perf_counter() - started
        step.calls += 1
        return step.run(work), step


def _hooked(problem: Problem) -> str:
    for name, p in problem.structure.parameters.items():
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            return f"fastrw.compile: parameters must have no hooks, got one on {name}"
    return ""


def _step(found: Found) -> Step:
    if found.val_loss is None:
        return Step.plain(found.losses)
    return found.answer.step(found.losses, found.val_loss)
