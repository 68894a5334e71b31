"""gram_dot is differentiable everywhere: backward, forward AD, both twice, vmap; on every backend."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.autograd import gradcheck, gradgradcheck

from fastrw import reference
from fastrw.ops import gram_dot
from fastrw.tolerance import bound, relative_error
from tests.gram_dot_cases import matrices, need

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at the first tangent
SIZES = (4, 2, 3, 5)
FLOAT64 = ["reference", "cpp"]
ALL = [*FLOAT64, "triton"]


def leaves(dtype=torch.float64):
    return [x.requires_grad_() for x in matrices(*SIZES, dtype)]


def on(backend, dtype=torch.float64):
    need(backend, *matrices(*SIZES, dtype))
    return lambda *tensors: gram_dot(*tensors, 0.5, backend=backend)


def spec(*tensors):
    return reference.gram_dot(*tensors, 0.5)


def same(got, expected):
    got, expected = (torch.cat([x.flatten() for x in side]) for side in (got, expected))
    assert relative_error(got, expected) <= bound(got.dtype, 0.0, 2 * sum(SIZES))


@pytest.mark.parametrize("backend", FLOAT64)
def test_first_derivatives_are_those_of_finite_differences(backend):
    checks = dict(check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradcheck(on(backend), leaves(), **checks)


@pytest.mark.parametrize("backend", FLOAT64)
def test_second_derivatives_are_those_of_finite_differences(backend):
    assert gradgradcheck(on(backend), leaves(), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ALL)
def test_backward_is_that_of_the_reference(backend, dtype):
    got, expected = leaves(dtype), leaves(dtype)
    weights = torch.arange(1.0, 5.0)
    (on(backend, dtype)(*got) * weights).sum().backward()
    (spec(*expected) * weights).sum().backward()
    for x, y in zip(got, expected, strict=True):
        assert x.grad.dtype == dtype
        assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("backend", ALL)
def test_jvp_is_the_sum_over_the_four_matrices(backend):
    """s is linear in each matrix (in a and a_val up to the bias): the tangent is s with each replaced in turn."""
    tensors, tangents = matrices(*SIZES), matrices(*SIZES, seed=1)
    _, got = torch.func.jvp(on(backend, torch.float32), tuple(tensors), tuple(tangents))
    expected = 0
    for i, tangent in enumerate(tangents):
        moved = [x.double() for x in tensors]
        moved[i] = tangent.double()
        expected = expected + reference.gram_dot(*moved, 0.0 if i in (0, 2) else 0.5)
    same([got], [expected])


@pytest.mark.parametrize("backend", ALL)
def test_a_tangent_on_one_matrix_alone(backend):
    run, (a, *others), (tangent, *_) = on(backend, torch.float32), matrices(*SIZES), matrices(*SIZES, seed=1)
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(run(forward_ad.make_dual(a, tangent), *others)).tangent
    expected = [reference.gram_dot(*(x.double() for x in (tangent, *others)), 0.0)]
    same([got], expected)
    same([torch.func.jvp(lambda a: run(a, *others), (a,), (tangent,))[1]], expected)


@pytest.mark.parametrize("backend", ALL)
def test_a_frozen_matrix_gets_no_gradient(backend):
    tensors = matrices(*SIZES)
    tensors[1].requires_grad_()
    on(backend, torch.float32)(*tensors).sum().backward()
    assert [x.grad is None for x in tensors] == [True, False, True, True]


@pytest.mark.parametrize("in_dims", [(0, 0, None, None), (0, None, None, 1), (None, None, 0, 0), (1, 2, 0, 0)], ids=str)
@pytest.mark.parametrize("backend", ALL)
def test_vmap_is_one_call_an_item(backend, in_dims):
    run = on(backend, torch.float32)
    items = [matrices(*SIZES, seed=seed) for seed in range(3)]
    batched = [
        items[0][i] if dim is None else torch.stack([item[i] for item in items], dim) for i, dim in enumerate(in_dims)
    ]
    shared = [[items[0][i] if dim is None else item[i] for i, dim in enumerate(in_dims)] for item in items]
    assert torch.equal(torch.vmap(run, in_dims)(*batched), torch.stack([run(*item) for item in shared]))


def test_hessian_and_mixed_modes_compose():
    tensors = matrices(*SIZES, torch.float64)

    def of_a(function):
        return lambda a: function(a, *tensors[1:]).pow(2).sum()

    for transform in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacfwd(f))):
        same([transform(of_a(gram_dot))(tensors[0])], [transform(of_a(reference.gram_dot))(tensors[0])])
