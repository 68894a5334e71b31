"""The Triton kernel of instance_dot in every config, and the pure function that chooses between them."""

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.launch import DTYPES, check, every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN, Draw

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.common import MAX_STRIDE
from fastrw.kernels.instance_dot import CONFIGS, choose_config, launch_instance_dot, run_instance_dot


def arguments(n, t, p, q, dtype=torch.float32, other=None, layout="plain", bias=True):
    draw, others = Draw(dtype, layout), Draw(other or dtype, layout, seed=1)
    return [draw.normal(n, t, p), draw.normal(n, t, q), others.normal(q, p), others.normal(q) if bias else None]


@pytest.mark.parametrize(("family", "config"), every(CONFIGS), ids=str)
def test_every_config_is_right(family, config):
    """On rows aligned to 16 bytes or not, whatever the family is chosen for: a wrong guess may be slow, never wrong."""
    for layout, bias in (("aligned margin", True), ("margin", False)):
        n, t, p, q = 3, config.BLOCK_T + 5, config.BLOCK_P + 8, config.BLOCK_Q + 3
        args = arguments(n, t, p, q, DTYPES[family][0], torch.float32, layout, bias and family != "tf32")
        partial, G = torch.full((4, n), NAN), torch.full((n, q, p), NAN)
        run_instance_dot(*args, partial, G, "tf32" if family == "tf32" else "ieee", config)
        if family == "tf32":
            args[:2] = map(to_tf32, args[:2])
        check((partial.sum(0), G), reference.instance_dot, [*args, True], t * p * q)


def test_tf32_is_used_where_torch_allows_it(tf32_allowed):
    a, g, V, _ = arguments(2, 40, 64, 48)
    check(launch_instance_dot(a, g, V), reference.instance_dot, [to_tf32(a), to_tf32(g), V], 40 * 64 * 48)


def test_32_bits_reach_across_the_largest_tile():
    assert max(max(config[:3]) for _, config in every(CONFIGS)) * MAX_STRIDE <= 2**31


@pytest.mark.parametrize(
    ("n", "q", "p", "family", "expected"),
    [
        (100, 3072, 768, "half", (128, 64, 64)),
        (100, 64, 144, "half", (64, 64, 32)),
        (100, 16, 144, "half", (16, 64, 32)),
        (1, 512, 128, "half", (16, 64, 32)),
        (100, 3072, 768, "tf32", (64, 64, 32)),
        (100, 3072, 768, "narrow", (32, 32, 32)),
    ],
)
def test_the_largest_tile_that_fills_132_processors_is_chosen(n, q, p, family, expected):
    assert choose_config(n, q, p, family, 132)[:3] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_arguments(layout):
    """The interpreter raises at a stray address, margins included."""
    for keep, (n, t, p, q) in enumerate(((1, 1, 1, 1), (3, 37, 45, 10))):
        for other in (torch.float32, torch.bfloat16):
            args = [*arguments(n, t, p, q, torch.bfloat16, other, layout), bool(keep)]
            check(launch_instance_dot(*args), reference.instance_dot, args, t * p * q)


def test_an_example_that_is_not_finite_leaves_the_others_unharmed():
    args = [*arguments(3, 37, 45, 10), True]
    clean = launch_instance_dot(*args)
    args[0][2, 36, 3] = NAN
    s, G = launch_instance_dot(*args)
    assert s[2].isnan()
    assert torch.equal(s[:2], clean[0][:2])
    assert torch.equal(G[:2], clean[1][:2])


@pytest.mark.parametrize("sizes", [(0, 4, 4, 4), (2, 0, 4, 4), (2, 4, 0, 4), (2, 4, 4, 0)], ids=str)
def test_empty_sums_are_zero(sizes):
    args = [*arguments(*sizes), True]
    check(launch_instance_dot(*args), reference.instance_dot, args, 64)
