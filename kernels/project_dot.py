"""project_dot in Triton: s_r = g_r . (V a_r + v_b), a product of matrices whose result is dotted and never written.

A program owns a tile of rows and columns: it forms the product in float32, starting at v_b, multiplies it by g and
stores the row sums. Sums of tiles [tiles, r] are added in a second pass, in a fixed order. Programs of the same rows
are adjacent: a is read from memory once, V stays in L2. A loop over tiles inside the program costs 100 registers.

Addressing as in gram_dot.py. Columns past q repeat the last one of V and v_b, and are multiplied by a g of 0.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, choose, config_type, family, hopper, rows, sm_count, unit
from fastrw.kernels.plans import Launch, parts, planned, total
from fastrw.kernels.precision import of_products
from fastrw.kernels.products import dot

Config = config_type("BLOCK_R", "BLOCK_Q", "BLOCK_C")  # BLOCK_C: columns of p a step
# By family, see common.py; largest first. "hopper" adds a tile to "half" where the capability is 9.0 or later.
HALF = (Config(128, 128, 64, 8, 3), Config(64, 64, 64, 4, 3), Config(64, 16, 64, 4, 3))
CONFIGS = {
    "hopper": (Config(128, 256, 64, 8, 3), *HALF),
    "half": HALF,
    "wide": (Config(128, 64, 32, 8, 3), Config(64, 16, 32, 4, 3)),
    "tf32": (Config(128, 128, 32, 8, 3), Config(64, 64, 32, 8, 3), Config(64, 16, 32, 4, 3)),
    "ieee": (Config(128, 64, 16, 8, 2), Config(64, 16, 32, 4, 2)),
    "narrow": (Config(32, 32, 32, 4, 3),),
}


def choose_config(r: int, q: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty in q and of which every SM gets one."""
    return choose(CONFIGS[family], r, q, sm_count)


@triton.jit
def _row_dot(x, y_ptr, stride, rows, width):
    """sum_q x_rq y_rq over columns before width  -> [rows of x]"""
    columns = tl.arange(0, x.shape[1])
    y = tl.load(y_ptr + (rows[:, None] * stride + columns[None, :]), mask=(columns < width)[None, :], other=0.0)
    return tl.sum(x * y.to(tl.float32), axis=1)


@triton.jit(
    do_not_specialize=["r", "p", "q", "stride_a", "stride_g", "stride_V"], do_not_specialize_on_alignment=["v_b_ptr"]
)
def _project_dot_kernel(
    a_ptr,  # [r, p]
    g_ptr,  # [r, q]
    V_ptr,  # [q, p]
    v_b_ptr,  # [q], where BIAS
    partial_ptr,  # [tiles of q, r]
    r,
    p,  # in units of UNIT_P, as are the strides of a and V
    q,  # in units of UNIT_Q, as is the stride of g
    stride_a,
    stride_g,
    stride_V,
    UNIT_P: tl.constexpr,
    UNIT_Q: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    p, stride_a, stride_V = p * UNIT_P, stride_a * UNIT_P, stride_V * UNIT_P
    q, stride_g = q * UNIT_Q, stride_g * UNIT_Q
    tiles = tl.cdiv(q, BLOCK_Q)
    tile = tl.program_id(0) % tiles
    q_start = tile * BLOCK_Q
    r_start = tl.program_id(0) // tiles * BLOCK_R
    rows, columns, steps = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_C)
    r_here = tl.minimum(rows, r - 1 - r_start)
    q_here = tl.minimum(columns, q - 1 - q_start)
    a_ptr += r_start.to(tl.int64) * stride_a
    g_ptr += r_start.to(tl.int64) * stride_g + q_start
    V_ptr += q_start.to(tl.int64) * stride_V
    a_offsets = r_here[:, None] * stride_a + steps[None, :]
    V_offsets = q_here[:, None] * stride_V + steps[None, :]
    product = tl.zeros((BLOCK_R, BLOCK_Q), tl.float32)
    if BIAS:
        product += tl.load(v_b_ptr + q_start + q_here).to(tl.float32)[None, :]
    for start in range(0, p, BLOCK_C):
        mask_c = (steps < p - start)[None, :]
        a = tl.load(a_ptr + start + a_offsets, mask=mask_c, other=0.0)
        V = tl.load(V_ptr + start + V_offsets, mask=mask_c, other=0.0)
        product = dot(a, tl.trans(V), product, PRECISION)
    if BLOCK_Q > 128:  # g in halves: 30 registers fewer
        halves = tl.permute(tl.reshape(product, (BLOCK_R, 2, BLOCK_Q // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        s = _row_dot(left, g_ptr, stride_g, r_here, q - q_start)
        s += _row_dot(right, g_ptr + BLOCK_Q // 2, stride_g, r_here, q - q_start - BLOCK_Q // 2)
    else:
        s = _row_dot(product, g_ptr, stride_g, r_here, q - q_start)
    tl.store(partial_ptr + tile.to(tl.int64) * r + r_start + rows, s, mask=rows < r - r_start)


def _launch(
    a: Tensor,  # [r, p]
    g: Tensor,  # [r, q]
    V: Tensor,  # [q, p]
    bias: bool,
    tiles: int,  # of q
    precision: str,
    config: Config,
) -> Launch:
    """For a, g, V, v_b [q] or None, and partial [tiles, r] float32, which is written: its row i holds the sums over
    the columns of tile i."""
    (r, p), q = a.shape, g.shape[1]
    unit_p, unit_q = unit(a, V), unit(g)
    return Launch(
        *(_project_dot_kernel, (cdiv(r, config.BLOCK_R) * tiles,), config),
        *(r, p // unit_p, q // unit_q),
        *(a.stride(0) // unit_p, g.stride(0) // unit_q, V.stride(0) // unit_p),
        *(unit_p, unit_q, bias),
        PRECISION=precision,
    )


def run_project_dot(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, partial: Tensor, *how) -> None:
    """Fill partial [tiles of q, r]. how: precision and config."""
    _launch(a, g, V, v_b is not None, partial.shape[0], *how)(a, g, V, v_b, partial)


@planned(of_products)
def launch_project_dot(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None = None) -> Callable[..., Tensor]:
    """s [r] float32 of float32, bfloat16 or float16 rows; V and v_b of the same dtype or float32."""
    (r, q), available, precision = g.shape, sm_count(a.device), of_products(a.dtype)
    if r == 0 or q == 0:
        return lambda a, *rest: a.new_zeros(r, dtype=torch.float32)
    a, g, V = rows(a), rows(g), rows(V)
    family_of = family(a, V, precision=precision, aligned=unit(a, V) > 1)
    if family_of == "half" and unit(g) > 1 and hopper(a.device):
        family_of = "hopper"
    config = choose_config(r, q, family_of, available)
    tiles = cdiv(q, config.BLOCK_Q)
    fill = _launch(a, g, V, v_b is not None, tiles, precision, config)

    def serve(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None = None) -> Tensor:
        partial = parts(a, tiles, r)
        fill(rows(a), rows(g), rows(V), None if v_b is None else v_b.contiguous(), partial)
        return total(partial, tiles)

    return serve
