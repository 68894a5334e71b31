"""instance_dot in Triton: s_i = <G_i, V> + <sum_t g_it, v_b>, G_i = sum_t g_it a_it^T, dotted while in registers.

A program owns one example and a tile of [q, p]: it forms the tile of G_i in float32, stores it where it is to be kept,
multiplies it by that of V and sums. Tiles meet in a second sum of [tiles, n], in a fixed order. Programs of one tile
are neighbours, V stays in L2; a loop over examples inside the program costs 70 registers. The programs of the first
tile of p add the bias.

Addressing as in gram_dot.py. Positions past t repeat the last one of a, and meet a g of 0.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import choose, family, precision, processors, rows, unit


class Config(NamedTuple):
    BLOCK_Q: int
    BLOCK_P: int
    BLOCK_T: int  # positions a step
    num_warps: int
    num_stages: int


# By family, see common.py; largest first.
CONFIGS = {
    "half": (Config(128, 64, 64, 8, 3), Config(64, 64, 32, 4, 3), Config(16, 64, 32, 4, 3)),
    "tf32": (Config(64, 64, 32, 8, 2), Config(16, 64, 32, 4, 2)),
    "ieee": (Config(64, 64, 16, 8, 2), Config(16, 64, 16, 4, 2)),
    "narrow": (Config(32, 32, 32, 4, 2),),
}


def choose_config(n: int, q: int, p: int, family: str, processors: int) -> Config:
    """The largest tile that is not half empty and of which, over all examples, every processor gets one."""
    return choose(CONFIGS[family], q, p, triton.cdiv(processors, max(n, 1)))


@triton.jit(do_not_specialize=["n", "t", "p", "q", "a_n", "a_t", "g_n", "g_t", "stride_V"])
def _instance_dot_kernel(
    a_ptr,  # [n, t, p]
    g_ptr,  # [n, t, q]
    V_ptr,  # [q, p]
    v_b_ptr,  # [q], where BIAS
    partial_ptr,  # [tiles of q and p, n]
    G_ptr,  # [n, q, p], where KEEP
    n,
    t,
    p,  # in units of UNIT_P, as are the strides of a and V
    q,  # in units of UNIT_Q, as are the strides of g
    a_n,
    a_t,
    g_n,
    g_t,
    stride_V,
    UNIT_P: tl.constexpr,
    UNIT_Q: tl.constexpr,
    BIAS: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_T: tl.constexpr,
    PRECISION: tl.constexpr,
):
    p, a_n, a_t, stride_V = p * UNIT_P, a_n.to(tl.int64) * UNIT_P, a_t * UNIT_P, stride_V * UNIT_P
    q, g_n, g_t = q * UNIT_Q, g_n.to(tl.int64) * UNIT_Q, g_t * UNIT_Q
    i, tiles_p = tl.program_id(0) % n, tl.cdiv(p, BLOCK_P)
    tile = tl.program_id(0) // n
    q_start, p_start = tile // tiles_p * BLOCK_Q, tile % tiles_p * BLOCK_P
    q_here, p_here, t_here = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_T)
    mask_q, mask_p = q_here < q - q_start, p_here < p - p_start
    a_ptr += i * a_n + p_start
    g_ptr += i * g_n + q_start
    G = tl.zeros((BLOCK_Q, BLOCK_P), tl.float32)
    for start in range(0, t, BLOCK_T):
        here = tl.minimum(t_here, t - 1 - start)
        mask_g = (t_here < t - start)[:, None] & mask_q[None, :]
        g_rows, a_rows = g_ptr + tl.cast(start, tl.int64) * g_t, a_ptr + tl.cast(start, tl.int64) * a_t
        g = tl.load(g_rows + (here[:, None] * g_t + q_here[None, :]), mask=mask_g, other=0.0)
        a = tl.load(a_rows + (here[:, None] * a_t + p_here[None, :]), mask=mask_p[None, :], other=0.0)
        G = tl.dot(tl.trans(g), a, G, input_precision=PRECISION)
    mask = mask_q[:, None] & mask_p[None, :]
    V_ptr += q_start.to(tl.int64) * stride_V + p_start
    V = tl.load(V_ptr + (q_here[:, None] * stride_V + p_here[None, :]), mask=mask, other=0.0)
    if KEEP:
        G_ptr += (i.to(tl.int64) * q + q_start) * p + p_start
        tl.store(G_ptr + (q_here[:, None] * p + p_here[None, :]), G, mask=mask)
    s = tl.sum(G * V.to(tl.float32))
    if BIAS:  # noqa: SIM102 (BIAS is known to the compiler, p_start is not)
        if p_start == 0:
            g_sum = tl.zeros((BLOCK_T, BLOCK_Q), tl.float32)
            for start in range(0, t, BLOCK_T):
                mask_g = (t_here < t - start)[:, None] & mask_q[None, :]
                g_rows = g_ptr + tl.cast(start, tl.int64) * g_t
                g = tl.load(g_rows + (t_here[:, None] * g_t + q_here[None, :]), mask=mask_g, other=0.0)
                g_sum += g.to(tl.float32)
            v_b = tl.load(v_b_ptr + q_start + q_here, mask=mask_q, other=0.0)
            s += tl.sum(g_sum * v_b.to(tl.float32)[None, :])
    tl.store(partial_ptr + tile.to(tl.int64) * n + i, s)


def run_instance_dot(
    a: Tensor,  # [n, t, p]
    g: Tensor,  # [n, t, q]
    V: Tensor,  # [q, p]
    v_b: Tensor | None,  # [q]
    partial: Tensor,  # [tiles of q and p, n] float32, written
    G: Tensor | None,  # [n, q, p] float32, written
    precision: str,
    config: Config,
) -> None:
    """Fill partial with the share of each tile in each s_i, and G."""
    (n, t, p), q = a.shape, g.shape[2]
    unit_p, unit_q = unit(a, V), unit(g)
    with torch.cuda.device_of(a):
        _instance_dot_kernel[(partial.shape[0] * n,)](
            *(a, g, V, v_b, partial, G),
            *(n, t, p // unit_p, q // unit_q),
            *(a.stride(0) // unit_p, a.stride(1) // unit_p, g.stride(0) // unit_q, g.stride(1) // unit_q),
            *(V.stride(0) // unit_p, unit_p, unit_q, v_b is not None, G is not None),
            *(config.BLOCK_Q, config.BLOCK_P, config.BLOCK_T, precision),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )


def launch_instance_dot(
    a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None = None, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """s [n] and G [n, q, p] (keep; else [0, q, p]), float32; V and v_b of the dtype of the rows or float32."""
    (n, _, p), q, available = a.shape, g.shape[2], processors(a.device)
    G = a.new_empty(n if keep else 0, q, p, dtype=torch.float32)
    if n == 0 or q == 0:
        return a.new_zeros(n, dtype=torch.float32), G
    if p == 0:  # no tile of G: the part of v_b comes with one
        return launch_instance_dot(a.new_zeros(n, a.shape[1], 1), g, V.new_zeros(q, 1), v_b)[0], G
    a, g, V = rows(a), rows(g), rows(V)
    v_b = None if v_b is None else v_b.contiguous()
    config = choose_config(n, q, p, family(a, aligned=unit(a, V) > 1 < unit(g)), available)
    tiles = triton.cdiv(q, config.BLOCK_Q) * max(triton.cdiv(p, config.BLOCK_P), 1)
    partial = a.new_empty(tiles, n, dtype=torch.float32)
    run_instance_dot(a, g, V, v_b, partial, G if keep else None, precision(), config)
    return partial.sum(0), G
