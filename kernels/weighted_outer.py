"""weighted_outer in Triton: W = sum_r w_r g_r a_r^T and b = sum_r w_r g_r, where rows of weight 0 are never read.

First one program lists the rows whose weight is not 0, in order, with their weights and their number, on the device:
Eq. 8-9 empties a third to two thirds of them, anywhere among the rows. Then, split-K: a program owns a tile of
[q, p] and an equal part of the list, however long it is; the parts [splits, q, p] are added in a second pass, in a
fixed order. The programs of the first tile of p sum w g for b.

Where a has 16 bits, w g is float32 all the same: products.py multiplies them exactly. Listed rows are anywhere, so
their offsets have 64 bits; else addressing is as in gram_dot.py. A list shorter than its last tile repeats its last row
with an a of 0; a's columns past p are 0.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import (
    cdiv,
    choose,
    config_type,
    family,
    rows,
    sm_count,
    steps_per_program,
    unit,
)
from fastrw.kernels.plans import Launch, parts, planned, total
from fastrw.kernels.precision import of_products
from fastrw.kernels.products import dot

Config = config_type("BLOCK_P", "BLOCK_Q", "BLOCK_R")  # BLOCK_R: rows a step
# By family, see common.py; largest first. "half" is for no weights, "wide" for half rows with weights.
CONFIGS = {
    "half": (Config(128, 128, 64, 8, 3), Config(64, 64, 64, 4, 3), Config(64, 16, 64, 4, 3)),
    "wide": (Config(128, 64, 32, 8, 3), Config(64, 16, 32, 4, 3)),
    "tf32": (Config(128, 128, 32, 8, 3), Config(64, 64, 32, 4, 3), Config(64, 16, 32, 4, 3)),
    "ieee": (Config(128, 64, 16, 8, 2), Config(64, 16, 32, 4, 2)),
    "narrow": (Config(32, 32, 32, 8, 2),),
}
LIST_BLOCK = 4096
NOT_LISTED = (None, None, None)


def choose_config(p: int, q: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty and of which, split over rows, every eighth SM gets one."""
    return choose(CONFIGS[family], p, q, max(sm_count // 8, 1))


def choose_splits(r: int, p: int, q: int, config: Config, sm_count: int) -> int:
    """Splits of the rows: few enough for two programs per SM, none without a whole step."""
    steps = cdiv(r, config.BLOCK_R)
    tiles = cdiv(p, config.BLOCK_P) * cdiv(q, config.BLOCK_Q)
    return cdiv(steps, steps_per_program(steps, tiles, sm_count))


@triton.jit(do_not_specialize=["r"], do_not_specialize_on_alignment=["w_ptr"])
def _list_kernel(
    w_ptr,  # [r]
    listed_ptr,  # [r] int32: rows whose weight is not 0
    weights_ptr,  # [r] float32: theirs
    count_ptr,  # [1] int32: how many
    r,
    BLOCK: tl.constexpr,
):
    lanes = tl.arange(0, BLOCK)
    count = tl.full((), 0, tl.int32)
    for start in range(0, r, BLOCK):
        w = tl.load(w_ptr + start + lanes, mask=lanes < r - start, other=0.0).to(tl.float32)
        kept = w != 0
        place = count + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(listed_ptr + place, start + lanes, mask=kept)
        tl.store(weights_ptr + place, w, mask=kept)
        count += tl.sum(kept.to(tl.int32))
    tl.store(count_ptr, count)


@triton.jit(do_not_specialize=["r", "p", "q", "stride_a", "stride_g", "splits"])
def _weighted_outer_kernel(
    a_ptr,  # [r, p]
    g_ptr,  # [r, q]
    listed_ptr,  # [r], weights_ptr [r] and count_ptr [1], where WEIGHTED
    weights_ptr,
    count_ptr,
    W_ptr,  # [splits, q, p]
    b_ptr,  # [splits, q]
    r,
    p,  # in units of UNIT_P, as is the stride of a
    q,  # in units of UNIT_Q, as is the stride of g
    stride_a,
    stride_g,
    splits,
    UNIT_P: tl.constexpr,
    UNIT_Q: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    p, stride_a = p * UNIT_P, stride_a.to(tl.int64) * UNIT_P
    q, stride_g = q * UNIT_Q, stride_g.to(tl.int64) * UNIT_Q
    tiles_p = tl.cdiv(p, BLOCK_P)
    tile, part = tl.program_id(0), tl.program_id(1)
    p_start, q_start = tile % tiles_p * BLOCK_P, tile // tiles_p * BLOCK_Q
    p_here, q_here, r_here = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_R)
    mask_p, mask_q = (p_here < p - p_start)[None, :], (q_here < q - q_start)[None, :]
    a_ptr += p_start
    g_ptr += q_start
    if WEIGHTED:
        r = tl.load(count_ptr)
    chunk = tl.cdiv(tl.cdiv(r, BLOCK_R), splits) * BLOCK_R
    first = part * chunk
    last = tl.minimum(first + chunk, r)
    product = tl.zeros((BLOCK_P, BLOCK_Q), tl.float32)
    b = tl.zeros((BLOCK_R, BLOCK_Q), tl.float32)
    for start in range(first, last, BLOCK_R):
        row = tl.minimum(start + r_here, last - 1)
        inside = (r_here < last - start)[:, None]
        if WEIGHTED:
            w = tl.load(weights_ptr + row)
            row = tl.load(listed_ptr + row)
        row = row.to(tl.int64)[:, None]
        a = tl.load(a_ptr + (row * stride_a + p_here[None, :]), mask=mask_p, other=0.0)
        g = tl.load(g_ptr + (row * stride_g + q_here[None, :]), mask=inside & mask_q, other=0.0)
        if WEIGHTED:
            g = g.to(tl.float32) * w[:, None]
        product = dot(tl.trans(a), g, product, PRECISION)
        if p_start == 0:
            b += g.to(tl.float32)
    W_ptr += (part.to(tl.int64) * q + q_start) * p + p_start
    tl.store(W_ptr + (q_here[:, None] * p + p_here[None, :]), tl.trans(product), mask=tl.trans(mask_q) & mask_p)
    if p_start == 0:
        tl.store(b_ptr + part.to(tl.int64) * q + q_start + q_here, tl.sum(b, axis=0), mask=q_here < q - q_start)


def _launch(
    a: Tensor,  # [r, p]
    g: Tensor,  # [r, q]
    weighted: bool,
    splits: int,
    precision: str,
    config: Config,
) -> Launch:
    """For a, g; rows [r] int32, their weights [r] float32 and their number [1] int32, or three of None; and, written, W
    [splits, q, p] and b [splits, q] float32: split i of the rows in row i."""
    (r, p), q = a.shape, g.shape[1]
    unit_p, unit_q = unit(a), unit(g)
    tiles = max(cdiv(p, config.BLOCK_P), 1) * cdiv(q, config.BLOCK_Q)
    return Launch(
        *(_weighted_outer_kernel, (tiles, splits), config),
        *(r, p // unit_p, q // unit_q, a.stride(0) // unit_p, g.stride(0) // unit_q, splits),
        *(unit_p, unit_q, weighted),
        PRECISION=precision,
    )


def run_weighted_outer(
    a: Tensor, g: Tensor, listed: tuple[Tensor, Tensor, Tensor] | None, W: Tensor, b: Tensor, *how
) -> None:
    """Fill W [splits, q, p] and b [splits, q]. listed: of `list_rows`. how: precision and config."""
    _launch(a, g, listed is not None, W.shape[0], *how)(a, g, *(listed or NOT_LISTED), W, b)


def list_rows(w: Tensor, fill: Launch | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The rows whose weight is not 0 [r], their weights [r] and their number [1], without waiting for the device."""
    r, w = w.shape[0], w.contiguous()
    listed, weights = w.new_empty(r, dtype=torch.int32), w.new_empty(r, dtype=torch.float32)
    count = w.new_empty(1, dtype=torch.int32)
    (fill or _listing(r))(w, listed, weights, count)
    return listed, weights, count


def _listing(r: int) -> Launch:
    return Launch(_list_kernel, (1,), None, r, LIST_BLOCK, num_warps=8)


@planned(of_products)
def launch_weighted_outer(a: Tensor, g: Tensor, w: Tensor | None = None) -> Callable[..., tuple[Tensor, Tensor]]:
    """W [q, p] and b [q], float32, of float32, bfloat16 or float16 rows."""
    (r, p), q, available, precision = a.shape, g.shape[1], sm_count(a.device), of_products(a.dtype)
    if r == 0 or q == 0:
        return lambda a, *rest: (a.new_zeros(q, p, dtype=torch.float32), a.new_zeros(q, dtype=torch.float32))
    if p == 0:  # no tile of W: the sums of g come with one
        return _without_columns
    a, g = rows(a), rows(g)
    scaled = [] if w is None else [w.new_empty(0, dtype=torch.float32)]
    tiles = family(a, *scaled, precision=precision, aligned=unit(a) > 1 < unit(g))
    config = choose_config(p, q, tiles, available)
    splits = choose_splits(r, p, q, config, available)
    fill, listing = _launch(a, g, w is not None, splits, precision, config), _listing(r)

    def serve(a: Tensor, g: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
        W, b = parts(a, splits, q, p), parts(a, splits, q)
        fill(rows(a), rows(g), *(NOT_LISTED if w is None else list_rows(w, listing)), W, b)
        return total(W, splits), total(b, splits)

    return serve


def _without_columns(a: Tensor, g: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    W, b = launch_weighted_outer(a.new_zeros(len(a), 1), g, w)
    return W[:, :0].clone(), b
