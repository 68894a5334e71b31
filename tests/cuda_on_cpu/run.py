"""Every CUDA op under the emulator against the reference, in a process that has the sanitizers loaded first.

python run.py LIBRARY: prints one line per case and leaves with 1 if one is wrong; a sanitizer ends the process itself.
"""

import ctypes
import math
import sys

import torch

from fastrw import reference
from fastrw.tolerance import bound, relative_error

# r, k, p, q: one row, tails in every letter, nothing at all, several tiles of k with shared and unshared columns
GRAM_DOT = [
    (1, 1, 1, 1),
    (5, 9, 33, 7),
    (4, 8, 128, 256),
    (6, 70, 40, 3),
    (3, 19, 1100, 130),
    (2, 3, 0, 5),
    (2, 0, 4, 5),
    (0, 3, 4, 5),
]
LAYOUTS = {
    "contiguous": lambda x: x,
    "rows apart": lambda x: torch.cat([x, torch.full_like(x, math.nan)], 1)[:, : x.shape[1]],
    "misaligned": lambda x: torch.cat([x.new_full((x.shape[0], 1), math.nan), x], 1)[:, 1:],
    "transposed": lambda x: x.T.contiguous().T,
}


def gram_dot_errors():
    """(case, error, bound) of gram_dot over sizes, dtypes and layouts."""
    torch.manual_seed(0)
    for r, k, p, q in GRAM_DOT:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            args = [torch.randn(shape).to(dtype) for shape in ((r, p), (r, q), (k, p), (k, q))]
            truth = reference.gram_dot(*(x.double() for x in args), 0.5)
            plain = relative_error(reference.gram_dot(*args, 0.5), truth)
            for layout, laid in LAYOUTS.items():
                s = torch.ops.fastrw_on_cpu.gram_dot(*map(laid, args), 0.5)
                error = relative_error(s, truth) if s.dtype == torch.float32 else math.nan
                yield f"gram_dot {r, k, p, q} {dtype} {layout}", error, bound(torch.float32, plain, k * (p + q))


def refusals():
    """(case, error, bound) of inputs that have to raise: an error of nan where they did not."""
    good = [torch.ones(2, 3), torch.ones(2, 4), torch.ones(5, 3), torch.ones(5, 4)]
    bad = {
        "rows": [good[0], torch.ones(3, 4), *good[2:]],
        "dtype": [x.double() for x in good],
        "vector": [torch.ones(2), *good[1:]],
    }
    for name, args in bad.items():
        try:
            torch.ops.fastrw_on_cpu.gram_dot(*args, 1.0)
        except ValueError as error:
            yield f"gram_dot refuses {name}", 0.0 if str(error).startswith("fastrw.gram_dot: ") else math.nan, 0.0
        else:
            yield f"gram_dot refuses {name}", math.nan, 0.0


def main() -> int:
    torch.set_num_threads(1)
    library = sys.argv[1]
    torch.ops.load_library(library)
    wrong = 0
    for seed in (1, 2):
        ctypes.CDLL(library).set_seed(seed)
        for case, error, allowed in (*gram_dot_errors(), *refusals()):
            right = error <= allowed
            wrong += not right
            print(f"{'right' if right else 'WRONG'}  {case}: {error:.1e} of {allowed:.1e}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
