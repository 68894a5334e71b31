"""torch.ops.fastrw.gram_dot in torch's own machinery: opcheck, torch.compile, and no silent derivative."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.library import opcheck

from fastrw.ops import gram_dot, self_test
from tests.gram_dot_cases import SERVED, SIZES, matrices, need

OPS = {"cpp": "gram_dot", "triton": "gram_dot_triton"}
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at the first tangent


@pytest.mark.parametrize("layout", ["plain", "margin", "transposed"])
@pytest.mark.parametrize(("backend", "dtype"), [pair for pair in SERVED if pair[0] in OPS], ids=str)
def test_opcheck(backend, dtype, layout):
    need(backend, *matrices(1, 1, 1, 1, dtype))
    op = getattr(torch.ops.fastrw, OPS[backend]).default
    for sizes in ((37, 19, 45, 10), *SIZES[-4:]):
        opcheck(op, (*matrices(*sizes, dtype, layout), 1.0))


@pytest.mark.parametrize("backend", ["reference", "cpp", "triton"])
def test_compile_keeps_values_and_derivatives(monkeypatch, backend):
    need(backend, *matrices(1, 1, 1, 1))
    monkeypatch.setattr(self_test, "_verdicts", {})

    def word(*tensors):
        return gram_dot(*tensors, 0.5, backend=backend).sin()

    def tangent(*tensors):
        return torch.func.jvp(word, tensors, tensors)[1]

    compiled = torch.compile(word, fullgraph=True, backend="aot_eager", dynamic=True)
    for sizes in ((37, 19, 45, 10), (5, 7, 64, 48)):
        tensors = [x.requires_grad_() for x in matrices(*sizes)]
        s, expected = compiled(*tensors), word(*tensors)
        assert torch.equal(s, expected)
        gradients, wanted = (torch.autograd.grad(x.sum(), tensors) for x in (s, expected))
        assert all(torch.equal(x, y) for x, y in zip(gradients, wanted, strict=True))
    plain = matrices(5, 7, 64, 48)
    assert torch.equal(torch.compile(tangent, fullgraph=True, backend="aot_eager")(*plain), tangent(*plain))


@pytest.mark.parametrize("backend", OPS)
def test_the_bare_op_refuses_to_be_differentiated(backend):
    tensors = matrices(4, 2, 3, 5)
    need(backend, *tensors)
    op = getattr(torch.ops.fastrw, OPS[backend])
    refused = pytest.raises(RuntimeError, match=f"torch.ops.fastrw.{OPS[backend]} has no derivatives")
    with refused:
        op(tensors[0].clone().requires_grad_(), *tensors[1:], 1.0)
    with refused:
        torch.func.jvp(lambda a: op(a, *tensors[1:], 1.0), (tensors[0],), (tensors[0],))
    with refused, forward_ad.dual_level():
        op(forward_ad.make_dual(tensors[0], tensors[0]), *tensors[1:], 1.0)
    assert torch.equal(op(*tensors, 1.0), gram_dot(*tensors, backend=backend))
