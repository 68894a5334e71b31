"""Any computation with tensors as one graph: it runs once, below autograd, and every operation is recorded; and what
compiles such graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from fastrw.errors import Refused
from fastrw.ops import backends

NOTHING = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)  # where no graph of autograd is made
ROUNDS = 3


class Watched(TorchDispatchMode):
    """A mode that watches operations, and lets them be. Under one, and so while it records, torch makes some of them in
    another way (a reshape is a view)."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return function(*args, **(kwargs or {}))


def traced(function: Callable[..., list], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """`function(*tensors)` as a graph of torch's operations and those of `torch.ops.fastrw`, the backwards in it
    included. It runs for real: what it changes is changed. Raises torch's RuntimeError where it reads a number."""
    torch.clear_autocast_cache()  # a cast of a weight that is cached would be a constant
    with torch.no_grad(), backends.fused():
        graph = make_fx(function)(*tensors)
    constants = (getattr(graph, str(node.target)) for node in graph.graph.nodes if node.op == "get_attr")
    for t in constants:  # what was learned is of integers: an owner of each row
        if isinstance(t, Tensor) and t.is_floating_point() and t.numel() > 1:
            raise Refused(f"fastrw.compile: numbers must be inputs of a step, got a constant {tuple(t.shape)}")
    for node in graph.graph.nodes:
        if node.target in NOTHING:
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def fastest(functions: Sequence[Callable], tensors: Sequence[Tensor]) -> Callable:
    """That of least time in a few rounds on a CPU."""
    times: dict[Callable, list[float]] = {function: [] for function in functions}
    for _ in range(ROUNDS):
        for function in functions:
            started = time.perf_counter()
            function(*tensors)
            times[function].append(time.perf_counter() - started)
    return min(functions, key=lambda function: min(times[function]))


def draws_random_numbers(graph: fx.GraphModule) -> bool:
    tags = (getattr(node.target, "tags", ()) for node in graph.graph.nodes)
    return any(torch.Tag.nondeterministic_seeded in some for some in tags)


class Compiler:
    """torch.compile with these arguments, for graphs of aten operations."""

    def __init__(self, backend: Any = "inductor", mode: str | None = None, options: dict | None = None):
        self._arguments = {"backend": backend, "mode": mode, "options": options}
        self.name = backend if isinstance(backend, str) else getattr(backend, "compiler_name", type(backend).__name__)
        chosen = options or getattr(backend, "config", None)  # of a compiled model: with its mode in it
        replays = isinstance(chosen, dict) and chosen.get("triton.cudagraphs")
        self.replays = mode in ("reduce-overhead", "max-autotune") or bool(replays)

    def __call__(self, graph: fx.GraphModule) -> Callable:
        return torch.compile(graph, fullgraph=True, dynamic=False, **self._arguments)
