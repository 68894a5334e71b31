"""Any op under pytest-benchmark, one group a case, the ways of bench/ops.py.

    pytest bench/bench_conv_dot.py                      one op
    pytest bench/ -k "not compile"                      all, without torch.compile

A way that is not exact fails; one that cannot serve here is skipped with its reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bench.cases import CASES, Draw
from bench.ops import BACKENDS, COMPILED, EAGER, Judge, on_gpu, ways
from bench.record import device
from bench.timing import wait

DTYPE = torch.float32


def benchmark_of(op: str) -> Callable:
    """A test function: every case that fits this machine, in every way."""
    every = [
        (name, way)
        for name, case in CASES[op].items()
        if on_gpu(device()) or not case.large
        for way in (*BACKENDS, *(EAGER + form for form in case.eager), COMPILED)
    ]

    @pytest.mark.filterwarnings("ignore")  # torch.compile's own, and a candidate skipped
    @pytest.mark.parametrize(("name", "way"), every)
    @torch.no_grad()
    def bench(benchmark, name, way):
        case = CASES[op][name]
        args = case.make(Draw(DTYPE, device()))
        run = ways(op, case, args, compiled=way == COMPILED)[way]
        verdict = Judge(op, case, args)(way, run)
        assert not verdict["red"], verdict["why"]
        if verdict["why"]:
            pytest.skip(verdict["why"])
        benchmark.group = f"{op} {name}: {case.sizes}"
        benchmark.extra_info |= {"flops": case.flops, "bytes": case.bytes(DTYPE)}

        def waited():
            run()
            wait(device())

        benchmark(waited)

    return bench
