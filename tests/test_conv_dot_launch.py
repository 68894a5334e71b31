"""The Triton kernel of conv_dot in every config, layout and kind of layer."""

from itertools import product

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.convolutions import LAYERS, arguments
from tests.launch import DTYPES, check, every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN
from tests.tiers import covering, some

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.conv_dot import CONFIGS, choose_config, launch_conv_dot, run_conv_dot
from fastrw.kernels.convolution import convolution, to_channels_last


def terms(V, g):
    return V[0].numel() * g[0].numel()


WAYS = [("aligned", "channels last"), ("aligned", "plain"), ("3x3", "margin"), ("stem", "plain")]


@pytest.mark.parametrize(("family", "config"), every(CONFIGS), ids=str)
def test_every_config_is_right(family, config):
    """On contiguous channels, aligned or not, and on others, whatever the family is chosen for."""
    dtype, other = DTYPES[family]
    for layer, layout in some(WAYS, 2):
        x, g, V, v_b, kernel, *options = arguments(3, layer, dtype, layout, other)
        it = convolution(x, g, kernel, *options)
        assert (it.unit > 1) == (layout == "channels last")
        tiles = options[-1] * -(-it.channels[1] // config.BLOCK_O)
        partial = torch.full((tiles, 3 * it.g.shape[2]), NAN)
        weight = to_channels_last(V.flatten(2)) if it.unit > 1 else V.flatten(2)
        run_conv_dot(it, weight, v_b, partial, "tf32" if family == "tf32" else "ieee", config)
        if family == "tf32":
            x, V = to_tf32(x.contiguous()), to_tf32(V.contiguous())
        check(partial.view(-1, 3, it.g.shape[2]).sum((0, 2)), reference.conv_dot, [x, g, V, v_b, *options], terms(V, g))


@pytest.mark.parametrize(("layer", "layout"), covering(product(LAYERS, LAYOUTS)))
def test_every_layer_in_every_layout(layer, layout):
    """The interpreter raises at a stray address, margins included."""
    x, g, V, v_b, _, *options = arguments(2, layer, torch.bfloat16, layout)
    check(launch_conv_dot(x, g, V, v_b, *options), reference.conv_dot, [x, g, V, v_b, *options], terms(V, g))


@pytest.mark.parametrize("other", [torch.float16, torch.float32])
def test_many_channels_are_transposed_to_be_contiguous(other):
    x, g, V, _, _, *options = arguments(2, (64, 72, 1, ((4, 3, 1, 1, 1), (3, 1, 1, 0, 1))), torch.float16, other=other)
    check(launch_conv_dot(x, g, V, None, *options), reference.conv_dot, [x, g, V, None, *options], terms(V, g))


def test_examples_far_apart_are_copied():
    far = torch.empty_strided((200, 8, 1, 1), (2**24 + 8, 1, 8, 8), device="meta")
    near = torch.empty(200, 8, 1, 1, device="meta")
    options = ([1, 1], [1, 1], [0, 0], [1, 1], 1)
    assert convolution(far, near, *options).x.stride(0) == 8
    assert convolution(near, near, *options).x.data_ptr() == near.data_ptr()


def test_an_example_that_is_not_finite_leaves_the_others_unharmed():
    x, g, V, v_b, _, *options = arguments(3, "3x3", torch.float32)
    clean = launch_conv_dot(x, g, V, v_b, *options)
    x[1, 3, 4, 4] = NAN
    s = launch_conv_dot(x, g, V, v_b, *options)
    assert s[1].isnan()
    assert torch.equal(s[::2], clean[::2])


@pytest.mark.parametrize(
    ("rows", "O", "family", "expected"),
    [
        (102400, 16, "half", (128, 16, 64)),
        (102400, 64, "half", (128, 64, 64)),
        (6400, 64, "half", (128, 16, 64)),
        (102400, 160, "half", (128, 128, 64)),
        (102400, 64, "narrow", (64, 64, 32)),
        (102400, 16, "narrow", (64, 16, 32)),
    ],
)
def test_the_largest_tile_that_fills_132_sms_is_chosen(rows, O, family, expected):
    assert choose_config(rows, O, family, 132)[:3] == expected
