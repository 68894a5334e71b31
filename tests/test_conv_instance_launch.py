"""The Triton kernels of conv_instance and combine in every config, layout and kind of layer."""

from itertools import product

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.convolutions import LAYERS, arguments
from tests.launch import DTYPES, check, every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN, Draw
from tests.tiers import covering

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.combine import launch_combine
from fastrw.kernels.conv_instance import CONFIGS, _tiles, choose_config, launch_conv_instance, run_conv_instance
from fastrw.kernels.convolution import along_channels, convolution


def terms(V, g):
    return V[0].numel() * g[0].numel()


WAYS = [("aligned", "channels last"), ("stem", "margin")]


@pytest.mark.parametrize(
    ("family", "config", "way"), covering((*row, way) for way in WAYS for row in every(CONFIGS)), ids=str
)
def test_every_config_is_right(family, config, way):
    """On contiguous channels, aligned or not, and on others; each example, and the sum of chunks of them."""
    precision = "tf32" if family == "tf32" else "ieee"
    layer, layout = way
    x, g, V, _, kernel, *options = arguments(4, layer, DTYPES[family][0], layout, torch.float32)
    it = convolution(x, g, kernel, *options)
    (C, O), groups = it.channels, options[-1]
    tiles = groups * -(-O // config.BLOCK_O) * _tiles(C, it.taps, config)
    partial, G = torch.full((tiles, 3), NAN), torch.full((3, O * groups, it.taps, C), NAN)
    sums = torch.full((2, O * groups, it.taps, C), NAN)
    run_conv_instance(it, (1, 4), V.flatten(2), partial, G, precision, config)
    run_conv_instance(it, (1, 4), None, None, sums, precision, config)
    if family == "tf32":
        x, g = to_tf32(x.contiguous()), to_tf32(g.contiguous())
    got = partial.sum(0), G.transpose(2, 3).unflatten(3, kernel), V
    check(got, reference.conv_instance, [x[1:], g[1:], 3, V, kernel, *options], terms(V, g))
    summed = sums.sum(0).transpose(1, 2).unflatten(2, kernel)
    check(summed, reference.conv_outer, [x[1:], g[1:], None, kernel, *options], 3 * terms(V, g))


@pytest.mark.parametrize(
    ("layer", "layout"), covering([*((layer, "plain") for layer in LAYERS), *(("stem", layout) for layout in LAYOUTS)])
)
def test_every_layer_in_every_layout(layer, layout):
    """The interpreter raises at a stray address, margins included."""
    x, g, V, _, *options = arguments(3, layer, torch.bfloat16, layout)
    args = [x, g, 2, None, *options]
    check(launch_conv_instance(*args), reference.conv_instance, args, 3 * terms(V, g))


@pytest.mark.parametrize(
    ("C", "O", "groups", "size", "kernel", "step", "expected"),
    [
        (16, 16, 1, 32, 3, 1, 8),  # ResNet-32
        (32, 32, 1, 16, 3, 1, 8),
        (64, 64, 1, 8, 3, 1, 8),
        (16, 160, 1, 32, 3, 1, 8),  # WRN-28-10
        (160, 320, 1, 32, 3, 2, 8),
        (640, 640, 1, 8, 3, 1, 8),
        (16, 32, 1, 32, 3, 2, 1),  # elements are read too seldom for a copy to pay
        (32, 64, 1, 16, 1, 2, 1),
        (3, 16, 1, 32, 3, 1, 1),  # channels are no whole units of 16 bytes
        (32, 32, 32, 16, 3, 1, 1),
    ],
)
def test_contiguous_channels_are_made_where_elements_are_read_often(C, O, groups, size, kernel, step, expected):
    out = -(-size // step)
    x = torch.empty(110, C, size, size, dtype=torch.bfloat16, device="meta")
    g = torch.empty(110, O, out, out, dtype=torch.bfloat16, device="meta")
    it = convolution(x, g, [kernel] * 2, [step] * 2, [kernel // 2] * 2, [1, 1], groups)
    copied = along_channels(it)
    assert copied.unit == expected
    assert (copied.x.shape, copied.g.shape, copied[2:-1]) == (it.x.shape, it.g.shape, it[2:-1])
    assert copied is it if expected == 1 else copied.x.stride(1) == copied.g.stride(1) == 1


def test_only_what_lies_otherwise_is_copied():
    x, g = (torch.empty(9, 8, 6, 6, dtype=torch.bfloat16, device="meta") for _ in range(2))
    x = x.to(memory_format=torch.channels_last)
    it = convolution(x, g, [3, 3], [1, 1], [1, 1], [1, 1], 1)
    assert along_channels(it).x is it.x and along_channels(it).g is not it.g


@pytest.mark.parametrize(("dtype", "layout"), covering(product([torch.float32, torch.float16], LAYOUTS)), ids=str)
def test_a_copy_gives_what_its_original_gives(dtype, layout):
    x, g, V, _, *options = arguments(2, (16, 8, 2, ((4, 3, 1, 1, 1), (3, 3, 1, 1, 1))), dtype, layout)
    assert along_channels(convolution(x, g, *options)).unit > 1
    args = [x, g, 1, None, *options]
    check(launch_conv_instance(*args), reference.conv_instance, args, 2 * terms(V, g))


@pytest.mark.parametrize("n", [0, 2])
def test_no_training_or_no_validation_examples(n):
    x, g, V, _, *options = arguments(2, "stem", torch.float32)
    args = [x, g, n, None, *options]
    check(launch_conv_instance(*args), reference.conv_instance, args, 2 * terms(V, g))


def test_an_example_that_is_not_finite_leaves_the_others_unharmed():
    x, g, V, _, *options = arguments(3, "aligned", torch.float32)
    clean = launch_conv_instance(x, g, 3, V, *options)
    x[1, 3, 2, 2] = NAN
    s, G, _ = launch_conv_instance(x, g, 3, V, *options)
    assert s[1].isnan()
    assert torch.equal(s[::2], clean[0][::2])
    assert torch.equal(G[::2], clean[1][::2])


@pytest.mark.parametrize(
    ("n", "O", "columns", "family", "expected"),
    [
        (100, 64, 576, "half", (64, 128, 64)),
        (100, 16, 144, "half", (16, 64, 64)),
        (10, 64, 576, "half", (16, 64, 64)),
        (100, 64, 147, "narrow", (32, 32, 32)),
        (100, 6, 25, "narrow", (16, 64, 32)),
    ],
)
def test_the_largest_tile_that_fills_132_sms_is_chosen(n, O, columns, family, expected):
    assert choose_config(n, O, columns, family, 132)[:3] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_combine_reads_what_has_weight_in_every_layout(dtype, layout):
    for shape in ((1,), (20, 5, 7), (3, 600)):
        draw = Draw(dtype, layout)
        G, w = draw.normal(*shape), draw.weights(shape[0])
        G[w == 0] = NAN
        check(launch_combine(G, w), reference.combine, [G, w], shape[0])


def test_combine_reads_the_gradients_of_an_instance_as_they_lie(monkeypatch):
    x, g, V, _, *options = arguments(3, "stem", torch.float32)
    _, G, _ = launch_conv_instance(x, g, 3, V, *options)
    w = Draw().weights(3)
    copies = []
    monkeypatch.setattr(
        torch.Tensor, "contiguous", lambda x, original=torch.Tensor.contiguous: copies.append(x) or original(x)
    )
    combined = launch_combine(G, w)
    assert max(x.numel() for x in copies) <= V.numel()
    check(combined, reference.combine, [G, w], 3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3, 0)])
def test_empty_sums_are_zero(shape):
    G, w = torch.ones(shape), torch.ones(shape[0])
    check(launch_combine(G, w), reference.combine, [G, w], 1)
