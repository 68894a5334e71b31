"""The Triton kernels of batch_norm_tangent in every config, and the pure functions that choose between them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrw.ops import reference
from tests import interpreter
from tests.launch import check
from tests.op_cases import CASES
from tests.op_cases.draw import NAN
from tests.tiers import covering

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.batch_norm_tangent import (
    CONFIGS,
    choose_chunk,
    choose_config,
    launch_batch_norm_tangent,
    run_batch_norm_sums,
    run_batch_norm_tangent,
)

CASE = CASES["batch_norm_tangent"]
LAYOUTS = ("plain", "channels last")


@pytest.mark.parametrize(("config", "layout", "tiles"), covering(product(CONFIGS, LAYOUTS, [1, 2, 10])), ids=str)
def test_every_config_is_right_in_every_split(config, layout, tiles):
    """Also where it is far from the one that is chosen: a wrong guess may be slow, never wrong."""
    for C, positions in ((10, (3, 5)), (16, (4, 4))):  # rows that are not aligned to 16 bytes, and such that are
        args = CASE.args((5, C, positions, "s"), layout=layout)
        x, t, mean, rstd, weight, d_weight, d_bias, residual, output, _ = args
        split = tiles * config.BLOCK_R
        rows = len(x) * (1 if layout == "plain" else positions[0] * positions[1])
        partial, out = torch.full((-(-rows // split), 2, C), NAN), torch.full_like(x, NAN)
        run_batch_norm_sums(x, t, mean, partial, split, config)
        channels = (mean, rstd, weight, d_weight, d_bias)
        run_batch_norm_tangent(x, t, channels, residual, output, partial.sum(0), out, True, config)
        check(out, reference.batch_norm_tangent, args, CASE.terms(5, C, positions))


def test_it_reads_nothing_outside_its_tensors():
    """The interpreter raises at a stray address, margins included."""
    for layout in CASE.layouts:
        for sizes in ((1, 1, (1, 1)), (3, 5, (7, 3), "s"), (9, 17)):
            assert launch_batch_norm_tangent(*CASE.args(sizes, layout=layout)).isfinite().all()


sizes = st.integers(1, 10**6)


@settings(deadline=None, derandomize=True)
@given(sizes, sizes, st.sampled_from(CONFIGS), st.integers(1, 200))
def test_splits_are_whole_tiles_that_cover_the_rows_once(rows, groups, config, sm_count):
    split = choose_chunk(rows, groups, config, sm_count)
    assert split > 0
    assert split % config.BLOCK_R == 0
    assert groups * (-(-rows // split) - 1) < 4 * sm_count + groups


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(2048, 512), (3136, 512), (1024, 512), (196, 128), (120, 128), (64, 32), (49, 32), (3, 8), (1, 8)],
)
def test_the_widest_tile_that_is_not_a_quarter_empty_is_chosen(columns, expected):
    assert choose_config(columns)[1] == expected
