"""float32 products are as precise as torch is told to take its own, in kernels on a GPU; and what judges results knows
how precise they can be."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fastrw
from fastrw.api import rows
from fastrw.engine import rounding, step
from fastrw.kernels import precision as of_kernels
from fastrw.nodes import precision
from fastrw.ops import conv_dot, reference
from fastrw.ops.conv_dot import in_two_terms
from fastrw.ops.tolerance import relative_error
from tests import settings
from tests.launch import to_tf32
from tests.op_cases import CASES
from tests.test_field_batches import were_joined

pytestmark = pytest.mark.usefixtures("float32_settings")
b = torch.backends
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def tell(**told):
    """Sets what torch is told; names spell attributes of torch.backends, from torch's default for convolutions on."""
    b.cudnn.allow_tf32 = True
    for name, value in told.items():
        *path, last = name.split("__")
        of = b
        for part in path:
            of = getattr(of, part)
        setattr(of, last, value)


@pytest.mark.parametrize(
    ("told", "products", "convolutions"),
    [
        ({}, "ieee", "tf32"),
        ({"fp32_precision": "tf32"}, "tf32", "tf32"),
        ({"cudnn__allow_tf32": False}, "ieee", "ieee"),
        ({"cudnn__allow_tf32": False, "fp32_precision": "tf32"}, "tf32", "tf32"),
        ({"cudnn__allow_tf32": False, "cudnn__fp32_precision": "tf32"}, "tf32", "tf32"),
        ({"cudnn__allow_tf32": False, "fp32_precision": "tf32", "cudnn__fp32_precision": "ieee"}, "ieee", "ieee"),
        ({"cudnn__allow_tf32": False, "fp32_precision": "bf16"}, "ieee", "ieee"),
        ({"cudnn__conv__fp32_precision": "ieee"}, "ieee", "ieee"),
        ({"cudnn__conv__fp32_precision": "none"}, "ieee", "ieee"),
        ({"cudnn__conv__fp32_precision": "none", "fp32_precision": "tf32"}, "tf32", "tf32"),
        ({"cudnn__conv__fp32_precision": "ieee", "fp32_precision": "tf32"}, "tf32", "ieee"),
        ({"cuda__matmul__allow_tf32": True}, "tf32", "tf32"),
        ({"cuda__matmul__allow_tf32": True, "cudnn__allow_tf32": False}, "tf32", "ieee"),
        ({"cuda__matmul__fp32_precision": "tf32", "cudnn__conv__fp32_precision": "ieee"}, "tf32", "ieee"),
        ({"cuda__matmul__fp32_precision": "ieee", "fp32_precision": "tf32"}, "ieee", "tf32"),
        ({"cuda__matmul__allow_tf32": False, "fp32_precision": "tf32"}, "ieee", "tf32"),
        # both interfaces, one against the other: the older getters raise
        ({"cuda__matmul__allow_tf32": True, "cuda__matmul__fp32_precision": "ieee"}, "ieee", "tf32"),
        ({"cuda__matmul__fp32_precision": "tf32", "cudnn__conv__fp32_precision": "ieee"}, "tf32", "ieee"),
        ({"mkldnn__matmul__fp32_precision": "bf16"}, "ieee", "tf32"),
    ],
    ids=str,
)
def test_every_way_of_saying_it_is_understood(told, products, convolutions):
    tell(**told)
    assert (of_kernels.of_products(), of_kernels.of_convolutions()) == (products, convolutions)


@pytest.mark.parametrize(("word", "products"), [("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")])
def test_the_word_for_products_says_nothing_of_convolutions(word, products):
    tell(cudnn__allow_tf32=False)
    torch.set_float32_matmul_precision(word)
    assert (of_kernels.of_products(), of_kernels.of_convolutions()) == (products, "ieee")


def test_the_settings_of_tests_are_put_back_from_any_state():
    for value in ("tf32", "ieee", "none"):
        tell(fp32_precision=value, cuda__matmul__allow_tf32=True, cudnn__conv__fp32_precision="ieee")
        torch.set_float32_matmul_precision("medium")
        settings.no_tf32()
        assert {*precision.told(CUDA), *precision.told(CPU)} == {"none"}
        assert not b.cuda.matmul.allow_tf32 and not b.cudnn.allow_tf32  # the older getters agree


@pytest.mark.parametrize("setting", ["products", "convolutions"])
@pytest.mark.parametrize("op", ["gram_dot", "project_dot", "weighted_outer", "conv_dot", "conv_instance"])
def test_a_kernel_follows_the_setting_for_its_kind_of_product(op, setting):
    """Numbers that TF32 has not, no two of them alike; in Triton's interpreter."""
    tell(cudnn__allow_tf32=setting == "convolutions", cuda__matmul__allow_tf32=setting == "products")
    case = CASES[op]
    args = case.args(case.sizes[0], positive=True)
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in args]
    got, truth = (x if isinstance(x, torch.Tensor) else x[0] for x in (case.run(args, "triton"), case.reference(*wide)))
    own = setting == ("convolutions" if op.startswith("conv") else "products")
    error = relative_error(got, truth)
    assert 1e-5 < error < 1e-3 if own else error < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_by_32_are_exact_whatever_torch_is_told(dtype):
    """By the Triton kernel, and by the CUDA kernel, which calls torch's convolution: here one that rounds to TF32."""
    tell(fp32_precision="tf32", cudnn__conv__fp32_precision="tf32")
    case = CASES["conv_dot"]
    args = case.args(case.sizes[0], dtype)
    assert args[2].dtype == args[3].dtype == torch.float32
    truth = reference.conv_dot(*(x.double() if isinstance(x, torch.Tensor) else x for x in args))

    def kernel(x, g, V, *options):
        return reference.conv_dot(to_tf32(x.float()), g.float(), to_tf32(V), *options)

    assert relative_error(kernel(*args), truth) > 1e-5
    for got in (in_two_terms(kernel)(*args), conv_dot(*args, backend="triton")):
        assert relative_error(got, truth) < 1e-6


def test_a_convolution_goes_through_cudnn_once_where_that_is_exact():
    args = CASES["conv_dot"].args(CASES["conv_dot"].sizes[0], torch.bfloat16)
    calls = []
    in_two_terms(lambda *args: calls.append(args) or 0)(*args)
    tell()
    in_two_terms(lambda *args: calls.append(args) or 0)(args[0], args[1], args[2].bfloat16(), *args[3:])
    assert len(calls) == 2


# ---- what judges


@pytest.fixture
def gpu(monkeypatch):
    """The CPU passes for a GPU that has TF32."""
    monkeypatch.setitem(precision.SETTINGS, "cpu", precision.SETTINGS["cuda"])
    monkeypatch.setattr(precision, "has_tf32", lambda device: True)


@pytest.mark.parametrize(
    ("name", "dtype", "told", "expected"),
    [
        ("AddmmBackward0", torch.float32, {}, torch.float32),  # the default of convolutions says nothing of products
        ("ConvolutionBackward0", torch.float32, {}, torch.float16),
        ("ConvolutionBackward0", torch.float32, {"cudnn__allow_tf32": False}, torch.float32),
        ("ConvolutionBackward0", torch.float64, {}, torch.float64),
        ("ConvolutionBackward0", torch.bfloat16, {}, torch.bfloat16),
        ("ConvertIndicesFromCooToCsrBackward0", torch.float32, {}, torch.float32),
        ("CudnnRnnBackward0", torch.float32, {}, torch.float16),
        ("CudnnRnnBackward0", torch.float32, {"cudnn__conv__fp32_precision": "ieee"}, torch.float16),
        ("AddmmBackward0", torch.float32, {"cuda__matmul__allow_tf32": True}, torch.float16),
        ("BmmBackward0", torch.complex64, {"cuda__matmul__allow_tf32": True}, torch.float16),
        ("ConvolutionBackward0", torch.float32, {"cudnn__allow_tf32": False, "cuda__matmul__allow_tf32": True},
         torch.float16),
        ("AddmmBackward0", torch.float32, {"fp32_precision": "bf16"}, torch.float32),  # no such thing on a GPU
        ("MmBackward0", torch.float16, {"cuda__matmul__allow_fp16_accumulation": True}, torch.bfloat16),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_gpu_rounds(monkeypatch, name, dtype, told, expected):
    tell(**told)
    for has in (True, False):
        monkeypatch.setattr(precision, "has_tf32", lambda device, has=has: has)
        found = precision.rounds_as(dtype, CUDA, precision.kinds(name))
        assert found == (expected if has or expected != torch.float16 else dtype)


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize(("word", "expected"), [("highest", 0), ("high", 1), ("medium", 2)])
def test_what_a_cpu_rounds(monkeypatch, word, expected, has):
    """As it is told, if it has the instructions: else float32 is float32, and is judged so."""
    for name in ("has_tf32", "has_bf16"):
        monkeypatch.setattr(precision, name, lambda device: has)
    torch.set_float32_matmul_precision(word)
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    assert precision.rounds_as(torch.float32, CPU) == kinds[expected if has else 0]
    assert precision.rounds_as(torch.float64, CPU) == torch.float64
    assert precision.rounds_as(torch.float32, torch.device("meta")) == torch.float32


@pytest.mark.parametrize("word", ["highest", "high", "medium"])
def test_a_cpu_that_rounds_serves_a_right_model(word):
    """Real bfloat16 products where the CPU has them."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision(word)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 9))
    reweighter = fastrw.Reweighter(model)
    for _ in range(4):
        batch, val_batch = ((torch.randn(k, 64), torch.randint(9, (k,))) for k in (96, 32))
        assert reweighter.backward(batch, val_batch).method == "layerwise"


def convolutional():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def dense():
    return nn.Sequential(nn.Flatten(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 3))


@pytest.mark.parametrize(
    ("make", "told", "excused"),
    [
        (convolutional, {}, True),
        (convolutional, {"cudnn__allow_tf32": False}, False),
        (dense, {}, False),
        (dense, {"cuda__matmul__fp32_precision": "tf32"}, True),
    ],
)
def test_an_error_as_large_as_that_of_tf32_is_excused_where_tf32_is_allowed(gpu, monkeypatch, make, told, excused):
    torch.manual_seed(0)
    tell(**told)
    f = cross_entropy(make()(torch.randn(9, 2, 5, 5)), torch.randint(3, (9,)), reduction="none")
    right = step.Pass.run

    def rounded(*args):
        found = right(*args)
        found.scores.mul_(1 + 4e-3)
        return found

    monkeypatch.setattr(step.Pass, "run", rounded)
    with nullcontext() if excused else pytest.raises(fastrw.Refused, match="must equal one gradient per example"):
        fastrw.backward(f[:6], f[6:].mean())


class Uneven(nn.Module):
    """What comes out depends a little on the size of the batch, as where another algorithm is chosen for it."""

    def __init__(self, frozen):
        super().__init__()
        self.features, self.frozen = nn.Conv2d(2, 4, 3), frozen
        self.features.requires_grad_(not frozen)
        self.last = nn.Linear(36, 3)

    def forward(self, x):
        h = self.features(x).flatten(1).relu()
        return self.last(h * (1 + 2e-5 * len(x)))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("allowed", [False, True])
def test_batches_are_joined_though_tf32_rounds_them_otherwise(gpu, allowed, frozen):
    """A frozen convolution is in no graph, but in the forward."""
    torch.manual_seed(0)
    tell(cudnn__allow_tf32=allowed)
    model = Uneven(frozen)
    batches = [(torch.randn(k, 2, 5, 5), torch.randint(3, (k,))) for k in (20, 9)]
    fastrw.Reweighter(model).backward(*batches)
    assert were_joined(model) == allowed


def test_what_a_forward_does_without_a_gradient_is_seen(gpu):
    tell()
    with rows.AcrossRows(3) as seen, torch.no_grad():
        nn.Linear(4, 4)(torch.ones(3, 4))
        assert seen.rounded == set()
        nn.Conv1d(4, 4, 1)(torch.ones(3, 4, 1))
    assert seen.rounded == {torch.float16}


def test_a_custom_function_may_be_made_of_anything(gpu):
    class Twice(torch.autograd.Function):
        forward = staticmethod(lambda ctx, x: 2 * x)
        backward = staticmethod(lambda ctx, g: 2 * g)

    tell()
    x = torch.ones(3, requires_grad=True)
    assert rounding.of(x.sin().sum()) == torch.float32
    assert rounding.of(Twice.apply(x).sum()) == torch.float16


def test_verify_knows_tf32(gpu):
    """The reference in float64 may be as far away as TF32 is."""
    torch.manual_seed(0)
    model = convolutional()
    batches = [(torch.randn(k, 2, 5, 5), torch.randint(3, (k,))) for k in (6, 3)]
    strict = fastrw.verify(model, *batches).rows[0].bound
    tell()
    assert strict <= 1e-5 < 2**-10 <= fastrw.verify(model, *batches).rows[0].bound
