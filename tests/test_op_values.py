"""Every op on every backend equals its reference: all sizes, dtypes and layouts, the same bits in every run."""

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fastrw.ops import backends
from tests.op_cases import CASES, OF_CPU, SERVED, check

served = pytest.mark.parametrize(("op", "backend", "dtype"), SERVED, ids=str)


def test_every_op_has_a_case():
    assert set(CASES) == set(backends.names())


@served
def test_every_size(op, backend, dtype):
    for sizes in CASES[op].sizes:
        check(op, sizes, dtype=dtype, backend=backend)


@served
def test_every_layout(op, backend, dtype):
    for layout in CASES[op].layouts:
        for sizes in CASES[op].sizes[:2]:
            check(op, sizes, dtype=dtype, layout=layout, backend=backend)


@pytest.mark.parametrize(("op", "backend"), OF_CPU)
def test_whatever_hypothesis_finds(op, backend):
    case = CASES[op]
    dtypes = [dtype for *served, dtype in SERVED if served == [op, backend]]

    @settings(max_examples=20 if backend == "triton" else 60, deadline=None, derandomize=True)
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
