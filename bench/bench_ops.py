"""The ops under pytest-benchmark, a group for each case, the variants of bench/ops.py in it.

    pytest bench/bench_ops.py -k conv_dot               one op
    pytest bench/ -k "not compile"                      all, without torch.compile

A variant that is not exact fails; one that cannot serve here is skipped with its reason."""

import pytest
import torch

from bench.cases import CASES, Draw, is_large
from bench.ops import COMPILED, Judge, variants
from bench.record import device
from bench.timing import on_gpu, wait

DTYPE = torch.float32
EVERY = [
    (op, name, variant)
    for op, cases in CASES.items()
    for name, case in cases.items()
    if on_gpu(device()) or not is_large(name)
    for variant in (*variants(op, case, (), compiled=False), COMPILED)
]


@pytest.mark.filterwarnings("ignore")  # torch.compile's own, and a candidate skipped
@pytest.mark.parametrize(("op", "name", "variant"), EVERY)
@torch.no_grad()
def test_op(benchmark, op, name, variant):
    case = CASES[op][name]
    args = case.make(Draw(DTYPE, device()))
    run = variants(op, case, args, compiled=variant == COMPILED)[variant]
    verdict = Judge(op, case, args)(variant, run)
    assert not verdict["red"], verdict["why"]
    if verdict["why"]:
        pytest.skip(verdict["why"])
    benchmark.group = f"{op} {name}: {case.sizes}"
    benchmark.extra_info |= {"flops": case.flops, "bytes": case.bytes(DTYPE)}

    def waited():
        run()
        wait(device())

    benchmark(waited)
