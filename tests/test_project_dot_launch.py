"""The Triton kernel of project_dot in every config, and the pure function that chooses between them."""

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.launch import DTYPES, check, every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN, Draw

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.common import MAX_STRIDE
from fastrw.kernels.project_dot import CONFIGS, choose_config, launch_project_dot, run_project_dot


def arguments(r, p, q, dtype=torch.float32, other=None, layout="plain", bias=True):
    draw, others = Draw(dtype, layout), Draw(other or dtype, layout, seed=1)
    return [draw.normal(r, p), draw.normal(r, q), others.normal(q, p), others.normal(q) if bias else None]


@pytest.mark.parametrize(("family", "config"), every(CONFIGS), ids=str)
def test_every_config_is_right(family, config):
    """On rows aligned to 16 bytes or not, whatever the family is chosen for: a wrong guess may be slow, never wrong."""
    dtype, other = DTYPES[family]
    for layout, bias in (("aligned margin", True), ("margin", False)):
        r, p, q = 130, 72, config.BLOCK_Q + 3
        args = arguments(r, p, q, dtype, other, layout, bias)
        partial = torch.full((2, r), NAN)
        run_project_dot(*args, partial, "tf32" if family == "tf32" else "ieee", config)
        if family == "tf32":
            args[0], args[2] = to_tf32(args[0]), to_tf32(args[2])
        check(partial.sum(0), reference.project_dot, args, p * q)


def test_tf32_is_used_where_torch_allows_it(tf32_allowed):
    a, g, V, v_b = arguments(70, 64, 48)
    check(launch_project_dot(a, g, V, v_b), reference.project_dot, [to_tf32(a), g, to_tf32(V), v_b], 64 * 48)


def test_32_bits_reach_across_the_largest_tile():
    assert max(max(config.BLOCK_R, config.BLOCK_Q // 2) for _, config in every(CONFIGS)) * MAX_STRIDE <= 2**31


@pytest.mark.parametrize(
    ("r", "q", "family", "expected"),
    [
        (65536, 4096, "hopper", (128, 256, 64)),
        (65536, 4096, "half", (128, 128, 64)),
        (2048, 1024, "half", (64, 64, 64)),
        (100, 1024, "half", (64, 16, 64)),
        (65536, 10, "half", (64, 16, 64)),
        (65536, 4096, "ieee", (128, 64, 16)),
        (65536, 4096, "narrow", (32, 32, 32)),
    ],
)
def test_the_largest_tile_that_fills_132_sms_is_chosen(r, q, family, expected):
    assert choose_config(r, q, family, 132)[:3] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_arguments(layout):
    """The interpreter raises at a stray address, margins included."""
    for sizes in ((1, 1, 1), (37, 45, 10), (65, 8, 17)):
        for other in (torch.float32, torch.bfloat16):
            args = arguments(*sizes, torch.bfloat16, other, layout)
            check(launch_project_dot(*args), reference.project_dot, args, sizes[1] * sizes[2])


def test_a_row_that_is_not_finite_leaves_the_others_unharmed():
    args = arguments(37, 45, 10)
    clean = launch_project_dot(*args)
    args[0][36, 3] = NAN
    s = launch_project_dot(*args)
    assert s[36].isnan()
    assert torch.equal(s[:36], clean[:36])


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 4, 0)], ids=str)
def test_empty_sums_are_zero(sizes):
    args = arguments(*sizes)
    check(launch_project_dot(*args), reference.project_dot, args, 16)
