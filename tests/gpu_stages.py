"""The stages of bench.gpu on a GPU that is not here: what they do on a GPU alone runs before a GPU is met.

python -m tests.gpu_stages folder     the rows are in the folder; nothing in them is a figure
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from bench.gpu.stage import Stage
from bench.gpu.stages import machine, op_times, self_test, steps
from tests import mocked_gpu


class Event:
    """With times, as the host sees them."""

    def __init__(self, enable_timing=False):
        pass

    def record(self, stream=None):
        self._at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1e3 * (end._at - self._at) + 1e-6


class Stream:
    def wait_stream(self, other):
        pass


class CUDAGraph:
    """Recorded by running; it replays nothing."""

    def replay(self):
        pass


class Generator(torch.Generator):
    def __new__(cls, device=None):
        return super().__new__(cls, "cpu")


class Autocast(torch.autocast):
    def __init__(self, device, *args, **options):
        super().__init__("cpu", *args, **options)


def moved(module: nn.Module, *args, move=nn.Module.to) -> nn.Module:
    """`module.to(*args)`: parameters say of themselves that they are on the GPU."""
    if args != ("cuda",):
        return move(module, *args)
    for buffer in module.buffers():
        buffer.on_host = False
    return module


def install() -> None:
    """The mocked GPU, and what of torch.cuda the stages ask beside it."""
    mocked_gpu.install()
    torch.cuda.Event, torch.cuda.Stream, torch.cuda.CUDAGraph = Event, Stream, CUDAGraph
    torch.cuda.current_stream = lambda device=None: Stream()
    for name in ("stream", "graph", "device", "device_of"):
        setattr(torch.cuda, name, lambda *args, **options: nullcontext())
    for name, answer in {"synchronize": None, "reset_peak_memory_stats": None, "set_sync_debug_mode": None,
                         "get_sync_debug_mode": 0, "memory_allocated": 0, "max_memory_allocated": 1,
                         "get_device_name": "a GPU that is not here"}.items():  # fmt: skip
        setattr(torch.cuda, name, lambda *args, answer=answer: answer)
    said = {
        "name": "none",
        "multi_processor_count": 132,
        "L2_cache_size": 2**20,
        "total_memory": 1,
        "major": 9,
        "minor": 0,
    }
    torch.cuda.get_device_properties = lambda device=None: SimpleNamespace(**said)
    nn.Module.to = moved
    torch.autocast, torch.Generator = Autocast, Generator
    torch.compile = lambda model, **options: model  # Dynamo asks the driver


def main() -> None:
    install()
    out, now = Path(sys.argv[1]), time.time()

    def stage(name: str) -> Stage:
        return Stage(name, out, "cuda", True, now, now + 600)

    machine.run(stage("machine"))
    for backend in self_test.BACKENDS["cuda"]:
        self_test.one(stage("self_test"), "combine", backend, "bfloat16")
    steps.warm(stage("self_test"), *steps.TO_COMPILE[0])
    for of in steps.ORDER[1::3][:2]:
        steps.measure(stage("steps"), *of)
        steps.measure_compiled(stage("steps"), *of)
    for op, case in op_times.TINY:
        op_times.judge(stage("op_times"), op, case, "bfloat16", until=now + 600)
        op_times.measure(stage("op_times"), op, case, "bfloat16")


if __name__ == "__main__":
    main()
