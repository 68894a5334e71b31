"""A forward as torch.compile captures it: a graph of torch functions, with guards on all that Python read for it.

torch.compile's frontend (Dynamo) runs the user's Python once, and again where a guard finds that it would do something
else: other shapes, other modes, another attribute. Of its backend, which is usually a compiler, this makes a stop: what
is to be done with the graph of the forward and its inputs is for the caller to say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

_thread = threading.local()  # .marked: the losses of the forward that is running


@torch.compiler.allow_in_graph
def _marked(losses: Tensor) -> Tensor:
    """A node of the graph, so that the losses are known among its results."""
    _thread.marked = losses
    return losses.detach()


def _losses(function: Callable, model: Any, batch: Any) -> Tensor:
    return _marked(function(model, batch))


class Forward(NamedTuple):
    """A captured forward in one call. inputs: the tensors that it reads (parameters, buffers, the batch), and dynamic
    sizes."""

    graph: fx.GraphModule
    inputs: tuple

    def losses(self) -> tuple[Tensor, tuple]:
        """The losses, with their graph; and all results, which Dynamo's code expects."""
        _thread.marked = None
        outputs = self.graph(*self.inputs)
        losses, _thread.marked = _thread.marked, None
        return losses, tuple(outputs)

    def blanks(self) -> tuple:
        """In place of results that nobody reads."""
        return (None,) * len(next(iter(reversed(self.graph.graph.nodes))).args[0])

    def sizes(self) -> tuple:
        """What else its computation depends on, where sizes are dynamic: Dynamo guards all others."""
        if not any(isinstance(x, int) for x in self.inputs):
            return ()
        return tuple([(x.shape, x.stride()) if isinstance(x, Tensor) else x for x in self.inputs])


class Capture:
    """`capture(run, function, model, batch)` calls `run(forward)` for the forward that computes
    function(model, batch) = losses, and then does what else the user's Python does. dynamic: one capture for all
    sizes."""

    def __init__(self, dynamic: bool):
        # torch keeps what it compiled, and counts it, by code: a code of its own for each
        own = FunctionType(_losses.__code__.replace(), globals(), _losses.__name__)
        self._function = torch.compile(own, backend=self._stop, fullgraph=True, dynamic=dynamic)
        self._run: Callable[[Forward], tuple] | None = None

    def __call__(self, run: Callable[[Forward], tuple], function: Callable, model: Any, batch: Any) -> None:
        self._run = run
        try:
            with torch.enable_grad():
                self._function(function, model, batch)
        finally:
            self._run = _thread.marked = None

    def _stop(self, graph: fx.GraphModule, inputs: list) -> Callable[..., tuple]:
        def call(*inputs: Any) -> tuple:
            assert self._run is not None
            return self._run(Forward(graph, inputs))

        return call
