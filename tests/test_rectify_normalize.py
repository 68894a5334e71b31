"""rectify_normalize on every backend: scores that are not finite weigh nothing and leave the others unharmed."""

import pytest
import torch

from fastrw.ops import rectify_normalize
from tests.op_cases import SERVED, need

EACH = [(backend, dtype) for op, backend, dtype in SERVED if op == "rectify_normalize"]
each = pytest.mark.parametrize(("backend", "dtype"), EACH, ids=str)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("n", [3, 16, 37])
@each
def test_a_score_that_is_not_finite_weighs_nothing(backend, dtype, n, bad):
    s = torch.arange(n).to(dtype) - 1
    need("rectify_normalize", backend, [s])
    for at in range(n):
        masked, without = s.clone(), s.clone()
        masked[at], without[at] = bad, -1.0
        assert torch.equal(rectify_normalize(masked, backend=backend), rectify_normalize(without, backend=backend)), (
            masked.tolist()
        )


@each
def test_the_largest_scores_of_the_dtype_sum_to_one(backend, dtype):
    s = torch.full((64,), torch.finfo(dtype).max, dtype=dtype)
    need("rectify_normalize", backend, [s])
    assert torch.equal(
        rectify_normalize(s, backend=backend), torch.full((64,), 1 / 64).to(torch.promote_types(dtype, torch.float32))
    )


@each
def test_no_score_above_zero_is_no_weight(backend, dtype):
    for values in ([], [0.0], [-1.0, -0.0], [float("nan")] * 40, [-1.0] * 17):
        s = torch.tensor(values, dtype=dtype)
        need("rectify_normalize", backend, [s])
        assert rectify_normalize(s, backend=backend).tolist() == [0.0] * len(values)
