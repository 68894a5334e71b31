"""What the tests need to know of each op: one file an op, read by every test_op_*.py and by tests.builds."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from fastrw import ops
from fastrw.ops import backends, reference
from fastrw.ops.self_test import as_tuple, one_algorithm
from fastrw.ops.tolerance import bound, relative_error

from .draw import LAYOUTS, Draw

ALL = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Rule = tuple[dict[str, object], str]  # what replaces which arguments, and the words that follow "fastrw.<op>: "


@dataclass(frozen=True)
class OpCase:
    """An op, what it is called with, and what it refuses."""

    op: str
    names: Sequence[str]  # of its arguments, in order
    make: Callable[..., tuple]  # (draw, *sizes) -> its arguments, in order
    sizes: Sequence[tuple]  # one of everything, odd ones, empty ones, several blocks
    fuzz: tuple  # a hypothesis strategy a size
    terms: Callable[..., int]  # sizes -> the terms that a result sums
    small: tuple  # sizes few enough for finite differences
    rules: Sequence[Rule] = ()  # bad arguments at `small`: ValueError
    types: Sequence[Rule] = ()  # bad arguments at `small`: TypeError, of the Python word alone
    large: Sequence[tuple] = ()  # sizes for a GPU
    dtypes: Sequence[torch.dtype] = ALL
    layouts: Sequence[str] = tuple(LAYOUTS)
    derivatives: bool = True
    compiled: dict = field(default_factory=dict)  # options of torch.compile's test
    rounds_on_gpu: bool = False  # a library rounds sums of 16-bit numbers to their dtype there
    nest: Callable[..., tuple] = lambda *args: args  # the arguments of the op, where lists of tensors are among them

    def args(self, sizes: tuple, dtype=torch.float32, layout="plain", seed=0, device="cpu", positive=False) -> list:
        return list(self.make(Draw(dtype, layout, seed, device, positive), *sizes))

    def run(self, args, backend: str = "auto"):
        """The public word."""
        return getattr(ops, self.op)(*self.nest(*args), backend=backend)

    @property
    def reference(self) -> Callable:
        return lambda *args: getattr(reference, self.op)(*self.nest(*args))


CASES: dict[str, OpCase] = {}
for _module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "draw"):
    _case = importlib.import_module(f"{__name__}.{_module}").CASE
    CASES[_case.op] = _case


def _serves(op: str, backend: str, dtype: torch.dtype) -> bool:
    return backend != "triton" or (dtype != torch.float64 and hasattr(torch.ops.fastrw, f"{op}_triton"))


SERVED = [  # op, backend, dtype: all that may serve on a CPU
    (op, backend, dtype)
    for op, case in CASES.items()
    for backend in ("reference", "cpp", "triton")
    for dtype in case.dtypes
    if _serves(op, backend, dtype)
]
OF_CPU = sorted({(op, backend) for op, backend, _ in SERVED})


def need(op: str, backend: str, args) -> None:
    """Skip where the backend cannot serve, with its reason; one that fails its self-test is to fail the test too."""
    reason = backends.get(op).backends[backend].can(*args)
    if reason is not None:
        pytest.skip(f"{backend} {reason}")


def same(got: Tensor, expected: Tensor, truth: Tensor, backend: str, K: int) -> bool:
    """Is it the expected result once more? To the bit from a kernel of ours; from the reference by the tolerance, for
    the products of a library may round anew at each call."""
    if backend != "reference":
        return torch.equal(got, expected)
    return relative_error(got, truth) <= bound(got.dtype, relative_error(expected, truth), K)


def widened(args) -> list:
    """The arguments in float64."""
    return [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]


def allowed(got: Tensor, plain: Tensor, truth: Tensor, K: int, tf32: bool = False) -> float:
    """The largest error by the rule of fastrw.tolerance.

    tf32: where torch allows TF32, it may round where a kernel of ours cuts off, or not use it for sizes that ours does;
    each of the four factors of a product of products may lose its last bit.
    """
    return bound(got.dtype, relative_error(plain, truth), K) + (4 * 2**-10 if tf32 else 0)


@one_algorithm()
def check(
    op, sizes, *, dtype=torch.float32, layout="plain", backend="auto", seed=0, device="cpu", positive=False, tf32=False
) -> None:
    """The backend is right by the rule of fastrw.tolerance, gives the same twice, and writes every element.

    positive: numbers that cannot cancel, so that the rule, which is relative, holds for a sum of any size.
    tf32: may the products of the op be TF32?
    """
    case = CASES[op]
    args = case.args(sizes, dtype, layout, seed, device, positive)
    need(op, backend if backend != "auto" else "reference", args)
    server = backend if backend != "auto" else backends.choose(op, backend, *args).name
    kept = [x.clone() if isinstance(x, Tensor) else x for x in args]
    truths, plains = as_tuple(case.reference(*widened(args))), as_tuple(case.reference(*args))
    first = as_tuple(case.run(args, backend))
    with nullcontext() if device == "cuda" and server == "reference" else memory_of_nan():
        second = as_tuple(case.run(args, backend))
    assert len(first) == len(plains)
    for got, again, plain, truth in zip(first, second, plains, truths, strict=True):
        assert (got.dtype, got.device, got.shape) == (plain.dtype, plain.device, plain.shape)
        rounded = case.rounds_on_gpu and device == "cuda" and dtype in (torch.bfloat16, torch.float16)
        rule = bound(dtype, relative_error(plain, truth), 1) if rounded else 0.0  # factors and the sum, once each
        assert relative_error(got, truth) <= max(rule, allowed(got, plain, truth, case.terms(*sizes), tf32))
        assert same(again, got, truth, server, case.terms(*sizes))
    for x, before in zip(args, kept, strict=True):
        assert not isinstance(x, Tensor) or torch.equal(x, before), "an argument was written to"


@contextmanager
def memory_of_nan():
    """Inside it torch.empty returns memory full of NaN; cuBLAS would refuse to run."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
