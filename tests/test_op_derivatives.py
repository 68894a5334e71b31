"""Every op is differentiable in each of its tensors: backward, forward AD, both twice, vmap; on every backend."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from tests.op_cases import CASES, OF_CPU, need, same
from tests.tiers import covering

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch's own, at the first tangent
    pytest.mark.usefixtures("one_algorithm"),
]
EACH = [(op, backend) for op, backend in OF_CPU if CASES[op].derivatives]
FLOAT64 = [(op, backend) for op, backend in EACH if backend != "triton"]
SECOND = covering(FLOAT64)  # what every backend shares is differentiated again
TWICE = SCORE_GOAL[torch.float64]  # derivatives hold products of torch's, which may round anew at each call


class Floating:
    """An op at its small sizes as a function of its floating point tensors alone; its outputs, those not empty."""

    def __init__(self, op, backend, dtype=torch.float64, seed=0):
        self.case, self.backend = CASES[op], backend
        self.args = self.case.args(self.case.small, dtype, seed=seed)
        need(op, backend, self.args)
        self.at = [i for i, x in enumerate(self.args) if isinstance(x, Tensor) and x.is_floating_point()]

    @property
    def tensors(self):
        return [self.args[i].detach().clone() for i in self.at]

    def __call__(self, *tensors, run=None):
        args = list(self.args)
        for i, x in zip(self.at, tensors, strict=True):
            args[i] = x
        outputs = as_tuple(run(*args) if run else self.case.run(args, self.backend))
        return tuple(o for o in outputs if o.numel())

    def spec(self, *tensors):
        return self(*tensors, run=self.case.reference)

    def leaves(self):
        return [x.requires_grad_() for x in self.tensors]


def near(got, expected):
    got, expected = (torch.cat([x.detach().double().flatten() for x in side]) for side in (got, expected))
    assert relative_error(got, expected) <= bound(torch.float32, 0.0, 100)


@pytest.mark.parametrize(("op", "backend"), FLOAT64)
def test_first_derivatives_are_those_of_finite_differences(op, backend):
    word = Floating(op, backend)
    assert gradcheck(word, word.leaves(), check_forward_ad=True, check_batched_grad=True, nondet_tol=TWICE)


@pytest.mark.parametrize(("op", "backend"), SECOND)
def test_second_derivatives_are_those_of_finite_differences(op, backend):
    word = Floating(op, backend)
    assert gradgradcheck(word, word.leaves(), check_fwd_over_rev=True, nondet_tol=TWICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "backend"), EACH)
def test_backward_is_that_of_the_reference(op, backend, dtype):
    word = Floating(op, backend, dtype)
    got, plain, wide = word.leaves(), word.leaves(), [x.double().requires_grad_() for x in word.tensors]
    for outputs in (word(*got), word.spec(*plain), word.spec(*wide)):
        sum((o * torch.arange(1.0, o.numel() + 1).view(o.shape)).sum() for o in outputs).backward()
    for x, y, truth in zip(got, plain, wide, strict=True):
        assert x.grad.dtype == x.dtype
        assert relative_error(x.grad, truth.grad) <= bound(x.dtype, relative_error(y.grad, truth.grad), 100)


@pytest.mark.quick
@pytest.mark.parametrize(("op", "backend"), EACH)
def test_jvp_is_that_of_the_reference(op, backend):
    word = Floating(op, backend, torch.float32)
    tensors, tangents = tuple(word.tensors), tuple(Floating(op, backend, torch.float32, seed=1).tensors)
    wide = [tuple(x.double() for x in side) for side in (tensors, tangents)]
    near(torch.func.jvp(word, tensors, tangents)[1], torch.func.jvp(word.spec, *wide)[1])


@pytest.mark.parametrize(("op", "backend"), EACH)
def test_a_tangent_on_one_tensor_alone(op, backend):
    word = Floating(op, backend, torch.float32)
    tensors, tangents = word.tensors, Floating(op, backend, torch.float32, seed=1).tensors
    for i, tangent in enumerate(tangents):
        with forward_ad.dual_level():
            dual = [forward_ad.make_dual(x, tangent) if j == i else x for j, x in enumerate(tensors)]
            got = [forward_ad.unpack_dual(o).tangent for o in word(*dual)]
        alone = tuple(tangent if j == i else torch.zeros_like(x) for j, x in enumerate(tensors))
        expected = torch.func.jvp(word.spec, tuple(tensors), alone)[1]
        near([torch.zeros_like(e) if t is None else t for t, e in zip(got, expected, strict=True)], expected)


@pytest.mark.parametrize(("op", "backend"), EACH)
def test_a_frozen_tensor_gets_no_gradient(op, backend):
    word = Floating(op, backend, torch.float32)
    for i in range(len(word.at)):
        tensors = word.tensors
        tensors[i].requires_grad_()
        sum(o.sum() for o in word(*tensors)).backward()
        assert [x.grad is not None for x in tensors] == [j == i for j in range(len(tensors))]


@pytest.mark.parametrize(("op", "backend"), EACH)
def test_vmap_is_one_call_an_item(op, backend):
    words = [Floating(op, backend, torch.float32, seed) for seed in range(3)]
    word, items = words[0], [w.tensors for w in words]
    for batched in ([True] * len(word.at), [i % 2 == 0 for i in range(len(word.at))]):
        in_dims = tuple(items[0][i].ndim if b else None for i, b in enumerate(batched))
        each_tensor = zip(zip(*items, strict=True), in_dims, strict=True)
        stacked = [x[0] if dim is None else torch.stack(x, dim) for x, dim in each_tensor]
        each = [[item[i] if b else items[0][i] for i, b in enumerate(batched)] for item in items]
        expected = [torch.stack(outputs) for outputs in zip(*(word(*x) for x in each), strict=True)]
        wide = [word.spec(*(t.double() for t in x)) for x in each]
        truth = [torch.stack(outputs) for outputs in zip(*wide, strict=True)]
        for results in zip(torch.vmap(word, in_dims)(*stacked), expected, truth, strict=True):
            assert same(*results, backend, word.case.terms(*word.case.small))


@pytest.mark.parametrize(("op", "backend"), SECOND)
def test_hessian_and_mixed_modes_compose(op, backend):
    word = Floating(op, backend)
    first, *others = word.tensors

    def of_first(function):
        return lambda x: sum(o.pow(2).sum() for o in function(x, *others))

    for transform in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacfwd(f))):
        near([transform(of_first(word))(first)], [transform(of_first(word.spec))(first)])
