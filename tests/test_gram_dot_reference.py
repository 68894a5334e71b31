"""The spec is Eq. 12: reference.gram_dot against loops over the rows in float64."""

import math

import pytest
import torch

from fastrw.ops import reference
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from tests.op_cases.gram_dot import CASE, matrices


def by_loops(a, g, a_val, g_val, bias):
    def dot(x, y):
        return math.fsum(u * v for u, v in zip(x.tolist(), y.tolist(), strict=True))

    return torch.tensor(
        [
            math.fsum((dot(a[r], a_val[k]) + bias) * dot(g[r], g_val[k]) for k in range(len(a_val)))
            for r in range(len(a))
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("bias", [1.0, 0.0, -2.5])
@pytest.mark.parametrize("sizes", [(5, 3, 4, 2), *(sizes[:4] for sizes in CASE.sizes[3:])], ids=str)
def test_reference_is_eq_12(sizes, bias):
    tensors = matrices(*sizes, dtype=torch.float64)
    error = relative_error(reference.gram_dot(*tensors, bias), by_loops(*tensors, bias))
    assert error <= bound(torch.float64, 0.0, sizes[1] * (sizes[2] + sizes[3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_reference_sums_in_float32(dtype):
    tensors = matrices(6, 5, 40, 30, dtype=dtype)
    s = reference.gram_dot(*tensors)
    assert s.dtype == torch.float32
    assert relative_error(s, by_loops(*tensors, 1.0)) <= bound(torch.float32, 0.0, 5 * 70)


def test_autocast_does_not_reach_the_sums():
    tensors = matrices(6, 5, 40, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reference.gram_dot(*tensors), reference.gram_dot(*tensors))
        s = reference.gram_dot(*tensors)
    assert torch.equal(s, reference.gram_dot(*tensors))


def test_it_is_the_gradient_product_of_a_linear_layer():
    n, m, p, q = 6, 3, 5, 4
    layer = torch.nn.Linear(p, q, dtype=torch.float64)
    x, x_val = torch.randn(n, p, dtype=torch.float64), torch.randn(m, p, dtype=torch.float64)

    def gradient(x):
        loss = layer(x).sin().sum() / len(x)
        return torch.cat([v.flatten() for v in torch.autograd.grad(loss, list(layer.parameters()))])

    truth = torch.stack([gradient(row[None]) @ gradient(x_val) for row in x])
    g, g_val = layer(x).cos().detach(), layer(x_val).cos().detach() / m
    assert relative_error(reference.gram_dot(x, g, x_val, g_val), truth) <= SCORE_GOAL[torch.float64]
