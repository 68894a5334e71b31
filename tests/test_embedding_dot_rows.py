"""embedding_dot: an index outside the table is refused on the CPU; padding gives 0, whatever its row holds."""

import pytest
import torch

from fastrw.ops import embedding_dot, reference
from tests.op_cases import CASES, SERVED, need, same, widened

EACH = [(backend, dtype) for op, backend, dtype in SERVED if op == "embedding_dot"]
SIZES = (37, 45, 10)


@pytest.mark.parametrize("value", [-1, 10, 2**40])
@pytest.mark.parametrize("at", [0, 17, 36])
def test_an_index_outside_the_table_is_refused(at, value):
    idx, g, V, _ = CASES["embedding_dot"].args(SIZES)
    need("embedding_dot", "cpp", [idx, g, V])
    idx[at] = value
    rule = "fastrw.embedding_dot: idx must be at least 0 and less than v, got"
    with pytest.raises(ValueError, match=f"{rule} {value} and 10"):
        embedding_dot(idx, g, V, backend="cpp")


@pytest.mark.parametrize(("backend", "dtype"), EACH, ids=str)
def test_padding_gives_zero_whatever_its_row_holds(backend, dtype):
    idx, g, V, _ = CASES["embedding_dot"].args(SIZES, dtype)
    need("embedding_dot", backend, [idx, g, V])
    clean, truth = (torch.where(idx == 3, 0, s) for s in (
        embedding_dot(idx, g, V, backend=backend), reference.embedding_dot(*widened([idx, g, V])),
    ))  # fmt: skip
    g[idx == 3], V[3] = float("nan"), float("inf")
    s = embedding_dot(idx, g, V, 3, backend=backend)
    assert (idx == 3).any()
    assert not s[idx == 3].any()
    assert same(s, clean, truth, backend, SIZES[1])
