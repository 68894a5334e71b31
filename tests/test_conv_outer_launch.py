"""The two ways of conv_outer in Triton, in every config, layout and kind of layer."""

from itertools import product

import pytest
import torch

from fastrw.ops import backends, reference
from fastrw.ops.tolerance import bound, relative_error
from tests import interpreter
from tests.convolutions import LAYERS, arguments
from tests.launch import check
from tests.op_cases.draw import LAYOUTS, NAN, Draw
from tests.tiers import covering

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels import conv_instance
from fastrw.kernels.conv_outer import _masked, _rows, launch_conv_outer

INF = float("inf")
OF_LAYERS = [*((layer, "plain") for layer in LAYERS), *(("stem", layout) for layout in LAYOUTS)]


def drawn(n, layer, dtype, layout="plain"):
    """x, g, w and the rest; examples of weight 0 hold what is not finite."""
    x, g, _, _, *options = arguments(n, layer, dtype, layout)
    w = Draw(dtype, layout).weights(n)
    w[0], w[-1] = 0, 0.3
    x[w == 0], g[w == 0] = NAN, INF
    return x, g, w, *options


def masked(x, g, w, kernel, *options):
    """What a GPU takes where chunks of sums would be larger than the operands."""
    return _masked(x, g, (g.shape[1], x.shape[1] // options[-1], *kernel), options)(x, g, w)


def finite(x, g, w, *rest):
    """The arguments with zeros where the weight is 0, and in float64."""
    dead = (w == 0).view(-1, *[1] * (x.ndim - 1))
    args = x.masked_fill(dead, 0), g.masked_fill(dead, 0), w, *rest
    return args, [t.double() if isinstance(t, torch.Tensor) else t for t in args]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("layer", "layout"), covering(OF_LAYERS))
def test_masked_operands_give_the_sum_to_their_precision(layer, layout, dtype):
    args = drawn(5, layer, dtype, layout)
    got, (truth, plain) = masked(*args), (reference.conv_outer(*of) for of in reversed(finite(*args)))
    assert (got.dtype, got.shape, got.isfinite().all()) == (torch.float32, truth.shape, True)
    terms = args[1][:, 0].numel() if dtype == torch.float32 else 1  # else rounded once
    assert relative_error(got, truth) <= bound(dtype, relative_error(plain, truth), terms)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_operands_lie_as_they_lay(layout, monkeypatch):
    """Channels-last ones stay so: cuDNN has other kernels for them."""
    x, g, w, *options = drawn(3, "aligned", torch.bfloat16, layout)
    taken = []
    monkeypatch.setattr("fastrw.kernels.conv_outer._weight_gradient", lambda *args: taken.append(args))
    masked(x, g, w, *options)
    for t, got in zip((x, g), taken[0], strict=False):
        order = sorted(range(1, t.ndim), key=t.stride, reverse=True)
        assert got.permute(0, *order).is_contiguous()
        scale = 1 if t is x else w.view(-1, 1, 1, 1)
        wanted = torch.where(w.view(-1, 1, 1, 1) == 0, 0, t.float() * scale)
        assert torch.equal(got, wanted.to(t.dtype))


@pytest.mark.parametrize(
    ("layer", "layout", "dtype"),
    covering((*of, dtype) for of in OF_LAYERS for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    ids=str,
)
def test_weighted_sums_of_chunks_are_exact(layer, layout, dtype):
    """The interpreter raises at a stray address, margins included."""
    args = drawn(3, layer, dtype, layout)
    check(launch_conv_outer(*args), reference.conv_outer, finite(*args)[0], args[1][:, 0].numel())
    x, g, _, *rest = drawn(3, layer, dtype, layout)
    args = [x.nan_to_num(1, 1, 1), g.nan_to_num(1, 1, 1), None, *rest]
    check(launch_conv_outer(*args), reference.conv_outer, args, args[1][:, 0].numel())


@pytest.mark.parametrize(
    ("config", "dtype"), covering(product(conv_instance.WIDE, [torch.bfloat16, torch.float16])), ids=str
)
def test_every_config_of_weighted_sums(config, dtype, monkeypatch):
    monkeypatch.setattr(conv_instance, "WIDE", [config])
    monkeypatch.setattr("fastrw.kernels.conv_outer.sm_count", lambda device: 3)  # chunks
    args = drawn(5, "aligned", dtype, "channels last")
    check(launch_conv_outer(*args), reference.conv_outer, finite(*args)[0], args[1][:, 0].numel())


def test_no_example_and_no_weight():
    for n, weight in ((0, 1.0), (3, 0.0)):
        x, g, _, *options = drawn(max(n, 1), "stem", torch.float32)
        assert (launch_conv_outer(x[:n], g[:n], torch.full((n,), weight), *options) == 0).all()
        if n:
            assert (masked(x, g, torch.full((n,), weight), *options) == 0).all()


def test_rows_are_copied_only_where_an_example_is_not_dense():
    x = torch.randn(3, 4, 5, 6)
    for lies, of in (
        (True, x),
        (True, x.movedim(1, -1).contiguous().movedim(-1, 1)),
        (True, x[::2]),
        (False, x[..., :5]),
    ):
        rows, (shape, _) = _rows(of)
        assert (rows.data_ptr() == of.data_ptr()) == lies
        assert shape == of.shape == (len(rows), *of.shape[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_self_test_has_an_input_for_either_way(dtype):
    """To the bit, as it asks."""
    op = backends.get("conv_outer")
    first, second = op.draws(torch.device("cpu"), dtype)
    for args in (first, second):
        truth = op.backends["reference"].run(*args)
        assert torch.equal(masked(*args), truth)
        assert torch.equal(launch_conv_outer(*args), truth)
    sizes = [((x.numel() + g.numel()) * x.element_size(), 4 * g.shape[1] * x.shape[1] // groups * kernel[0] * kernel[1])
             for x, g, _, kernel, *_, groups in (first, second)]  # fmt: skip
    assert sizes[0][0] >= len(first[0]) * sizes[0][1]  # chunks of sums, however many
    assert sizes[1][0] < sizes[1][1]
