"""What takes a GPU's place in a rehearsal on a CPU: a graph that runs its function again, narrow models, tools that
only run what they are given. The real ones are chosen here too, so that a stage reads the same on both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from bench.models import MODELS, Model, images
from fastrw.testing.models import LanguageModel, Transformer, VisionTransformer, resnet, wide_resnet

few = {"n": 4, "m": 2}
words = partial(torch.randint, 50)
NARROW = {
    "resnet32_gn": Model(partial(resnet, (3, 8, 8), 10, (2, 4), partial(nn.GroupNorm, 2)), images(3, 8, 8), **few),
    "resnet32_bn": Model(partial(resnet, (3, 8, 8), 10, (2, 4)), images(3, 8, 8), **few),
    "wrn28_10": Model(partial(wide_resnet, (3, 8, 8), 10, depth=10, widen=1), images(3, 8, 8), **few),
    "vit_s": Model(partial(VisionTransformer, 16, 1, 2, 4, 8, 10), images(3, 8, 8), **few),
    "gpt2_small": Model(
        partial(LanguageModel, 16, 1, 2, 50, 6), lambda n: words((n, 6)), classes=50, positions=(6,), **few
    ),
    "transformer": Model(partial(Transformer, 16, 1, 2, 50), lambda n: words((n, 4)), classes=2, **few),
}


class Graph:
    """A CUDA graph of what a function launches; `result` is what the function returned, in the graph's memory."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], object]) -> None:
        """The function has run before, on a side stream too: nothing may be compiled or waited for in here."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self._graph):
            self.result = run()

    def replay(self) -> None:
        self._graph.replay()


class Rerun:
    """The same on a CPU: it runs the function again."""

    def record(self, run: Callable[[], object]) -> None:
        self.replay = run
        self.result = run()


def capture(device: str) -> None:
    """Let Reweighter(capture=True) run on this device."""
    if device == "cpu":
        from fastrw.api.capture import Graphs
        from tests.tape import Tape

        Graphs.__init__.__defaults__ = (Tape,)


def models(tiny: bool) -> dict[str, Model]:
    """By name; in a rehearsal as narrow as each kind can be."""
    return NARROW if tiny else MODELS


def graph(device: str) -> Graph | Rerun:
    return Graph() if device == "cuda" else Rerun()


def tool(name: str, device: str) -> list[str] | None:
    """The words that call a tool of the CUDA toolkit; None where it is missing."""
    from bench import record

    if device == "cpu":
        return [sys.executable, "-m", "bench.gpu.stub", name]  # which needs no torch
    found = record.tool(name)
    return [found] if found else None
