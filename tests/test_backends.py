"""The registry: auto takes the first that can, a name serves or raises with its reason, a broken backend is found."""

from dataclasses import replace

import pytest
import torch

from fastrw.errors import Refused
from fastrw.ops import backends, gram_dot, self_test
from tests.op_cases import check
from tests.op_cases.gram_dot import matrices


def plant(monkeypatch, run, can=lambda *tensors: None):
    """gram_dot with one more backend, "planted", that auto would take first."""
    served = backends.get("gram_dot")
    planted = {**served.backends, "planted": backends.Backend("planted", can, run)}
    order = {"cpu": ("planted", *served.order["cpu"])}
    op = replace(served, backends=planted, order=order, chosen={})
    monkeypatch.setitem(backends._ops, "gram_dot", op)
    return op


def right(*args):
    return backends.get("gram_dot").backends["reference"].run(*args)


BROKEN = {
    "zeros": (lambda *args: torch.zeros_like(right(*args)), "relative error is 1.0e"),
    "one wrong row": (lambda *args: right(*args).index_fill(0, torch.tensor(34), 0.0), "relative error is"),
    "no bias": (lambda *args: right(*args[:4], 0.0), "relative error is"),
    "float64": (lambda *args: right(*args).double(), "returned torch.float64"),
    "two columns": (lambda *args: right(*args)[:, None].expand(-1, 2), "(35, 2)"),
    "raises": (lambda *args: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_backend_is_refused_with_its_reason(monkeypatch, fault):
    run, reason = BROKEN[fault]
    plant(monkeypatch, run)
    tensors = matrices(5, 3, 4, 2)
    with pytest.warns(self_test.BrokenBackend, match="fastrw.gram_dot: backend 'planted' failed its self-test"):
        assert backends.choose("gram_dot", "auto", *tensors).name != "planted"
    with pytest.raises(Refused, match="got 'planted', which failed its self-test on cpu") as caught:
        gram_dot(*tensors, backend="planted")
    assert reason in str(caught.value)


def test_a_backend_proves_itself_once_per_device_and_dtype(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args[0].dtype)
        return right(*args)

    plant(monkeypatch, counted)
    for dtype in (torch.float32, torch.float32, torch.bfloat16):
        assert backends.choose("gram_dot", "auto", *matrices(2, 2, 2, 2, dtype=dtype)).name == "planted"
    assert calls == [torch.float32, torch.bfloat16]


def test_cudnn_takes_one_algorithm_in_the_self_test_and_where_an_op_is_checked(monkeypatch):
    """One that a benchmark of the user's finds may not be exact."""
    cudnn, seen = torch.backends.cudnn, []

    def seeing(*args):
        seen.append((cudnn.deterministic, cudnn.benchmark))
        return right(*args)

    plant(monkeypatch, seeing)
    monkeypatch.setattr(cudnn, "benchmark", True)
    gram_dot(*matrices(2, 2, 2, 2), backend="planted")
    assert seen == [(True, False), (False, True)]
    check("gram_dot", (2, 2, 2, 2), backend="planted")
    assert seen[2:] == [(True, False)] * 2
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)


def test_the_self_test_draws_no_random_number(monkeypatch):
    plant(monkeypatch, right)
    state = torch.get_rng_state()
    gram_dot(*matrices(2, 2, 2, 2), backend="planted")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", sorted({*backends.names()} - {"batch_norm_tangent"}))  # its result is rounded to x's
def test_the_sample_is_exact_in_every_dtype(name):
    op, results = backends.get(name), {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        outputs = self_test.as_tuple(op.backends["reference"].run(*op.draw(torch.device("cpu"), dtype)))
        results[dtype] = torch.cat([x.double().flatten() for x in outputs])
    assert all(torch.equal(s, results[torch.float64]) for s in results.values())
    assert results[torch.float64].unique().numel() > (20 if name == "gram_dot" else 3)


def test_the_self_test_waits_for_the_end_of_a_capture(monkeypatch):
    op = plant(monkeypatch, lambda *args: pytest.fail("ran inside the capture"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    reason = self_test.verdict(op, op.backends["planted"], torch.device("cuda", 0), torch.float32)
    assert "call the op once outside" in reason
    assert not any(op is key[0] for key in self_test._verdicts)


def test_auto_falls_to_the_reference_when_nothing_faster_can(monkeypatch):
    op = plant(monkeypatch, right, can=lambda *tensors: "is closed")
    closed = replace(op, order={"cpu": ("planted",)}, chosen={})
    monkeypatch.setitem(backends._ops, "gram_dot", closed)
    assert backends.choose("gram_dot", "auto", *matrices(2, 2, 2, 2)).name == "reference"
    with pytest.raises(Refused, match="got 'planted', which is closed"):
        gram_dot(*matrices(2, 2, 2, 2), backend="planted")


def test_what_a_compiler_may_fuse_is_the_reference_while_it_records(monkeypatch):
    op = plant(monkeypatch, right)
    monkeypatch.setitem(backends._ops, "gram_dot", replace(op, order={"cpu": ("planted",)}, chosen={}))

    def auto():
        return backends.choose("gram_dot", "auto", *matrices(2, 2, 2, 2)).name

    with backends.fusing("cpu", "gram_dot"):
        with backends.fusing("cpu", "gram_dot"), backends.fused():
            assert auto() == "reference"
        with backends.fused():
            assert auto() == "reference"
        assert auto() == "planted"
    with backends.fusing("cuda", "gram_dot"), backends.fused():
        assert auto() == "planted"
    with backends.fused():
        assert auto() == "planted"


def test_an_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match="must be one of auto, reference, cpp, cuda, triton, got 'numpy'"):
        gram_dot(*matrices(2, 2, 2, 2), backend="numpy")


def test_cuda_refuses_cpu_tensors():
    with pytest.raises(Refused, match=r"fastrw.gram_dot: backend must be able to serve .*, got 'cuda', which"):
        gram_dot(*matrices(2, 2, 2, 2), backend="cuda")


def test_triton_refuses_float64():
    with pytest.raises(Refused, match=r"'triton', which serves float32, bfloat16 and float16, got torch.float64"):
        gram_dot(*matrices(2, 2, 2, 2, dtype=torch.float64), backend="triton")


@pytest.mark.filterwarnings("ignore::fastrw.ops.self_test.BrokenBackend")
def test_status_gives_every_backend_a_row_and_every_refusal_a_reason(monkeypatch):
    plant(monkeypatch, BROKEN["zeros"][0])
    rows = {row.backend: row for row in backends.status() if row.op == "gram_dot"}
    assert list(rows) == ["reference", "cpp", "cuda", "triton", "planted"]
    assert rows["reference"].serves
    assert not rows["planted"].serves
    assert all(row.serves == (row.reason is None) for row in rows.values())
