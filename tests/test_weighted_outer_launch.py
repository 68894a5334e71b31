"""The Triton kernels of weighted_outer in every config and share, and the pure functions that choose between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrw.ops import reference
from tests import interpreter
from tests.launch import DTYPES, check, every, to_tf32
from tests.op_cases.draw import LAYOUTS, NAN, Draw

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

from fastrw.kernels import weighted_outer
from fastrw.kernels.weighted_outer import (
    CONFIGS,
    choose_config,
    choose_splits,
    launch_weighted_outer,
    list_rows,
    run_weighted_outer,
)


def arguments(r, p, q, dtype=torch.float32, layout="plain", weighted=True):
    draw = Draw(dtype, layout)
    return [draw.normal(r, p), draw.normal(r, q), draw.weights(r) if weighted else None]


@pytest.mark.parametrize(("family", "config"), every(CONFIGS), ids=str)
def test_every_config_is_right(family, config):
    """On rows aligned to 16 bytes or not, whatever the family is chosen for: a wrong guess may be slow, never wrong."""
    for layout, splits in (("aligned margin", 1), ("margin", 3)):
        for weighted in (True, False):
            r, p, q = 3 * config.BLOCK_R + 7, 72, config.BLOCK_Q + 3
            a, g, w = arguments(r, p, q, DTYPES[family][0], layout, weighted)
            W, b = torch.full((splits, q, p), NAN), torch.full((splits, q), NAN)
            listed = list_rows(w) if weighted else None
            run_weighted_outer(a, g, listed, W, b, "tf32" if family == "tf32" else "ieee", config)
            got = W.sum(0), b.sum(0)
            if family != "tf32":
                check(got, reference.weighted_outer, [a, g, w], r)
                continue
            scaled = to_tf32(g if w is None else g * w[:, None])  # what its tensor cores take
            check(got[0], lambda *args: reference.weighted_outer(*args)[0], [to_tf32(a), to_tf32(scaled)], r)
            check(got[1], lambda *args: reference.weighted_outer(*args)[1], [a, g, w], r)


@pytest.mark.parametrize("r", [1, 7, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_weight_0_are_left_out_of_the_list_in_order(r, dtype, monkeypatch):
    monkeypatch.setattr(weighted_outer, "LIST_BLOCK", 64)
    w = Draw(dtype).normal(r).clamp(min=0)
    listed, weights, count = list_rows(w)
    assert torch.equal(listed[:count], w.nonzero()[:, 0].int())
    assert torch.equal(weights[:count], w[w != 0].float())


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_row_of_weight_0_adds_nothing_whatever_it_holds(value):
    a, g, w = arguments(100, 24, 16)
    dead = w == 0
    a[dead], g[dead] = value, value
    assert 0 < dead.sum() < 100
    check(launch_weighted_outer(a, g, w), reference.weighted_outer, [a, g, w], 100)
    for result in launch_weighted_outer(a, g, torch.zeros(100)):
        assert torch.equal(result, torch.zeros_like(result))


def test_tiny_and_huge_weights_lose_nothing():
    for dtype in (torch.float16, torch.bfloat16):
        a, g, w = arguments(40, 24, 16, dtype)
        for scale in (1e-20, 1e20):
            check(launch_weighted_outer(a, g, w * scale), reference.weighted_outer, [a, g, w * scale], 40)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_nothing_outside_its_arguments(layout):
    """The interpreter raises at a stray address, margins included."""
    for sizes in ((1, 1, 1), (37, 45, 10)):
        for dtype in (torch.float32, torch.bfloat16):
            args = arguments(*sizes, dtype, layout)
            check(launch_weighted_outer(*args), reference.weighted_outer, args, sizes[0])


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 4, 0)], ids=str)
@pytest.mark.parametrize("weighted", [True, False])
def test_empty_sums_are_zero(sizes, weighted):
    args = arguments(*sizes, weighted=weighted)
    check(launch_weighted_outer(*args), reference.weighted_outer, args, 4)


def test_tf32_is_used_where_torch_allows_it(tf32_allowed):
    a, g, _ = arguments(70, 64, 48, weighted=False)
    W = launch_weighted_outer(a, g)[0]
    check(W, lambda *args: reference.weighted_outer(*args)[0], [to_tf32(a), to_tf32(g)], 70)


@pytest.mark.parametrize(
    ("r", "p", "q", "family", "expected", "splits"),
    [
        (65536, 1024, 4096, "wide", (128, 64, 32), 1),
        (65536, 768, 768, "half", (128, 128, 64), 8),
        (6400, 128, 512, "half", (64, 64, 64), 17),
        (128, 1024, 1024, "half", (128, 128, 64), 2),
        (100, 512, 10, "half", (64, 16, 64), 2),
    ],
)
def test_the_largest_tile_that_132_sms_can_share_is_chosen(r, p, q, family, expected, splits):
    config = choose_config(p, q, family, 132)
    assert config[:3] == expected
    assert choose_splits(r, p, q, config, 132) == splits


sizes = st.integers(1, 10**5)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 10**7), sizes, sizes, st.sampled_from([*CONFIGS]), st.integers(1, 200))
def test_the_splits_take_bounded_memory(r, p, q, family, sm_count):
    """Programs that split the rows are at most two per SM and a tile more for each split."""
    config = choose_config(p, q, family, sm_count)
    splits = choose_splits(r, p, q, config, sm_count)
    tiles = -(-p // config.BLOCK_P) * -(-q // config.BLOCK_Q)
    assert 1 <= splits <= -(-r // config.BLOCK_R)
    assert splits == 1 or tiles * (splits - 1) < 2 * sm_count
