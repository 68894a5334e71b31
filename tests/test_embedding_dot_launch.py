"""The Triton kernel of embedding_dot in every config, and the pure function that chooses between them."""

import pytest
import torch

from fastrw.ops import reference
from tests import interpreter
from tests.launch import check
from tests.op_cases.draw import LAYOUTS, NAN, Draw
from tests.op_cases.embedding_dot import make

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels.embedding_dot import CONFIGS, choose_config, launch_embedding_dot, run_embedding_dot


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_config_is_right(config, wide):
    for dtype, layout in ((torch.bfloat16, "aligned margin"), (torch.float32, "margin")):
        r, q = config.BLOCK_R + 3, config.BLOCK_C + 8
        idx, g, V, padding_idx = args = make(Draw(dtype, layout), r, q, 9, 3, wide)
        s = torch.full((r,), NAN)
        run_embedding_dot(idx, g, V, padding_idx, s, config)
        check(s, reference.embedding_dot, args, q)


@pytest.mark.parametrize(
    ("q", "expected"), [(768, 256), (1024, 1024), (2048, 1024), (128, 64), (5, 64), (300, 64), (250, 256)]
)
def test_the_widest_tile_that_wastes_little_is_chosen(q, expected):
    assert choose_config(q)[1] == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_arguments(layout):
    """The interpreter raises at a stray address, margins included."""
    for sizes in ((1, 1, 1), (37, 45, 10), (9, 64, 3, 0, True, True)):
        args = make(Draw(torch.bfloat16, layout), *sizes)
        check(launch_embedding_dot(*args), reference.embedding_dot, args, sizes[1])


@pytest.mark.parametrize("value", [-1, 10, 2**40, -(2**40)])
def test_an_index_outside_the_table_reads_nothing_and_is_nan(value):
    idx, g, V, _ = make(Draw(), 37, 45, 10)
    clean = launch_embedding_dot(idx, g, V, -1)
    idx[36] = value
    s = launch_embedding_dot(idx, g, V, -1)
    assert s[36].isnan()
    assert torch.equal(s[:36], clean[:36])


def test_every_other_index_is_read_in_place():
    idx, g, V, _ = make(Draw(), 37, 45, 10)
    around = torch.full((2 * 37,), 2**40)
    around[::2] = idx
    assert torch.equal(launch_embedding_dot(around[::2], g, V, -1), launch_embedding_dot(idx, g, V, -1))


def test_padding_gives_zero_whatever_its_row_holds():
    idx, g, V, _ = make(Draw(), 37, 45, 10)
    clean = launch_embedding_dot(idx, g, V, -1)
    g[idx == 3], V[3] = NAN, NAN
    assert torch.equal(launch_embedding_dot(idx, g, V, 3), torch.where(idx == 3, 0, clean))


@pytest.mark.parametrize("sizes", [(0, 4, 3), (3, 0, 4)], ids=str)
def test_empty(sizes):
    assert launch_embedding_dot(*make(Draw(), *sizes)).tolist() == [0.0] * sizes[0]
