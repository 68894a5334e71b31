"""Microseconds that each Triton launcher takes of the host, where the driver launches nothing.

python -m tests.launch_times [op ...]     one JSON object a line: the least decile of a thread's time, for each call
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module

import torch

from fastrw.ops import backends
from tests import op_cases
from tests.mocked_gpu import Driver, compiled, driver, triton
from tests.op_cases.draw import Draw

OPS = [op for op in op_cases.CASES if hasattr(torch.ops.fastrw, f"{op}_triton")]


def least_decile(run: Callable[[], object], calls: int = 300) -> float:
    for _ in range(20):
        run()
    taken = []
    for _ in range(calls):
        start = time.thread_time_ns()
        run()
        taken.append(time.thread_time_ns() - start)
    return sorted(taken)[calls // 10] / 1e3


@torch.no_grad()
def measured(op: str, calls: int = 300) -> dict[str, float]:
    """Of the launcher, and of the op that is called by its backend; a case each."""
    launch = getattr(import_module(f"fastrw.kernels.{op}"), f"launch_{op}")
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in ("plain", "channels last", "misaligned"):
            args = op_cases.CASES[op].make(Draw(dtype, layout), *op_cases.CASES[op].sizes[0])
            found[f"{dtype} {layout}".removeprefix("torch.")] = least_decile(lambda args=args: launch(*args), calls)
    args = op_cases.CASES[op].make(Draw(), *op_cases.CASES[op].sizes[0])
    found["as an op"] = least_decile(lambda: backends.get(op).backends["triton"].run(*args), calls)
    return found


def main() -> None:
    torch.set_num_threads(1)
    driver.set_active(Driver())
    triton.runtime.jit.JITFunction._do_compile = compiled
    for op in sys.argv[1:] or OPS:
        print(json.dumps({"op": op, **{case: round(us, 1) for case, us in measured(op).items()}}), flush=True)


if __name__ == "__main__":
    main()
