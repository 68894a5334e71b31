"""A node that runs a nested backward (reentrant checkpointing, reversible layers) hides the parameters inside from the
graph and writes their `.grad`. Only running it shows this, so it is stopped there, before anything is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.autograd.variable import Variable

from fastrw.errors import Refused

WAY_OUT = "give torch.utils.checkpoint use_reentrant=False; a reversible layer needs a plain forward"


class _Engine:
    """torch's engine, except that a nested backward must not accumulate into `.grad`."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run_backward(self, *args, **kwargs):
        if kwargs.get("accumulate_grad") and torch._C._current_graph_task_id() != -1:
            node = torch._C._current_autograd_node()
            raise Refused(
                "fastrw.graph: a node must not run a nested backward, whose parameters are hidden from the graph, got "
                f"{'one' if node is None else node.name()} ({WAY_OUT})"
            )
        return self._engine.run_backward(*args, **kwargs)


_lock = threading.Lock()
_watchers = 0


def _watch(by: int) -> None:
    """There is one engine per process, and there may be several callers."""
    global _watchers
    with _lock:
        _watchers += by
        engine = Variable._execution_engine
        if _watchers and not isinstance(engine, _Engine):
            Variable._execution_engine = _Engine(engine)
        elif not _watchers and isinstance(engine, _Engine):
            Variable._execution_engine = engine._engine


@contextmanager
def refused() -> Iterator[None]:
    """Raises Refused, with the node's name, where a node in this context runs a nested backward."""
    _watch(1)
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" in str(error):  # raised by torch.utils.checkpoint
            raise Refused(
                f"fastrw.graph: a node must not run a nested backward, got reentrant checkpointing ({WAY_OUT})"
            ) from error
        raise
    finally:
        _watch(-1)
