"""The Triton kernel of norm_dot in every config, layout and split, and the pure function that chooses between them."""

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.launch import check, every
from tests.op_cases.draw import LAYOUTS, NAN, Draw
from tests.op_cases.norm_dot import make
from tests.tiers import covering, some

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.common import MAX_STRIDE
from fastrw.kernels.norm_dot import CONFIGS, Statistics, choose_config, launch_norm_dot, run_norm_dot

WAYS = [("", 1), ("S", 2)]  # the statistics that do not vary, the tiles of a program


@pytest.mark.parametrize(
    ("family", "config", "positions", "fixed", "tiles"),
    covering((*row, positions, *way) for row in every(CONFIGS) for positions in (False, True) for way in WAYS),
    ids=str,
)
def test_every_config_is_right_in_every_split(family, config, positions, fixed, tiles):
    """Along channels and along positions, statistics that vary and that do not, on aligned rows and others."""
    half = [(torch.bfloat16, "aligned margin"), (torch.float16, "plain")]
    for dtype, layout in half if family == "half" else [(torch.float32, "aligned margin"), (torch.float32, "margin")]:
        n, width, G = 2, 12, 2
        S = 131 if config.BLOCK_A > 32 or positions else 19
        args = make(Draw(dtype, layout), n, S, width, G, fixed)
        x, g, mean, rstd, V_gamma, V_beta = args
        statistics = Statistics(mean, rstd, width)
        if positions:
            x, g = (t.transpose(1, 2).contiguous() for t in (x, g))
            statistics = Statistics(mean.transpose(1, 2), rstd.transpose(1, 2), width)
        chunk = tiles * config.BLOCK_A
        partial = torch.full((-(-x.shape[1] // chunk), n), NAN)
        run_norm_dot(x, g, statistics, V_gamma, V_beta, positions, partial, chunk, False, config)
        check(partial.sum(0), reference.norm_dot, args, 4 * S * width * G)


@pytest.mark.parametrize(("family", "config"), every(CONFIGS), ids=str)
def test_every_config_sums_each_row_where_there_is_one_position(family, config):
    n, width, G = 131, 7, 3
    args = make(Draw(torch.float16 if family == "half" else torch.float32), n, 1, width, G)
    turned = [t.transpose(0, 1) for t in args[:4]]
    for chunk in some((2 * config.BLOCK_A, config.BLOCK_A), 1):
        s = torch.full((n,), NAN)
        run_norm_dot(*turned[:2], Statistics(*turned[2:], width), *args[4:], False, s, chunk, True, config)
        check(s, reference.norm_dot, args, 4 * width * G)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (512, 1024, (1, 1024)),
        (196, 768, (8, 256)),
        (64, 128, (32, 64)),
        (16, 1024, (1, 1024)),
        (64, 49, (32, 64)),
        (1024, 16, (128, 16)),
        (256, 196, (8, 256)),
        (1, 5000, (1, 1024)),
        (3, 5, (8, 256)),
    ],
)
def test_the_widest_tile_that_wastes_little_is_chosen(a, b, expected):
    assert choose_config(a, b, "half")[:2] == expected
    assert choose_config(a, b, "other")[:2] == (max(expected[0] // 2, 1), expected[1])


def test_32_bits_reach_across_the_tallest_tile():
    assert max(config.BLOCK_A for _, config in every(CONFIGS)) * MAX_STRIDE <= 2**31


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_arguments(layout):
    """The interpreter raises at a stray address, margins included."""
    for sizes in ((3, 19, 9, 2, "S"), (2, 9, 9, 1), (5, 1, 6, 3), (1, 1, 1, 1)):
        args = make(Draw(torch.bfloat16, layout), *sizes)
        check(launch_norm_dot(*args), reference.norm_dot, args, 4 * sizes[1] * sizes[2] * sizes[3])


@pytest.mark.parametrize("options", [{"mean": False, "beta": False}, {"gamma": False}, {"wide": False}], ids=str)
def test_what_is_left_out_is_not_read(options):
    args = list(make(Draw(torch.float32), 3, 19, 4, 2, "S", **options))
    if args[4] is None:
        args[0] = args[0].fill_(NAN)
        truth = [torch.zeros_like(args[0]), *args[1:]]
    else:
        truth = args
    check(launch_norm_dot(*args), reference.norm_dot, truth, 4 * 19 * 8)


@pytest.mark.parametrize("layout", ["plain", "channels last"])
def test_one_bad_example_leaves_the_others_unharmed(layout):
    args = make(Draw(torch.float32, layout), 7, 37, 9, 3, "S")
    clean = launch_norm_dot(*args)
    args[0][2, 36, 26] = NAN
    s = launch_norm_dot(*args)
    others = torch.arange(7) != 2
    assert s[2].isnan()
    assert torch.equal(s[others], clean[others])


@pytest.mark.parametrize("sizes", [(0, 3, 4, 1), (3, 0, 4, 1), (3, 4, 0, 1)], ids=str)
def test_empty(sizes):
    assert launch_norm_dot(*make(Draw(), *sizes)).tolist() == [0.0] * sizes[0]
