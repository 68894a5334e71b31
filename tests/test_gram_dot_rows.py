"""Rows of gram_dot do not meet: a bad one leaves the others unharmed; one row read many times is read in place."""

import pytest
import torch

from fastrw.ops import gram_dot, reference
from tests.op_cases import SERVED, need, same, widened
from tests.op_cases.gram_dot import matrices

EACH = [(backend, dtype) for op, backend, dtype in SERVED if op == "gram_dot"]


@pytest.mark.parametrize("bad", [0, 11, 36])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("backend", "dtype"), EACH, ids=str)
def test_one_bad_row_leaves_the_others_unharmed(backend, dtype, value, bad):
    tensors = matrices(37, 19, 45, 10, dtype=dtype)
    need("gram_dot", backend, tensors)
    clean, truth = gram_dot(*tensors, backend=backend), reference.gram_dot(*widened(tensors))
    tensors[0][bad, 3] = value
    s = gram_dot(*tensors, backend=backend)
    others = torch.arange(37) != bad
    assert not s[bad].isfinite()
    assert same(s[others], clean[others], truth[others], backend, 19 * 55)


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_repeated_rows_are_read_in_place(backend):
    a, g, a_val, g_val = matrices(1, 6, 20, 8)
    need("gram_dot", backend, [a])
    rows = gram_dot(a.expand(5, -1), g.expand(5, -1), a_val, g_val, backend=backend)
    copied = [a.repeat(5, 1), g.repeat(5, 1), a_val, g_val]
    truth = reference.gram_dot(*widened(copied))
    assert same(rows, gram_dot(*copied, backend=backend), truth, backend, 6 * 28)
