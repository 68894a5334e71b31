"""Every op on every backend equals its reference: all sizes, dtypes and layouts; a kernel gives the same bits twice."""

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fastrw.ops import backends
from tests.op_cases import CASES, OF_CPU, SERVED, check
from tests.tiers import covering, some

QUICK = [pytest.param(*row, marks=[pytest.mark.quick] if torch.float32 in row else []) for row in SERVED]


def test_every_op_has_a_case():
    assert set(CASES) == set(backends.names())


def few(every, backend):
    """The interpreter takes seconds for what compiled code does at once; the launch tests go through its configs."""
    return some(every, 2) if backend == "triton" else every


@pytest.mark.parametrize(("op", "backend", "dtype"), QUICK, ids=str)
def test_every_size(op, backend, dtype):
    for sizes in few(CASES[op].sizes, backend):
        check(op, sizes, dtype=dtype, backend=backend)


@pytest.mark.parametrize(("op", "backend", "dtype"), covering(SERVED, 2), ids=str)
def test_every_layout(op, backend, dtype):
    for layout in few(CASES[op].layouts, backend):
        for sizes in CASES[op].sizes[: 1 if backend == "triton" else 2]:
            check(op, sizes, dtype=dtype, layout=layout, backend=backend)


@pytest.mark.parametrize("op", [op for op, backend in OF_CPU if backend == "cpp"])
def test_every_size_by_two_threads(op, two_threads):
    for sizes in CASES[op].sizes:
        check(op, sizes, backend="cpp")


@pytest.mark.parametrize(("op", "backend"), OF_CPU)
def test_whatever_hypothesis_finds(op, backend):
    case = CASES[op]
    dtypes = [dtype for *served, dtype in SERVED if served == [op, backend]]

    @settings(max_examples=len(some(range(40), 2 if backend == "triton" else 20)), deadline=None, derandomize=True)
    @given(st.tuples(*case.fuzz), st.sampled_from(dtypes), st.sampled_from(list(case.layouts)), st.integers(0, 9))
    def search(sizes, dtype, layout, seed):
        given = f"{op!r}, {sizes}, dtype={dtype}, layout={layout!r}, backend={backend!r}, seed={seed}, positive=True"
        note(f"import torch; from tests.op_cases import check; check({given})")
        check(op, sizes, dtype=dtype, layout=layout, backend=backend, seed=seed, positive=True)

    search()


@pytest.mark.parametrize(("op", "backend"), OF_CPU)
def test_autocast_changes_nothing(op, backend):
    with torch.autocast("cpu", torch.bfloat16):
        check(op, CASES[op].sizes[0], backend=backend)
