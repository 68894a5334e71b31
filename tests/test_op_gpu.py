"""Every op on a GPU, CUDA and Triton: right, bit-equal in every run, inside a CUDA graph, on any device and stream."""

import pytest
import torch
from torch import Tensor

from fastrw.ops import backends, self_test
from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import relative_error
from tests.op_cases import CASES, allowed, check, need, widened

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("one_algorithm"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch's own, at the first tangent
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
each = pytest.mark.parametrize(("op", "backend"), [(op, backend) for op in CASES for backend in ("cuda", "triton")])


MULTIPLY = {  # op -> the setting that its float32 products follow
    **dict.fromkeys(("gram_dot", "grouped_gram_dot", "project_dot", "weighted_outer"), torch.backends.cuda.matmul),
    **dict.fromkeys(("conv_dot", "conv_instance", "conv_outer"), torch.backends.cudnn.conv),
}


def arguments(op, backend, which=0, **options):
    args = CASES[op].args(CASES[op].sizes[which], device="cuda", **options)
    need(op, backend, args)
    return args


def equal(got, expected):
    return all(torch.equal(x, y) for x, y in zip(as_tuple(got), as_tuple(expected), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each
def test_values(op, backend, dtype):
    arguments(op, backend, dtype=dtype)
    for sizes in (*CASES[op].sizes, *CASES[op].large):
        check(op, sizes, dtype=dtype, backend=backend, device="cuda")


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("op", "backend"), [(op, backend) for op in MULTIPLY for backend in ("cuda", "triton")])
def test_values_where_tf32_is_allowed(float32_settings, op, backend, own):
    """For products like those of the op, or for the others alone: then it is as precise as without."""
    arguments(op, backend)
    for setting in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        setting.fp32_precision = "tf32" if (setting is MULTIPLY[op]) == own else "ieee"
    for sizes in (*CASES[op].sizes[:2], *CASES[op].large):
        check(op, sizes, backend=backend, device="cuda", tf32=own)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each
def test_layouts(op, backend, dtype):
    arguments(op, backend, dtype=dtype)
    for layout in CASES[op].layouts:
        for sizes in CASES[op].sizes[:2]:
            check(op, sizes, dtype=dtype, layout=layout, backend=backend, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each
def test_the_self_test_passes(op, backend, dtype):
    served = backends.get(op)
    assert self_test.refusal(served, served.backends[backend], *arguments(op, backend, dtype=dtype)) is None


@each
def test_a_cuda_graph_replays_it_on_new_numbers(op, backend):
    args, fresh = arguments(op, backend), arguments(op, backend, seed=1)
    CASES[op].run(args, backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = CASES[op].run(args, backend)
    for x, y in zip(args, fresh, strict=True):
        if isinstance(x, Tensor):
            x.copy_(y)
    graph.replay()
    assert equal(outputs, CASES[op].run(fresh, backend))


@each
def test_it_runs_on_the_current_stream(op, backend):
    args = arguments(op, backend)
    expected, stream = CASES[op].run(args, backend), torch.cuda.Stream()
    late = [torch.zeros_like(x) if isinstance(x, Tensor) else x for x in args]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        for x, y in zip(late, args, strict=True):
            if isinstance(x, Tensor):
                x.copy_(y)
        outputs = CASES[op].run(late, backend)
    stream.synchronize()
    assert equal(outputs, expected)


@each
def test_derivatives_are_those_of_the_reference(op, backend):
    if not CASES[op].derivatives:
        pytest.skip("the op has none")
    args = arguments(op, backend)
    results = []
    for name, of_one in ((backend, args), ("reference", args), ("reference", widened(args))):
        leaves = [x.detach().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in of_one]
        total = sum(o.sum() for o in as_tuple(CASES[op].run(leaves, name)))
        leaves = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
        results.append(torch.autograd.grad(total, leaves))
    K = CASES[op].terms(*CASES[op].sizes[0])
    for got, plain, truth in zip(*results, strict=True):
        assert relative_error(got, truth) <= allowed(got, plain, truth, K)


@each
def test_torch_compile_keeps_it_whole(op, backend):
    args = arguments(op, backend)
    torch.compiler.reset()  # one function for all ops, which may be compiled few times
    compiled = torch.compile(lambda *x: CASES[op].run(x, backend), fullgraph=True, backend="aot_eager")
    assert equal(compiled(*args), CASES[op].run(args, backend))


@each
def test_float64_is_refused_by_name_and_served_by_auto(op, backend):
    arguments(op, backend)
    args = CASES[op].args(CASES[op].sizes[0], torch.float64, device="cuda")
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got torch.float64"):
        CASES[op].run(args, backend)
    assert backends.choose(op, "auto", *args).name == "reference"
    check(op, CASES[op].sizes[0], dtype=torch.float64, device="cuda")
