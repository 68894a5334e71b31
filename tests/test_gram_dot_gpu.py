"""gram_dot on a GPU, CUDA and Triton: right, bit-equal in every run, inside a CUDA graph, on any device and stream."""

import pytest
import torch

from fastrw.ops import backends, gram_dot
from tests.gram_dot_cases import LAYOUTS, SIZES, check, matrices, need

pytestmark = pytest.mark.gpu
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BACKENDS = ("cuda", "triton")
LARGE = [(1000, 300, 1000, 500), (4096, 512, 768, 3072), (128, 32, 1024, 1024), (65537, 17, 64, 48)]


@pytest.mark.parametrize("sizes", [*SIZES, *LARGE], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_values(backend, dtype, sizes):
    need(backend, *matrices(1, 1, 1, 1, dtype, device="cuda"))
    for bias in (1.0, 0.0):
        check(*sizes, dtype=dtype, backend=backend, bias=bias, device="cuda")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts(backend, dtype, layout):
    need(backend, *matrices(1, 1, 1, 1, dtype, device="cuda"))
    for sizes in ((37, 19, 45, 10), (300, 70, 64, 48)):
        check(*sizes, dtype=dtype, layout=layout, backend=backend, device="cuda")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_passes_its_self_test(backend):
    served = backends.get("gram_dot")
    for dtype in DTYPES:
        tensors = matrices(1, 1, 1, 1, dtype, device="cuda")
        assert served.refusal(served.backends[backend], *tensors) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_bad_row_leaves_the_others_unharmed(backend):
    tensors = matrices(300, 70, 64, 48, device="cuda")
    need(backend, *tensors)
    clean = gram_dot(*tensors, backend=backend)
    tensors[0][299, 3] = float("nan")
    s = gram_dot(*tensors, backend=backend)
    assert s[299].isnan()
    assert torch.equal(s[:299], clean[:299])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cuda_graph_replays_it_on_new_numbers(backend):
    tensors, fresh = matrices(300, 70, 64, 48, device="cuda"), matrices(300, 70, 64, 48, seed=1, device="cuda")
    need(backend, *tensors)
    gram_dot(*tensors, backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        s = gram_dot(*tensors, backend=backend)
    for x, y in zip(tensors, fresh, strict=True):
        x.copy_(y)
    graph.replay()
    assert torch.equal(s, gram_dot(*fresh, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_runs_on_the_current_stream(backend):
    tensors = matrices(300, 70, 64, 48, device="cuda")
    need(backend, *tensors)
    expected, stream = gram_dot(*tensors, backend=backend), torch.cuda.Stream()
    late = [torch.zeros_like(x) for x in tensors]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        for x, y in zip(late, tensors, strict=True):
            x.copy_(y)
        s = gram_dot(*late, backend=backend)
    stream.synchronize()
    assert torch.equal(s, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at the first tangent
def test_derivatives_are_those_of_the_reference(backend):
    tensors, tangents = matrices(30, 7, 64, 48, device="cuda"), matrices(30, 7, 64, 48, seed=1, device="cuda")
    need(backend, *tensors)
    results = []
    for name in (backend, "reference"):
        leaves = [x.clone().requires_grad_() for x in tensors]
        gradients = torch.autograd.grad(gram_dot(*leaves, backend=name).sum(), leaves)
        tangent = torch.func.jvp(lambda *x, name=name: gram_dot(*x, backend=name), tuple(tensors), tuple(tangents))[1]
        results.append((*gradients, tangent))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile_keeps_it_whole(backend):
    tensors = matrices(30, 7, 64, 48, device="cuda")
    need(backend, *tensors)
    compiled = torch.compile(lambda *x: gram_dot(*x, backend=backend).sin(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors), gram_dot(*tensors, backend=backend).sin())


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_is_refused_by_name_and_served_by_auto(backend):
    tensors = matrices(5, 3, 4, 2, torch.float64, device="cuda")
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got torch.float64"):
        gram_dot(*tensors, backend=backend)
    assert backends.choose("gram_dot", "auto", *tensors).name == "reference"
    check(5, 3, 4, 2, dtype=torch.float64, device="cuda")
