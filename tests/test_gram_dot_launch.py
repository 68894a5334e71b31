"""The Triton kernel of gram_dot in every config and split, and the pure functions that choose between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrw.ops import reference
from fastrw.ops.tolerance import bound, relative_error
from tests import interpreter
from tests.launch import every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN
from tests.op_cases.gram_dot import matrices
from tests.tiers import covering

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.common import MAX_STRIDE, rows
from fastrw.kernels.gram_dot import CONFIGS, choose_chunk, choose_config, launch_gram_dot, run_gram_dot

EVERY = every(CONFIGS)


@pytest.mark.parametrize(
    ("family", "config", "tiles"), covering((*row, tiles) for tiles in [1, 2, 10] for row in EVERY), ids=str
)
def test_every_config_is_right_in_every_split(family, config, tiles):
    """On rows aligned to 16 bytes or not, whatever the family is chosen for: a wrong guess may be slow, never wrong."""
    split = tiles * config.BLOCK_K
    dtype = torch.bfloat16 if family == "half" else torch.float32
    for layout in ("aligned margin", "margin"):
        r, k, p, q = 130, 67, 72, 16
        tensors = matrices(r, k, p, q, dtype=dtype, layout=layout)
        partial = torch.full((-(-k // split), r), NAN)
        run_gram_dot(*tensors, partial, 0.5, split, "tf32" if family == "tf32" else "ieee", config)
        if family == "tf32":
            tensors = [to_tf32(x) for x in tensors]
        truth = reference.gram_dot(*(x.double() for x in tensors), 0.5)
        plain = relative_error(reference.gram_dot(*tensors, 0.5), truth)
        assert relative_error(partial.sum(0), truth) <= bound(torch.float32, plain, k * (p + q))


def test_tf32_is_used_where_torch_allows_it(tf32_allowed):
    tensors = matrices(70, 33, 64, 48)
    truth = reference.gram_dot(*(to_tf32(x).double() for x in tensors))
    assert relative_error(launch_gram_dot(*tensors, 1.0), truth) <= bound(torch.float32, 0.0, 33 * 112)


def test_rows_are_copied_only_where_32_bits_do_not_reach_across_a_tile():
    for stride, copied in ((MAX_STRIDE, False), (MAX_STRIDE + 1, True)):
        far = torch.empty_strided((2, 8), (stride, 1), device="meta")
        assert (rows(far) is not far) == copied


def test_32_bits_reach_across_the_largest_tile():
    assert max(max(config.BLOCK_R, config.BLOCK_K) for _, config in EVERY) * MAX_STRIDE <= 2**31


sizes = st.integers(0, 10**6)


@settings(deadline=None, derandomize=True)
@given(sizes, sizes, st.sampled_from([*CONFIGS]), st.integers(1, 200))
def test_splits_are_whole_tiles_that_cover_k_once(r, k, family, sm_count):
    config = choose_config(max(r, 1), k, family, sm_count)
    assert config in CONFIGS[family]
    split = choose_chunk(max(r, 1), k, config, sm_count)
    assert split > 0
    assert split % config.BLOCK_K == 0
    rows, splits = -(-max(r, 1) // config.BLOCK_R), -(-k // split)
    assert splits <= 1 or rows * (splits - 1) < 2 * sm_count + rows


@pytest.mark.parametrize(
    ("r", "k", "family", "expected"),
    [
        (65536, 2048, "half", (128, 64, 64)),
        (4096, 2048, "half", (128, 64, 64)),
        (4096, 256, "half", (64, 64, 64)),
        (128, 32, "half", (64, 16, 64)),
        (100, 10, "half", (64, 16, 64)),
        (65536, 10, "half", (64, 16, 64)),
        (65536, 2048, "ieee", (64, 64, 32)),
        (65536, 2048, "narrow", (32, 32, 64)),
    ],
)
def test_the_largest_tile_that_fills_132_sms_is_chosen(r, k, family, expected):
    assert choose_config(r, k, family, 132)[:3] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_matrices(layout):
    """The interpreter raises at a stray address, margins included."""
    for sizes in ((1, 1, 1, 1), (37, 19, 45, 10), (65, 17, 8, 9)):
        assert launch_gram_dot(*matrices(*sizes, layout=layout), 1.0).isfinite().all()
