"""Every CUDA op under the emulator against the reference, in a process that has the sanitizers loaded first.

python run.py LIBRARY: prints one line per case and leaves with 1 if one is wrong; a sanitizer ends the process itself.
Sizes, layouts and refusals are those of tests/op_cases; below are sizes that only these kernels care about.
"""

import ctypes
import math
import sys
import time

import torch
from torch import Tensor

from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import bound, relative_error
from tests.op_cases import CASES

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MORE = {  # all warps on the columns of one row, all on validation rows; several blocks, and several blocks an example
    "gram_dot": [(3, 19, 1100, 130), (6, 140, 40, 3), (70, 9, 33, 7)],
    "grouped_gram_dot": [(3, (2, 19, 1100, 130, 1.0), (1, 140, 40, 3, 0.0))],
    "embedding_dot": [(300, 1100, 3)],
    "rectify_normalize": [(3000,)],
}


def emulated(op):
    """The op on the emulator, called with the arguments of its case."""
    run = getattr(torch.ops.fastrw_on_cpu, op)
    return lambda args, *more: as_tuple(run(*CASES[op].nest(*args), *more))


def errors(op, sizes, dtype, layout="plain", seed=0):
    """(case, error, bound) of each output."""
    case = CASES[op]
    args = case.args(sizes, dtype, layout, seed)
    truths = as_tuple(case.reference(*(_wide(x) for x in args)))
    plains = as_tuple(case.reference(*args))
    for got, plain, truth in zip(emulated(op)(args), plains, truths, strict=True):
        error = relative_error(got, truth) if got.dtype == torch.float32 else math.nan
        allowed = bound(torch.float32, relative_error(plain, truth), case.terms(*sizes))
        yield f"{op} {sizes if len(str(sizes)) < 200 else '...'} {dtype} {layout}", error, allowed


def _wide(x):
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def values(op):
    case = CASES[op]
    for dtype in DTYPES:
        for sizes in (*case.sizes, *MORE.get(op, ())):
            yield from errors(op, sizes, dtype)
        for layout in case.layouts:
            if layout != "plain":
                yield from errors(op, case.sizes[0], dtype, layout)


def tf32_errors(op):
    """(case, error, bound) of products in TF32: of float32 numbers that TF32 has, they are exact."""
    for sizes in CASES[op].sizes:
        args = [x.bfloat16().float() if isinstance(x, Tensor) else x for x in CASES[op].args(sizes)]
        truths = as_tuple(CASES[op].reference(*(_wide(x) for x in args)))
        plains = as_tuple(CASES[op].reference(*args))
        for got, plain, truth in zip(emulated(op)(args, True), plains, truths, strict=True):
            allowed = bound(torch.float32, relative_error(plain, truth), CASES[op].terms(*sizes))
            yield f"{op} TF32", relative_error(got, truth), allowed


def out_of_range():
    """(case, error, bound): a GPU cannot refuse an index in time, so its score has to say that it is none."""
    ones = torch.ones(4, 3)
    s = torch.ops.fastrw_on_cpu.embedding_dot(torch.tensor([0, 4, -1, -2]), ones, ones, -2)
    yield "embedding_dot of an index out of range", float(s.isnan().tolist() != [False, True, True, False]), 0.0


def refusals(op):
    """(case, error, bound) of arguments that have to raise: an error of nan where they did not."""
    case = CASES[op]
    bad = [(changes, words) for changes, words in case.rules if not _elsewhere(changes)]
    doubles = {
        name: x.double()
        for name, x in zip(case.names, case.args(case.small), strict=True)
        if isinstance(x, Tensor) and x.is_floating_point()
    }
    for changes, words in [*bad, (doubles, "the dtype must be float32, bfloat16 or float16")]:
        args = [changes.get(name, x) for name, x in zip(case.names, case.args(case.small), strict=True)]
        try:
            emulated(op)(args)
            said = "nothing"
        except ValueError as error:
            said = str(error)
        right = said.startswith(f"fastrw.{op}: {words}")
        yield f"{op} refuses: {words}{'' if right else f', but said {said}'}", 0.0 if right else math.nan, 0.0


def _elsewhere(changes):
    return any(isinstance(x, Tensor) and x.device.type != "cpu" for x in changes.values())


def main() -> int:
    torch.set_num_threads(1)
    library, *only = sys.argv[1:]
    torch.ops.load_library(library)
    wrong, start = 0, time.monotonic()

    def judge(cases):
        nonlocal wrong
        for case, error, allowed in cases:
            wrong += not error <= allowed
            print(f"{'right' if error <= allowed else 'WRONG'}  {case}: {error:.1e} of {allowed:.1e}")

    ops = [op for op in CASES if hasattr(torch.ops.fastrw_on_cpu, op) and (not only or op in only)]
    for op in ops:
        ctypes.CDLL(library).set_seed(1)
        judge(values(op))
        judge(refusals(op))
        for seed in (2, 3):  # other orders of warps and lanes
            ctypes.CDLL(library).set_seed(seed)
            judge(errors(op, CASES[op].sizes[0], torch.float32))
        print(f"{op}: {time.monotonic() - start:.1f} s")
    for op in {"grouped_gram_dot", "joint_gram_dot"}.intersection(ops):
        judge(tf32_errors(op))
    if "embedding_dot" in ops:
        judge(out_of_range())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
