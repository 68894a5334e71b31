"""Inputs of gram_dot in every size, dtype and layout that a caller may bring, and the one check of its values."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from fastrw import reference
from fastrw.ops import backends, gram_dot
from fastrw.tolerance import bound, relative_error

NAN = float("nan")
SIZES = [  # r, k, p, q
    (37, 19, 45, 10),
    (70, 33, 64, 48),
    (1, 1, 1, 1),
    (1, 40, 129, 77),
    (130, 1, 16, 8),
    (0, 3, 4, 4),
    (3, 0, 4, 4),
    (3, 4, 0, 4),
    (3, 4, 4, 0),
]
SERVED = [  # backend, dtype: all that may serve on a CPU
    (backend, dtype)
    for backend in ("reference", "cpp", "triton")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    if (backend, dtype) != ("triton", torch.float64)
]

# Each takes a matrix and returns the same numbers laid out in another way, NaN wherever a stray access would land.
LAYOUTS = {
    "plain": lambda x: x,
    "margin": lambda x: _inside(x, (x.shape[0] + 2, x.shape[1] + 3), 1, 0),
    "aligned margin": lambda x: _inside(x, (x.shape[0] + 2, -(-x.shape[1] // 8) * 8 + 8), 0, 0),
    "misaligned": lambda x: _inside(x, (x.shape[0] + 1, x.shape[1] + 8), 0, 1),
    "transposed": lambda x: x.t().contiguous().t(),
    "every other row": lambda x: _inside(x, (2 * x.shape[0], x.shape[1]), 0, 0, row_step=2),
    "every other column": lambda x: _inside(x, (x.shape[0], 2 * x.shape[1]), 0, 0, column_step=2),
}


def _inside(x, shape, row, column, row_step=1, column_step=1):
    around = x.new_full(shape, NAN)
    view = around[row:, column:][::row_step, ::column_step][: x.shape[0], : x.shape[1]]
    view.copy_(x)
    return view


def matrices(r, k, p, q, dtype=torch.float32, layout="plain", seed=0, device="cpu"):
    """a, g, a_val, g_val of standard normal numbers."""
    draw = torch.Generator().manual_seed(seed)
    shapes = ((r, p), (r, q), (k, p), (k, q))
    return [LAYOUTS[layout](torch.randn(shape, generator=draw).to(device, dtype)) for shape in shapes]


def need(backend, *tensors):
    """Skip where the backend cannot serve, with its reason; one that fails its self-test is to fail the test too."""
    reason = backends.get("gram_dot").backends[backend].can(*tensors)
    if reason is not None:
        pytest.skip(f"{backend} {reason}")


def check(r, k, p, q, *, dtype=torch.float32, layout="plain", backend="auto", bias=1.0, seed=0, device="cpu"):
    """The backend is right by the rule of fastrw.tolerance, gives the same bits twice, and writes every element."""
    tensors = matrices(r, k, p, q, dtype, layout, seed, device)
    truth = reference.gram_dot(*(x.double() for x in tensors), bias)
    plain = reference.gram_dot(*tensors, bias)
    first = gram_dot(*tensors, bias, backend=backend)
    with nullcontext() if device == "cuda" and backend in ("auto", "reference") else _memory_of_nan():
        s = gram_dot(*tensors, bias, backend=backend)
    assert (s.dtype, s.device, s.shape) == (plain.dtype, plain.device, (r,))
    assert torch.equal(s, first)
    assert relative_error(s, truth) <= bound(s.dtype, relative_error(plain, truth), k * (p + q))


@contextmanager
def _memory_of_nan():
    """Inside it torch.empty returns memory full of NaN; cuBLAS would refuse to run."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
