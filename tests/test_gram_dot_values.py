"""gram_dot on every backend equals the reference: all sizes, dtypes and layouts, the same bits in every run."""

import pytest
import torch
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from fastrw.ops import gram_dot
from tests.gram_dot_cases import LAYOUTS, NAN, SERVED, SIZES, check, matrices, need


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("backend", "dtype"), SERVED, ids=str)
def test_every_backend_serves_every_size(backend, dtype, sizes):
    need(backend, *matrices(1, 1, 1, 1, dtype))
    for bias in (1.0, 0.0):
        check(*sizes, dtype=dtype, backend=backend, bias=bias)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("backend", "dtype"), SERVED, ids=str)
def test_every_backend_reads_every_layout(backend, dtype, layout):
    need(backend, *matrices(1, 1, 1, 1, dtype))
    for sizes in ((37, 19, 45, 10), (5, 7, 64, 48)):
        check(*sizes, dtype=dtype, layout=layout, backend=backend)


small = st.integers(0, 40)


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_every_backend_serves_what_hypothesis_finds(backend):
    need(backend, *matrices(1, 1, 1, 1))
    dtypes = [dtype for name, dtype in SERVED if name == backend]

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(small, small, st.integers(0, 150), small, st.sampled_from(dtypes), st.sampled_from([*LAYOUTS]), small)
    @example(1, 2, 3, 4, torch.float32, "plain", 0)
    def search(r, k, p, q, dtype, layout, seed):
        case = f"{r}, {k}, {p}, {q}, dtype={dtype}, layout={layout!r}, backend={backend!r}, seed={seed}"
        note(f"import torch; from tests.gram_dot_cases import check; check({case})")
        check(r, k, p, q, dtype=dtype, layout=layout, backend=backend, seed=seed)

    search()


@pytest.mark.parametrize("bad", [0, 11, 36])
@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize(("backend", "dtype"), SERVED, ids=str)
def test_one_bad_row_leaves_the_others_unharmed(backend, dtype, value, bad):
    tensors = matrices(37, 19, 45, 10, dtype)
    need(backend, *tensors)
    clean = gram_dot(*tensors, backend=backend)
    tensors[0][bad, 3] = value
    s = gram_dot(*tensors, backend=backend)
    others = torch.arange(37) != bad
    assert not s[bad].isfinite()
    assert torch.equal(s[others], clean[others])


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_autocast_changes_nothing(backend):
    tensors = matrices(37, 19, 45, 10)
    need(backend, *tensors)
    with torch.autocast("cpu", torch.bfloat16):
        s = gram_dot(*tensors, backend=backend)
    assert torch.equal(s, gram_dot(*tensors, backend=backend))


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_repeated_rows_are_read_in_place(backend):
    a, g, a_val, g_val = matrices(1, 6, 20, 8)
    need(backend, a)
    rows = gram_dot(a.expand(5, -1), g.expand(5, -1), a_val, g_val, backend=backend)
    copied = gram_dot(a.repeat(5, 1), g.repeat(5, 1), a_val, g_val, backend=backend)
    assert torch.equal(rows, copied)
