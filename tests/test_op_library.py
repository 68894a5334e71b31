"""torch.ops.fastrw.* in torch's own machinery: opcheck, torch.compile, and no silent derivative."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from fastrw.ops import library, self_test
from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import bound, relative_error
from tests.op_cases import CASES, OF_CPU, SERVED, need, same, widened
from tests.tiers import covering, some

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at the first tangent
KERNELS = [pair for pair in OF_CPU if pair[1] != "reference"]


def bare(op, backend):
    return getattr(torch.ops.fastrw, op if backend == "cpp" else f"{op}_{backend}")


@pytest.mark.parametrize(
    ("op", "backend", "dtype"),
    [x for x in SERVED if x[1] != "reference" and x[2] == torch.float32]
    + covering(x for x in SERVED if x[1] == "cpp" and x[2] != torch.float32),
    ids=str,
)
def test_opcheck(op, backend, dtype):
    case = CASES[op]
    few = backend == "triton"  # the interpreter is slow
    for layout in ("margin",) if few else ("plain", "margin", "transposed"):
        if layout in case.layouts:
            of_all = (case.small,) if few else (case.sizes[0], *case.sizes[-2:])
            for sizes in of_all if layout == "plain" and dtype == torch.float32 else some(of_all, 1):
                args = case.args(sizes, dtype, layout)
                need(op, backend, args)
                opcheck(bare(op, backend).default, case.nest(*args))


@pytest.mark.parametrize(("op", "backend"), OF_CPU)
def test_compile_keeps_values_and_derivatives(monkeypatch, op, backend):
    case = CASES[op]
    need(op, backend, case.args(case.small))
    monkeypatch.setattr(self_test, "_verdicts", {})
    torch._dynamo.reset()  # it counts the compilations of this function over all ops

    def word(*args):
        return as_tuple(case.run(args, backend))

    def derivatives(outputs, args):
        tensors = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
        return torch.autograd.grad(sum(o.sin().sum() for o in outputs), tensors)

    compiled = torch.compile(word, fullgraph=True, backend="aot_eager", dynamic=False)
    for sizes in [case.small] if backend == "triton" else some(case.sizes[:2], 1):
        args, K = case.args(sizes), case.terms(*sizes)
        wide = widened(args)
        for x in (*args, *wide):
            if isinstance(x, Tensor) and x.is_floating_point():
                x.requires_grad_()
        outputs, expected, truths = compiled(*args), word(*args), as_tuple(case.reference(*wide))
        assert all(same(*three, backend, K) for three in zip(outputs, expected, truths, strict=True))
        if case.derivatives:
            each = (derivatives(*pair) for pair in ((outputs, args), (expected, args), (truths, wide)))
            for got, plain, truth in zip(*each, strict=True):
                assert relative_error(got, truth) <= bound(got.dtype, relative_error(plain, truth), K)


@pytest.mark.parametrize(("op", "backend"), KERNELS)
def test_the_bare_op_refuses_to_be_differentiated(op, backend):
    case = CASES[op]
    args = case.args(case.small)
    need(op, backend, args)
    run = bare(op, backend)
    refused = pytest.raises(RuntimeError, match=f"torch.ops.fastrw.{run.__name__} has no derivatives")
    first = next(i for i, x in enumerate(args) if isinstance(x, Tensor) and x.is_floating_point())

    def of_first(x):
        return run(*case.nest(*args[:first], x, *args[first + 1 :]))

    with refused:
        of_first(args[first].clone().requires_grad_())
    with refused:
        torch.func.jvp(of_first, (args[first],), (args[first],))
    with refused, forward_ad.dual_level():
        of_first(forward_ad.make_dual(args[first], args[first]))
    pairs = zip(as_tuple(run(*case.nest(*args))), as_tuple(case.run(args, backend)), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs or {})


class Odd(Tensor):
    pass


def test_a_launcher_is_called_by_the_dispatcher_only_where_something_watches():
    taken, x = [], torch.ones(2)
    run = library.directly(lambda *args: taken.append("launcher"), lambda *args: taken.append("op"))
    run(x, None, [3])
    run(torch.nn.Parameter(x), 1.0)
    with Watch():
        run(x)
    with FakeTensorMode():
        run(x)
    run(x.as_subclass(Odd))
    torch.func.vmap(lambda t: run(t) or t)(x)
    assert taken == ["launcher"] * 2 + ["op"] * 4
